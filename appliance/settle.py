"""The settle gate: after an engine's end its memory comes back late, and a start must wait for it.

A start into memory that is still being freed dies for want of it, and on a box with unified
memory that is how restart loops begin (about 60 s were seen on a DGX Spark).
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SAMPLE_S = 1.0
STABLE_SAMPLES = 3
SLACK = 0.02  # of all memory: what other programs may have taken meanwhile


@dataclass(frozen=True)
class Settled:
    """How the wait ended: after how many seconds, and whether memory is back and stable."""

    seconds: float
    is_back: bool


def is_settled(samples: Sequence[int], baseline: int | None, total: int) -> bool:
    """Tell whether memory (available bytes, one sample a second) is back and stands still.

    ``baseline`` is what was available before the engine took its share, None if not known.
    """
    last = samples[-STABLE_SAMPLES:]
    if len(last) < STABLE_SAMPLES:
        return False
    slack = int(total * SLACK)
    is_back = baseline is None or last[-1] >= baseline - slack
    return is_back and max(last) - min(last) <= slack


async def settle(
    baseline: int | None,
    read: Callable[[], dict[str, int]],
    timeout_s: float,
    sample_s: float = SAMPLE_S,
) -> Settled:
    """Wait until memory is back and stable, for ``timeout_s`` at most."""
    began = time.monotonic()
    samples: list[int] = []
    while True:
        memory = read()
        available, total = memory.get("MemAvailable"), memory.get("MemTotal")
        if available is None or total is None:
            return Settled(time.monotonic() - began, True)  # nothing to go by
        samples.append(available)
        waited = time.monotonic() - began
        if is_settled(samples, baseline, total):
            return Settled(waited, True)
        if waited + sample_s > timeout_s:
            return Settled(waited, False)
        await asyncio.sleep(sample_s)
