"""Steps over the bare engine, and the appliance attached to it: it streams, and hang-ups."""

import statistics
import time
from collections.abc import Callable

from tests.gpu.box import Program
from tests.gpu.record import Facts, Outcome, require, spread
from tests.gpu.stage import Stage, metric
from tests.gpu.streams import Stream, Way, ask_at_once, leave_after, question

DIRECT, THROUGH = "direct", "through"
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


def attach(stage: Stage, engine: Program) -> Program:
    """Start an appliance in front of the engine, as its users would have it."""
    chosen = {
        "profile": "demo", "engine": "attach", "engine_url": engine.base_url,
        "engine_key": engine.key, "max_num_seqs": 4,
    }  # fmt: skip
    sidecar = stage.box.start_appliance("attached", chosen)
    sidecar.wait_ready(120)
    return sidecar


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
    "bare": bare, "abort": abort,
}  # fmt: skip
