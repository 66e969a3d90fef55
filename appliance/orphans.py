"""The engine of an earlier life of the appliance: found by what was written down, and ended.

There is no adoption: an engine whose output nobody reads and whose end nobody sees is of no use,
and it holds the memory that the next one needs.
"""

import asyncio
import signal
from dataclasses import dataclass

from appliance import segments, tree

_LOOK_EVERY_S = 0.05


@dataclass(frozen=True)
class EngineRecord:
    """What names a spawned engine for good, to be kept in the state folder.

    ``pid`` is its leader, and its session; 0 when the appliance ended before it knew.
    ``start_ticks`` is the leader's start in clock ticks since boot. ``init_ticks`` is the same of
    PID 1: the boot id outlives the restart of a container, which uses all its pids again.
    """

    pid: int
    start_ticks: int
    boot_id: str
    token: str
    init_ticks: int = 0


def record_of(child_pid: int, token: str) -> EngineRecord:
    """Return the record of an engine that we start or started; ``child_pid`` 0: not known yet."""
    started = tree.start_ticks(child_pid) or 0
    return EngineRecord(child_pid, started, tree.boot_id(), token, tree.start_ticks(1) or 0)


def find_orphans(record: EngineRecord) -> set[int]:
    """Return the living processes of a recorded engine: empty after a reboot.

    While the leader lives it must be the recorded one; another process that has its number is a
    stranger, and then the token alone counts. When the leader is gone, its session is ours.
    """
    return set(_find(record))


async def end_orphans(record: EngineRecord, timeout_s: float) -> bool:
    """Kill what is left of a recorded engine; True once nothing is, False if some survive.

    The shared memory that they leave is removed with them.

    Their memory may come back later than they go: that is for the caller to await. Raises OSError
    when /proc cannot be read.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    # Until two looks in a row see nobody: they may fork while /proc is being read.
    held: set[int] = set()
    while found := _find(record) or _find(record):
        held |= segments.mapped(found)
        tree.signal_all(found.values(), signal.SIGKILL)
        if loop.time() > deadline:
            return not _find(record)
        await asyncio.sleep(_LOOK_EVERY_S)
    segments.remove(held)
    return True


def _find(record: EngineRecord) -> dict[int, tree.Process]:
    if record.boot_id != tree.boot_id():
        return {}
    # a container's processes end with its PID 1
    if record.init_ticks and record.init_ticks != tree.start_ticks(1):
        return {}
    leader = tree.start_ticks(record.pid)
    is_stranger = leader is not None and leader != record.start_ticks
    return tree.find(0 if is_stranger else record.pid, record.token)
