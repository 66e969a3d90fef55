"""Steps over the bare engine, and the appliance attached to it: speed, added latency, hang-ups."""

import statistics
import time
from collections.abc import Callable, Sequence

from tests.checkpointbox import dice_of
from tests.gpu.box import Program, cpu_seconds
from tests.gpu.record import Facts, Outcome, quantile, require, spread
from tests.gpu.stage import Stage, metric, sayings
from tests.gpu.streams import Stream, Way, ask_at_once, ask_in_turn, leave_after, question

DIRECT, THROUGH = "direct", "through"
ADDED_S = 0.001  # of TTFT and of the time between chunks, at p99
SLOWER = 0.01  # of tokens a second
RESAMPLES = 100
PROMPT, SHORT_PROMPT, SHORT_REPLY = 256, 24, 4  # tokens
FREE_S = 2.0  # after a hang-up, until nothing runs


def bare(stage: Stage, outcome: Outcome) -> None:
    """The engine alone, with the flags of production: it comes up, and streams."""
    program = stage.engine()
    outcome.facts.update(stage.facts)
    says = stage.facts["says"]
    chosen = ("version", "attention", "experts", "kv_cache_dtype", "compile_s", "kv_tokens")
    outcome.show(f"{program.name}: ready after {program.ready_s:.0f} s")
    outcome.show(", ".join(f"{name} {says[name]}" for name in chosen if name in says))
    way = Way.to(program, DIRECT)
    runs = []
    for seed in range(4):
        words = stage.words(64, seed)
        stream = ask_at_once(way, [question(words, stage.sizes.chunks, **sampled(stage, seed))])[0]
        require(stream.tokens == stage.sizes.chunks, f"{stream.tokens} tokens came")
        runs.append(stream)
    steady = runs[1:]  # the first one warms up
    gaps = [gap for stream in steady for gap in stream.gaps_s]
    outcome.facts["streams"] = {
        "ttft_s": spread([stream.ttft_s for stream in steady]), "gap_s": spread(gaps),
        "tokens_per_s": [rate([stream]) for stream in steady],
    }  # fmt: skip
    outcome.show(
        f"first byte {1e3 * statistics.median(s.ttft_s for s in steady):.1f} ms, then "
        f"{1e3 * statistics.median(gaps):.2f} ms a chunk, "
        f"{statistics.median(rate([s]) for s in steady):.0f} tokens/s"
    )


def sampled(stage: Stage, seed: int) -> Facts:
    """Return how timed streams are sampled: by chance, as a random model would repeat itself."""
    return {"temperature": 1.0, "seed": seed, "allowed_token_ids": stage.letters()}


def rate(streams: list[Stream]) -> float:
    """Return the tokens a second of streams that ran at once, after the first of each."""
    began = min(stream.arrivals[0] for stream in streams)
    return sum(s.tokens - 1 for s in streams) / (max(s.arrivals[-1] for s in streams) - began)


