"""What is run for each row of the table, and what is read from it. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.gateway.load import Run

DIRECT, OURS, NGINX, ROUTER, LITELLM = "direct", "appliance", "nginx", "vllm-router", "litellm"
FLOOR = "floor"  # the least that a relay of ours can cost: floor.py
GUARDED = "appliance+guard"
PEERS = (NGINX, ROUTER, LITELLM)
ALL = (DIRECT, NGINX, ROUTER, LITELLM, FLOOR, OURS)
SLOW = 20  # LiteLLM costs so much, and who misses an abort waits so long, that less must do
SLOW_WARM = 6
TRIES = 3
KINDS = ("content", "reasoning")
WINDOWS = (("stream", "2k"), ("head", "2k"), ("silent", "2k"), ("silent", "300k"))


Options = dict[str, str | int]


@dataclass(frozen=True)
class Spec:
    """One measurement: a run, who takes part, and which row of the table it is for.

    ``work`` is the option that a slow proxy gets less of, ``least`` how little. It is run
    ``tries`` times a round, in turn with the others, and the try with the least CPU counts:
    what else the machine does can only add to it.
    """

    row: int
    key: str
    run: Run
    proxies: tuple[str, ...] = ALL
    work: str = ""
    least: int = 1
    tries: int = 1

    def line(self, proxy: str, **more: str | int) -> str:
        """Return the command for one proxy."""
        slow = proxy == LITELLM or (proxy == ROUTER and self.run.mode == "aborts")
        if self.work and slow:
            given = int(self.run.options[self.work])
            more[self.work] = max(given // SLOW, self.least)
            more["warm"] = min(int(self.run.options.get("warm", SLOW_WARM)), SLOW_WARM)
        return self.run.line(**more)


def specs(*, quick: bool) -> list[Spec]:
    """Return all measurements of one round, in their order."""
    return [
        *_chunks(quick=quick),
        *_requests(quick=quick),
        *_paced(quick=quick),
        *_aborts(quick=quick),
        *_stalls(quick=quick),
        *_pools(),
        *_memory(),
    ]


def _chunks(*, quick: bool) -> list[Spec]:
    chunks = 8000 if quick else 16000
    return [
        Spec(
            1,
            f"chunk-{streams}-{kind}",
            Run("lockstep", {"streams": streams, "chunks": chunks, "kind": kind, "body": "2k"}),
            (NGINX, ROUTER, LITELLM, FLOOR, OURS),
            "chunks",
            600,
            TRIES,
        )
        for streams in (4, 32)
        for kind in KINDS
    ]


def _requests(*, quick: bool) -> list[Spec]:
    count = 100 if quick else 150
    small = Run("requests", {"streams": 4, "count": 600, "body": "2k", "warm": 20})
    large: Options = {"streams": 1, "count": count, "warm": 8}
    return [
        Spec(2, "request-2k", small, (NGINX, ROUTER, LITELLM, FLOOR, OURS), "count", 60, TRIES),
        *(
            Spec(
                3, f"body-{body}", Run("requests", {**large, "body": body}), work="count", least=12
            )
            for body in ("1m", "agent1m", "again1m")
        ),
    ]


def _paced(*, quick: bool) -> list[Spec]:
    options: Options = {"streams": 4, "rate": 40, "chunks": 80 if quick else 120, "body": "2k"}
    return [
        Spec(4, f"paced-{kind}", Run("paced", {**options, "kind": kind}), ALL) for kind in KINDS
    ]


def _aborts(*, quick: bool) -> list[Spec]:
    options: Options = {"streams": 4, "count": 52 if quick else 104, "limit_ms": 1000}
    return [
        Spec(
            5,
            f"abort-{window}-{body}",
            Run("aborts", {**options, "window": window, "body": body}),
            (NGINX, ROUTER, LITELLM, OURS),
            "count",
            4,
        )
        for window, body in WINDOWS
    ]


def _stalls(*, quick: bool) -> list[Spec]:
    count = 15 if quick else 25
    return [
        Spec(
            6,
            f"stall-{body}",
            Run("stall", {"body": body, "probe": "2k", "count": count}),
            work="count",
            least=3,
        )
        for body in ("1m", "5m", "agent1m", "again1m")
    ]


def _pools() -> list[Spec]:
    return [
        Spec(
            7,
            f"pool-{idle}",
            Run("pool", {"idle": idle, "count": 200, "body": "2k"}),
            (NGINX, OURS),
            tries=TRIES,
        )
        for idle in (1, 256)
    ]


def _memory() -> list[Spec]:
    bodies = Run("requests", {"streams": 4, "count": 60, "body": "1m", "warm": 4})
    crowd: Options = {"streams": 256, "chunks": 5120, "kind": "content", "body": "2k", "warm": 2}
    others = (NGINX, ROUTER, LITELLM, OURS)
    return [
        Spec(8, "after-bodies", bodies, others, "count", 12),
        Spec(8, "after-crowd", Run("lockstep", crowd), others, "chunks", 256),
    ]


# ---- what is read from a run


def best(tries: Sequence[dict[str, float] | None]) -> dict[str, float] | None:
    """Return the try with the least CPU, None where all failed."""
    good = [taken for taken in tries if taken]
    return min(good, key=lambda taken: taken.get("cpu_us", 0.0), default=None)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that ``share`` of all are not above. ``values`` is not empty."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def figures(told: Mapping[str, Any]) -> dict[str, float]:
    """Return what one run says: CPU for each unit and latencies in microseconds, and counts."""
    found = {
        name: float(told[name])
        for name in ("missed", "aborts", "open", "tokenized")
        if name in told
    }
    units = told.get("chunks") or told.get("requests")
    if units:
        found["cpu_us"] = told["cpu_ns"] / units / 1e3
    for name in ("delay", "ttft", "left", "stall", "still"):
        samples = told.get(name)
        if samples:
            found[f"{name}_p50_us"] = percentile(samples, 0.5) / 1e3
            found[f"{name}_p99_us"] = percentile(samples, 0.99) / 1e3
            found[f"{name}_max_us"] = max(samples) / 1e3
    return found
