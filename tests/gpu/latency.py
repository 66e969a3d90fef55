"""The step that tells what the appliance adds: first byte, time between chunks, tokens a second.

A random model's own times differ by hundreds of times what is looked for, so that two p99 of a
thousand streams each say nothing of a millisecond. So both ways lead through a tap before the
engine (``tap.py``), and what lies between client and tap is told of each single stream.
"""

import statistics
import time
from collections.abc import Sequence

from tests.checkpointbox import dice_of
from tests.gpu import tap
from tests.gpu.box import Program, cpu_seconds
from tests.gpu.record import Facts, Outcome, quantile, require, spread
from tests.gpu.serving import DIRECT, THROUGH, attach, sampled
from tests.gpu.stage import Stage, sayings
from tests.gpu.streams import Stream, Way, ask_at_once, ask_in_turn, question

ADDED_S = 0.001  # to the first byte, and between chunks, at p99
SLOWER = 0.01  # of tokens a second
RESAMPLES = 100
APART_S = 0.05  # between the clients' first questions
PROMPT, SHORT_PROMPT, SHORT_REPLY = 256, 24, 4  # tokens
WAYS = (DIRECT, THROUGH)
KINDS = {"ttft_s": "first byte", "gap_s": "between chunks"}


def latency(stage: Stage, outcome: Outcome) -> None:
    """Direct against through the appliance, in turns, over one and the same engine.

    Clients ask one thing after the other, as agents do, so that requests come when they come: of
    several sent at the same moment the last ones would miss the engine's next step, and wait for
    one more, through whatever they come. They keep their connections, and none begins at the
    moment of another.
    """
    engine = stage.deep()
    outcome.facts.update(ready_s=engine.ready_s, says=sayings(engine.said()))
    before = tap.beside(stage.box, engine)
    sidecar = attach(stage, before)
    ways = (Way.to(before, DIRECT), Way.to(sidecar, THROUGH))
    try:
        for way in ways:
            ask_at_once(way, [_timed(stage, 9000 + n, 16) for n in range(4)])  # warm
        for at_once, rounds in ((4, stage.sizes.rounds), (1, stage.sizes.rounds // 2)):
            measured: list[Facts] = []
            for number in range(rounds):
                measured.append(_round(stage, ways, sidecar, at_once, number))
                facts = _summary(measured, at_once)
                outcome.facts[f"c{at_once}"] = facts | {"rounds": _short(measured)}
            _show(outcome, facts, at_once)
    finally:
        for program in (sidecar, before):
            program.end()
            stage.box.running.remove(program)
    if not stage.box.on_cpu:
        _judge(outcome.facts["c4"])


def _timed(stage: Stage, seed: int, max_tokens: int, prompt: int = PROMPT) -> Facts:
    return question(stage.words(prompt, seed), max_tokens, **sampled(stage, seed))


def _round(
    stage: Stage, ways: tuple[Way, Way], sidecar: Program, at_once: int, number: int
) -> Facts:
    """Return one round's samples; every second round begins with the other way.

    Streams of some length tell the time between chunks and tokens a second; short ones, of which
    there are many and for which the engine has little to read, the first byte.
    """
    found: Facts = {}
    sizes = stage.sizes
    for turn, way in enumerate(ways if number % 2 == 0 else ways[::-1]):
        # no prompt twice: the prefix cache would answer the second way
        dice = dice_of(f"{at_once} {number} {turn}")
        clients = [[_timed(stage, dice.randrange(10**9), sizes.reply) for _ in range(sizes.turns)]
                   for _ in range(at_once)]  # fmt: skip
        short = [[_timed(stage, dice.randrange(10**9), SHORT_REPLY, SHORT_PROMPT)
                  for _ in range(sizes.firsts)] for _ in range(at_once)]  # fmt: skip
        before, began = cpu_seconds(sidecar.process.pid), time.monotonic()
        streams = ask_in_turn(way, clients, APART_S)
        took, cpu = time.monotonic() - began, cpu_seconds(sidecar.process.pid) - before
        brief = ask_in_turn(way, short, APART_S)
        found[way.name] = {
            "ttft_s": [stream.ttft_s for stream in brief],
            "gap_s": [gap for stream in streams for gap in stream.gaps_s],
            "way": _way(stage, streams, brief),
            "tokens_per_s": sum(stream.tokens for stream in streams) / took,
            "events": sum(len(stream.moments) for stream in streams),
            "seconds": took, "sidecar_cpu_s": cpu if way.name == THROUGH else None,
        }  # fmt: skip
    return found


def _way(stage: Stage, streams: list[Stream], brief: list[Stream]) -> dict[str, list[float]]:
    """Return what lies between client and tap: the first byte of all streams, gaps of long ones."""
    notes = tap.notes_of(stage.box, [*streams, *brief])
    found = tap.between(streams, notes)
    found["ttft_s"] += tap.between(brief, notes)["ttft_s"]
    return found


def _short(rounds: list[Facts]) -> list[Facts]:
    """Return rounds for the report: first bytes in full, of the many gaps what describes them."""
    return [
        {
            way: found | {
                "ttft_s": [round(value, 6) for value in found["ttft_s"]],
                "gap_s": spread(found["gap_s"]),
                "way": {"ttft_s": [round(value, 6) for value in found["way"]["ttft_s"]],
                        "gap_s": spread(found["way"]["gap_s"])},
            }
            for way, found in one.items()
        }
        for one in rounds
    ]  # fmt: skip


def _summary(rounds: list[Facts], at_once: int) -> Facts:
    facts: Facts = {"at_once": at_once}
    for name in KINDS:
        seen = {way: [value for one in rounds for value in one[way][name]] for way in WAYS}
        ways = {way: [value for one in rounds for value in one[way]["way"][name]] for way in WAYS}
        facts[name] = {way: spread(values) for way, values in seen.items()}
        facts[f"added_{name}"] = {
            share: facts[name][THROUGH][share] - facts[name][DIRECT][share]
            for share in ("p50", "p90", "p99", "mean")
        } | {"p99_95%": likely_p99(seen[DIRECT], seen[THROUGH])}
        # what the measurement itself takes is what a direct stream takes as a rule
        floor = statistics.median(ways[DIRECT])
        facts[f"way_{name}"] = {way: spread(values) for way, values in ways.items()} | {
            "added": spread([value - floor for value in ways[THROUGH]])
        }
    ratios = [one[THROUGH]["tokens_per_s"] / one[DIRECT]["tokens_per_s"] for one in rounds]
    facts["tokens_per_s"] = {
        way: statistics.median(one[way]["tokens_per_s"] for one in rounds) for way in WAYS
    }
    facts["ratio"] = {
        "median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)
    }  # fmt: skip
    cpu = sum(one[THROUGH]["sidecar_cpu_s"] for one in rounds)
    facts["sidecar"] = {
        "us_per_event": 1e6 * cpu / sum(one[THROUGH]["events"] for one in rounds),
        "share_of_a_core": cpu / sum(one[THROUGH]["seconds"] for one in rounds),
    }
    return facts


def likely_p99(direct: Sequence[float], through: Sequence[float]) -> tuple[float, float]:
    """Return where the difference of the two p99 lies with 95 %, by drawing the samples anew."""
    dice, found = dice_of("p99"), []
    for _ in range(RESAMPLES):
        one, other = dice.choices(direct, k=len(direct)), dice.choices(through, k=len(through))
        found.append(quantile(other, 0.99) - quantile(one, 0.99))
    return quantile(found, 0.025), quantile(found, 0.975)


def _show(outcome: Outcome, facts: Facts, at_once: int) -> None:
    for name, word in KINDS.items():
        added, direct = facts[f"way_{name}"]["added"], facts[f"way_{name}"][DIRECT]
        outcome.show(
            f"c={at_once} {word}, added by the way, ms: p50 {1e3 * added['p50']:.3f} p90 "
            f"{1e3 * added['p90']:.3f} p99 {1e3 * added['p99']:.3f} most {1e3 * added['max']:.3f} "
            f"(n {added['n']}; direct p50 {1e3 * direct['p50']:.3f} p99 {1e3 * direct['p99']:.3f})"
        )
        one, other = facts[name][DIRECT], facts[name][THROUGH]
        low, high = facts[f"added_{name}"]["p99_95%"]
        outcome.show(
            f"c={at_once} {word}, seen by the client, ms: direct p50 {1e3 * one['p50']:.2f} p99 "
            f"{1e3 * one['p99']:.2f}; through {1e3 * other['p50']:.2f} {1e3 * other['p99']:.2f}; "
            f"p99 apart by {1e3 * facts[f'added_{name}']['p99']:+.3f} (95 %: {1e3 * low:+.2f} to "
            f"{1e3 * high:+.2f}; n {one['n']}, {other['n']})"
        )
    ratio, speed = facts["ratio"], facts["tokens_per_s"]
    outcome.show(
        f"c={at_once} tokens/s: direct {speed[DIRECT]:.0f}, through {speed[THROUGH]:.0f}; ratio "
        f"{ratio['median']:.4f} ({ratio['least']:.4f} to {ratio['most']:.4f}); sidecar "
        f"{facts['sidecar']['us_per_event']:.0f} us a chunk, "
        f"{100 * facts['sidecar']['share_of_a_core']:.2f} % of a core"
    )


def _judge(facts: Facts) -> None:
    for name, word in KINDS.items():
        added = facts[f"way_{name}"]["added"]["p99"]
        require(added <= ADDED_S, f"{word}: {1e3 * added:.2f} ms were added at p99")
    ratio = facts["ratio"]["median"]
    require(ratio >= 1 - SLOWER, f"{100 * (1 - ratio):.1f} % fewer tokens a second")