def latency(stage: Stage, outcome: Outcome) -> None:
    """Direct against through the appliance, in turns, over one and the same engine.

    Clients ask one thing after the other, as agents do, so that requests come when they come: of
    several sent at the same moment the last ones would miss the engine's next step, and wait for
    one more, through whatever they come.
    """
    engine = stage.deep()
    outcome.facts.update(ready_s=engine.ready_s, says=sayings(engine.said()))
    sidecar = attach(stage, engine)
    try:
        ways = (Way.to(engine, DIRECT), Way.to(sidecar, THROUGH))
        for way in ways:
            ask_at_once(way, [_timed(stage, 9000 + n, 16) for n in range(4)])  # warm
        for at_once, rounds in ((4, stage.sizes.rounds), (1, stage.sizes.rounds // 2)):
            measured: list[Facts] = []
            for number in range(rounds):
                measured.append(_round(stage, ways, sidecar, at_once, number))
                facts = _summary(measured, at_once)
                outcome.facts[f"c{at_once}"] = facts | {"rounds": measured}  # kept if time ends
            _show(outcome, facts, at_once)
    finally:
        sidecar.end()
        stage.box.running.remove(sidecar)
    if not stage.box.on_cpu:
        _judge(outcome.facts["c4"])


def attach(stage: Stage, engine: Program) -> Program:
    """Start an appliance in front of the engine, as its users would have it."""
    chosen = {
        "profile": "demo", "engine": "attach", "engine_url": engine.base_url,
        "engine_key": engine.key, "max_num_seqs": 4,
    }  # fmt: skip
    sidecar = stage.box.start_appliance("attached", chosen)
    sidecar.wait_ready(120)
    return sidecar


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
        streams = ask_in_turn(way, clients)
        took, cpu = time.monotonic() - began, cpu_seconds(sidecar.process.pid) - before
        found[way.name] = {
            "ttft_s": [stream.ttft_s for stream in ask_in_turn(way, short)],
            "gap_s": [gap for stream in streams for gap in stream.gaps_s],
            "tokens_per_s": sum(stream.tokens for stream in streams) / took,
            "events": sum(stream.events for stream in streams),
            "seconds": took, "sidecar_cpu_s": cpu if way.name == THROUGH else None,
        }  # fmt: skip
    return found


def _summary(rounds: list[Facts], at_once: int) -> Facts:
    def all_of(way: str, name: str) -> list[float]:
        return [value for one in rounds for value in one[way][name]]

    facts: Facts = {"at_once": at_once}
    for name in ("ttft_s", "gap_s"):
        facts[name] = {way: spread(all_of(way, name)) for way in (DIRECT, THROUGH)}
        facts[f"added_{name}"] = {
            share: facts[name][THROUGH][share] - facts[name][DIRECT][share]
            for share in ("p50", "p90", "p99", "mean")
        }
        facts[f"added_{name}"]["p99_95%"] = likely_p99(all_of(DIRECT, name), all_of(THROUGH, name))
    ratios = [one[THROUGH]["tokens_per_s"] / one[DIRECT]["tokens_per_s"] for one in rounds]
    facts["tokens_per_s"] = {
        way: statistics.median(one[way]["tokens_per_s"] for one in rounds)
        for way in (DIRECT, THROUGH)
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
    for name, word in (("ttft_s", "first byte"), ("gap_s", "between chunks")):
        direct, through = facts[name][DIRECT], facts[name][THROUGH]
        low, high = facts[f"added_{name}"]["p99_95%"]
        outcome.show(
            f"c={at_once} {word}, ms: direct p50 {1e3 * direct['p50']:.2f} "
            f"p99 {1e3 * direct['p99']:.2f}; through {1e3 * through['p50']:.2f} "
            f"{1e3 * through['p99']:.2f}; added {1e3 * facts[f'added_{name}']['p50']:+.3f} "
            f"{1e3 * facts[f'added_{name}']['p99']:+.3f} (95 %: {1e3 * low:+.2f} to "
            f"{1e3 * high:+.2f}; n {direct['n']}, {through['n']})"
        )
    ratio, speed = facts["ratio"], facts["tokens_per_s"]
    outcome.show(
        f"c={at_once} tokens/s: direct {speed[DIRECT]:.0f}, through {speed[THROUGH]:.0f}; ratio "
        f"{ratio['median']:.4f} ({ratio['least']:.4f} to {ratio['most']:.4f}); sidecar "
        f"{facts['sidecar']['us_per_event']:.0f} us a chunk, "
        f"{100 * facts['sidecar']['share_of_a_core']:.2f} % of a core"
    )


def _judge(facts: Facts) -> None:
    for name, word in (("ttft_s", "to the first byte"), ("gap_s", "between chunks")):
        added = facts[f"added_{name}"]["p99"]
        require(added <= ADDED_S, f"{1e3 * added:.2f} ms were added {word} at p99")
    ratio = facts["ratio"]["median"]
    require(ratio >= 1 - SLOWER, f"{100 * (1 - ratio):.1f} % fewer tokens a second")


def abort(stage: Stage, outcome: Outcome) -> None:
    """Clients that leave during a long prefill free the engine, directly and through."""
    engine = stage.engine()
    sidecar = attach(stage, engine)
    try:
        whole_s = _whole_prefill(stage, engine)
        outcome.facts["prefill_s"] = whole_s
        outcome.show(f"a prefill of about {stage.sizes.long_tokens:,} tokens takes {whole_s:.2f} s")
        for number, program in enumerate((engine, sidecar, sidecar)):
            name = DIRECT if program is engine else THROUGH
            way = Way.to(program, name)
            body = question(stage.words(stage.sizes.long_tokens, 500 + number), 64)
            before = metric(engine, "vllm:prompt_tokens_total")
            left = leave_after(way, body, max(0.02, whole_s * 0.4))
            freed = _until_free(engine, left)
            done = metric(engine, "vllm:prompt_tokens_total") - before
            outcome.facts[f"{name}-{number}"] = {"freed_s": freed, "prompt_tokens": done}
            outcome.show(f"left {name}: nothing runs after {1e3 * freed:.0f} ms")
            require(freed <= FREE_S, f"{freed:.1f} s until the engine was free")
    finally:
        sidecar.end()
        stage.box.running.remove(sidecar)


def _whole_prefill(stage: Stage, engine: Program) -> float:
    way = Way.to(engine, DIRECT)
    body = question(stage.words(stage.sizes.long_tokens, 499), 2)
    return ask_at_once(way, [body])[0].ttft_s


def _until_free(engine: Program, left: float) -> float:
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    deadline = left + 10 * FREE_S
    while metric(engine, *names) and time.monotonic() < deadline:
        time.sleep(0.005)
    return time.monotonic() - left


STEPS: dict[str, Callable[[Stage, Outcome], None]] = {
    "bare": bare, "latency": latency, "abort": abort,
}  # fmt: skip
