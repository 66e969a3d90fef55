"""How low MemAvailable may fall, and what follows. Pure.

Two paths. The debounced floors are for a slow growth: warn, then let nobody more in, then end the
engine in order. The emergency is for what has been seen on unified memory, 20 GiB gone within
1.5 s: there is no time to look twice.
"""

from dataclasses import dataclass
from enum import IntEnum


@dataclass(frozen=True)
class Floors:
    """Limits of MemAvailable in bytes, from the highest down; they belong to a memory plan."""

    warn_bytes: int
    stop_bytes: int  # nobody more is let in
    kill_bytes: int  # the engine is ended in order
    emergency_bytes: int  # the engine is killed at once


class Level(IntEnum):
    """What the debounced floors ask for; each includes those before it."""

    FINE = 0
    WARN = 1
    STOP = 2
    KILL = 3


@dataclass(frozen=True)
class GuardPolicy:
    """Lengths in seconds. One sample is taken each ``every_s``.

    The kill floor counts once ``samples`` in a row are below it, the others, which cost little and
    are taken back, after ``quick_samples``. A floor is left once ``samples`` in a row are above it
    by ``slack`` of itself.
    """

    samples: int = 5
    quick_samples: int = 2
    every_s: float = 1.0
    slack: float = 0.05
    emergency_every_s: float = 0.25
    window_s: float = 1.0  # over which a fall is measured
    stuck_s: float = 300.0  # nobody let in for so long: it does not pass by itself
    horizon_s: float = 3.0


@dataclass(frozen=True)
class Watch:
    """What the debounced floors have seen."""

    level: Level = Level.FINE
    below: tuple[Level, ...] = ()  # the level that each of the last samples is in
    nearby: tuple[Level, ...] = ()  # the same with the floors raised by the slack


def look(watch: Watch, available_bytes: int, floors: Floors, policy: GuardPolicy) -> Watch:
    """Return the watch after one more sample."""
    here = _level(available_bytes, floors)
    nearly = _level(available_bytes / (1 + policy.slack), floors)
    below = (*watch.below, here)[-policy.samples :]
    nearby = (*watch.nearby, nearly)[-policy.samples :]
    level = watch.level
    if len(below) >= policy.quick_samples:
        level = max(level, min(Level.STOP, *below[-policy.quick_samples :]))
    if len(below) == policy.samples:
        level = max(level, min(below))
        level = min(level, max(nearby))
    return Watch(level, below, nearby)


def _level(available: float, floors: Floors) -> Level:
    if available < floors.kill_bytes:
        return Level.KILL
    if available < floors.stop_bytes:
        return Level.STOP
    return Level.WARN if available < floors.warn_bytes else Level.FINE


def will_fall_below(
    before_bytes: int, now_bytes: int, elapsed_s: float, limit_bytes: int, horizon_s: float
) -> bool:
    """Tell whether memory that goes on falling as in the last ``elapsed_s`` passes the limit.

    ``before_bytes`` is what was available ``elapsed_s`` ago.
    """
    if elapsed_s <= 0 or now_bytes >= before_bytes:
        return False
    return now_bytes - (before_bytes - now_bytes) / elapsed_s * horizon_s < limit_bytes
