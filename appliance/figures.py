"""Rates, shares and quantiles from counters that are read once a second. Pure.

A counter tells what happened between two readings, and a gap in the readings tells nothing: each
figure is None where there are no two readings within its window.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

RATE_S = 5.0  # a step of the engine may take a second: shorter, and the rate would flicker
PROMPT_S = 10.0  # the engine counts a prompt when all of it is read
TTFT_S = 60.0
CACHE_S = 180.0


@dataclass(frozen=True)
class Reading:
    """All counters at one moment, in monotonic seconds; None is what the engine did not tell.

    ``spawn`` is the engine's number: another one counts from 0. ``ttft`` holds how many answers
    began within each bucket of time.
    """

    at: float
    spawn: int
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    cache_queries: float | None = None
    cache_hits: float | None = None
    ttft: tuple[int, ...] = ()


def per_s(readings: Sequence[Reading], name: str, window_s: float) -> float | None:
    """Return by how much a counter grew each second, within the window up to the last reading."""
    ends = _ends(readings, name, window_s)
    if ends is None:
        return None
    first, last = ends
    grown: float = getattr(last, name) - getattr(first, name)
    return round(grown / (last.at - first.at), 1)


def hit_share(readings: Sequence[Reading]) -> float | None:
    """Return which share of the prompts' tokens was in the prefix cache, 0 to 1."""
    ends = _ends(readings, "cache_queries", CACHE_S)
    if ends is None or ends[0].cache_hits is None or ends[1].cache_hits is None:
        return None
    first, last = ends
    asked = (last.cache_queries or 0) - (first.cache_queries or 0)
    found = ends[1].cache_hits - ends[0].cache_hits
    return round(min(1.0, found / asked), 4) if asked > 0 else None


def ttft_s(
    readings: Sequence[Reading], bounds: Sequence[float], shares: Sequence[float] = (0.5, 0.9)
) -> tuple[float, ...] | None:
    """Return the quantiles of the seconds to the first byte, of the answers in the last minute."""
    if not readings:
        return None
    last = readings[-1]
    first = next(reading for reading in readings if reading.at >= last.at - TTFT_S)
    counts = [after - before for before, after in zip(first.ttft, last.ttft, strict=True)]
    return tuple(quantile(counts, bounds, share) for share in shares) if sum(counts) else None


def quantile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float:
    """Return below what this share of the values is, evenly spread within each bucket.

    ``counts`` has one bucket more than ``bounds``: what is beyond the last bound is told as that.
    """
    wanted = share * sum(counts)
    below = 0
    for index, upto in enumerate(accumulate(counts)):
        if upto >= wanted and counts[index]:
            if index == len(bounds):
                return bounds[-1]
            lower = bounds[index - 1] if index else 0.0
            return round(lower + (bounds[index] - lower) * (wanted - below) / counts[index], 4)
        below = upto
    return bounds[-1]


def _ends(
    readings: Sequence[Reading], name: str, window_s: float
) -> tuple[Reading, Reading] | None:
    """Return the oldest and the newest reading of this counter in the window, of one engine.

    None where there are no two, or where it fell: then it counts anew.
    """
    if not readings or getattr(readings[-1], name) is None:
        return None
    last = readings[-1]
    for first in readings:
        if first.at < last.at - window_s or first.spawn != last.spawn:
            continue
        before = getattr(first, name)
        if before is not None:
            return (first, last) if first.at < last.at and before <= getattr(last, name) else None
    return None
