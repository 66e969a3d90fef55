"""The issue's table: which figure is held against what, over the repeats of one run. Pure.

``Rounds`` is what was measured: for each measurement and each proxy one set of figures a round.
A ratio is taken within a round, where both ran within seconds of one another.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.gateway.plan import (
    DIRECT,
    GUARDED,
    KINDS,
    LITELLM,
    NGINX,
    OURS,
    ROUTER,
    WINDOWS,
)

Figures = Mapping[str, float]
Rounds = Mapping[str, Mapping[str, Sequence[Figures | None]]]


BODIES = (
    ("1m", "1 MB body"),
    ("agent1m", "1 MB body, an agent's, new"),
    ("again1m", "1 MB body, an agent's, a turn later"),
)
GUARDS = ((OURS, ""), (GUARDED, ", path guard on observe"))


@dataclass(frozen=True)
class Spread:
    """The least, the middle and the greatest of the repeats."""

    least: float
    middle: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """Return the spread, None of nothing."""
        if not values:
            return None
        return cls(min(values), statistics.median(values), max(values))


@dataclass(frozen=True)
class Goal:
    """One promise. ``limit`` is the greatest value that keeps it.

    ``how`` makes one value out of a round's figure of ours and of the one it is held against;
    ``peer`` names that one's proxy, ``peer_key`` its measurement where it is another one.
    With ``always`` each repeat must keep the promise; else the middle one must.
    """

    row: int
    what: str
    key: str
    figure: str
    limit: float
    how: str = "value"  # ratio, added or value
    peer: str = ""
    unit: str = "us"
    ours: str = OURS
    peer_key: str = ""
    always: bool = False


@dataclass(frozen=True)
class Line:
    """One line of the table; None where nothing was measured."""

    goal: Goal
    ours: Spread | None
    peer: Spread | None
    held: Spread | None

    @property
    def met(self) -> bool | None:
        """Whether the repeats keep the promise."""
        if self.held is None:
            return None
        told = self.held.greatest if self.goal.always else self.held.middle
        return told <= self.goal.limit


def goals() -> list[Goal]:
    """Return the issue's table."""
    return [*_chunk_goals(), *_request_goals(), *_latency_goals(), *_own_goals()]


def _chunk_goals() -> list[Goal]:
    return [
        Goal(
            1,
            f"CPU of a chunk, {streams} streams, {kind}",
            f"chunk-{streams}-{kind}",
            "cpu_us",
            limit,
            "ratio",
            peer,
        )
        for streams in (4, 32)
        for kind in KINDS
        for peer, limit in ((NGINX, 1.5), (ROUTER, 1.2), (LITELLM, 1 / 25))
    ]


def _request_goals() -> list[Goal]:
    found = [
        Goal(2, "CPU of a 2 KB request", "request-2k", "cpu_us", limit, "ratio", peer)
        for peer, limit in ((NGINX, 3.0), (LITELLM, 1 / 50))
    ]
    for body, name in BODIES:
        for ours, guard in GUARDS:
            key = f"body-{body}"
            what = f"{name}{guard}"
            found += [
                Goal(3, f"CPU, {what}", key, "cpu_us", 1.3, "ratio", NGINX, ours=ours),
                Goal(3, f"TTFT p50, {what}", key, "ttft_p50_us", 300, "added", DIRECT, ours=ours),
                Goal(3, f"TTFT p99, {what}", key, "ttft_p99_us", 500, "added", DIRECT, ours=ours),
            ]
    return found


def _latency_goals() -> list[Goal]:
    found = []
    for kind in KINDS:
        what = f"a chunk's delay, 4 streams at 40/s, {kind}"
        key = f"paced-{kind}"
        found += [
            Goal(4, f"p50 of {what}", key, "delay_p50_us", 150, "added", DIRECT),
            Goal(4, f"p99 of {what}", key, "delay_p99_us", 300, "added", DIRECT),
        ]
    windows = ("in mid-stream", "after the head", "before the head", "before the head, 300 KB body")
    for (window, body), name in zip(WINDOWS, windows, strict=True):
        key = f"abort-{window}-{body}"
        found += [
            Goal(5, f"abort seen, p99, {name}", key, "left_p99_us", 5000),
            Goal(5, f"aborts missed, {name}", key, "missed", 0, unit="", always=True),
        ]
    return found


def _own_goals() -> list[Goal]:
    sizes = (*((body, name, 1000) for body, name in BODIES), ("5m", "5 MB body", 3500))
    stalls = [
        Goal(6, f"longest stall, {name}{guard}", f"stall-{body}", "stall_p50_us", limit, ours=ours)
        for body, name, limit in sizes
        for ours, guard in GUARDS
    ]
    return [
        *stalls,
        Goal(
            7,
            "CPU of a request, 256 idle connections against 1",
            "pool-256",
            "cpu_us",
            1.1,
            "ratio",
            OURS,
            peer_key="pool-1",
        ),
        Goal(8, "RSS after 1 MB bodies and 256 streams", "after-crowd", "rss_mb", 80, unit="MB"),
        Goal(8, "the same", "after-crowd", "rss_mb", 1 / 5, "ratio", LITELLM, unit="MB"),
    ]


_HOW: Mapping[str, Callable[[float, float], float]] = {
    "ratio": lambda ours, peer: ours / peer,
    "added": lambda ours, peer: ours - peer,
    "value": lambda ours, _peer: ours,
}


def hold(goal: Goal, rounds: Rounds) -> Line:
    """Return how one promise stands."""
    ours = _values(rounds, goal.key, goal.ours, goal.figure)
    peer = _values(rounds, goal.peer_key or goal.key, goal.peer, goal.figure)
    how = _HOW[goal.how]
    if not goal.peer:
        peer = [0.0] * len(ours) if ours else []
    pairs = [(a, b) for a, b in zip(ours, peer, strict=False) if a is not None and b is not None]
    return Line(
        goal,
        Spread.of([a for a in ours if a is not None]),
        Spread.of([b for b in peer if b is not None]) if goal.peer else None,
        Spread.of([how(a, b) for a, b in pairs]),
    )


def _values(rounds: Rounds, key: str, proxy: str, figure: str) -> list[float | None]:
    taken = rounds.get(key, {}).get(proxy, ())
    return [figures.get(figure) if figures else None for figures in taken]
