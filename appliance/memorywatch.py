"""Memory of one spawn, from exec to exit: the load guard, the floors and the emergency guard."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from appliance.child import Child
from appliance.events import Event, RanOut, RanShort
from appliance.floors import Floors, GuardPolicy, Level, Watch, look
from appliance.guards import Emergency, EmergencyGuard
from appliance.host import MEMINFO, memory_snapshot
from appliance.metrics import Metrics
from appliance.restart import Grade, Reason
from appliance.sizes import format_size
from appliance.tree import largest

log = structlog.get_logger()

MEMORY_LOW = "memory_low"  # the name of a warning; what follows has reasons of its own
SHORT_HINT = "appliance incidents show tells who held memory; the next start is smaller"
LOAD_LOOK_S = 1.0
LOAD_REST_S = 5.0  # from one drop of the cache to the next: each reads the folder through
LARGEST = 10


@dataclass(frozen=True)
class MemoryCare:
    """How an engine's memory is guarded, the same for each spawn.

    ``drop_cache`` drops the page cache of the shards and returns the bytes that this freed; None
    where nobody can. ``load_free_bytes`` is the MemFree under which that is done while loading.
    """

    metrics: Metrics
    is_armed: bool = True
    policy: GuardPolicy = field(default_factory=GuardPolicy)
    meminfo: Path = MEMINFO
    drop_cache: Callable[[], Awaitable[int]] | None = None
    load_free_bytes: int | None = None


class MemoryWatch:
    """Guards memory while one child lives. ``tell`` is called when ``level`` has changed.

    ``floors`` None guards nothing: the operator has switched that off.
    """

    def __init__(
        self,
        number: int,
        child: Child,
        floors: Floors | None,
        care: MemoryCare,
        send: Callable[[Event], None],
        tell: Callable[[], None],
    ) -> None:
        self.level = Level.FINE
        self.reason: Reason | None = None  # why nobody is let in now
        self.fatal: Reason | None = None  # why the guard killed it
        self.processes: dict[str, int] = {}  # the machine's largest, when memory was short
        self._number = number
        self._floors = floors
        self._care = care
        self._send = send
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._guard: EmergencyGuard | None = None
        if floors is not None:
            limit, policy = floors.emergency_bytes, care.policy
            with contextlib.suppress(OSError):  # no /proc/meminfo: no guard can be
                self._guard = EmergencyGuard(
                    care.meminfo, limit, policy, child.kill_group, self._on_fired
                )
                self._guard.start()

    @property
    def degraded(self) -> tuple[str, ...]:
        """What is wrong while it serves."""
        return (MEMORY_LOW,) if self.level >= Level.WARN else ()

    def stop(self) -> None:
        """Disarm the emergency guard: the child is gone."""
        if self._guard:
            self._guard.stop()

    # ---- while it loads

    async def watch_load(self, is_loading: Callable[[], bool]) -> None:
        """Drop the shards' page cache whenever free memory runs low; once more when loaded.

        The driver takes free pages alone: a full page cache has ended loads at 73 to 97 %. That
        changes MemFree and not MemAvailable, which the engine must see unchanged.
        """
        if self._care.drop_cache is None:
            return
        floor = self._care.load_free_bytes or 0
        while is_loading():
            free = self._memory().get("MemFree")
            if free is None or free >= floor:
                await asyncio.sleep(LOAD_LOOK_S)
                continue
            await self._drop_cache("memory.load_guard", free=format_size(free))
            await asyncio.sleep(LOAD_REST_S)
        await self._drop_cache("memory.loaded")

    async def _drop_cache(self, event: str, **facts: str) -> None:
        if self._care.drop_cache is None:
            return
        freed = await self._care.drop_cache()
        self._count("drop_cache")
        log.info(event, spawn=self._number, freed=format_size(freed), **facts)

    # ---- while it serves

    async def watch_floors(self) -> None:
        """Follow the debounced floors until the last of them, or until cancelled."""
        if self._guard:
            self._guard.serving()
        if self._floors is None:
            return
        policy, watch = self._care.policy, Watch()
        while watch.level is not Level.KILL:
            available = self._memory().get("MemAvailable")
            if available is not None:
                watch = look(watch, available, self._floors, policy)
                self._enter(watch.level, available)
            await asyncio.sleep(policy.every_s)

    def _enter(self, level: Level, available: int) -> None:
        before, self.level = self.level, level
        if level is before or self._floors is None:
            return
        action = _ACTIONS[level] if level > before else "resume"
        self._count(action)
        note = log.warning if level > before else log.info
        note("memory.floor", spawn=self._number, action=action, available=format_size(available))
        if level < Level.STOP:
            self.reason = None
        elif self.reason is None:
            self.reason = _short(available, self._floors.stop_bytes, "nobody more is let in")
        self._tell()
        if level is Level.KILL:
            with contextlib.suppress(OSError):
                self.processes = largest(LARGEST)
            reason = _short(available, self._floors.kill_bytes, "the engine was ended")
            self._send(RanShort(self._number, reason))

    # ---- the emergency

    def _on_fired(self, emergency: Emergency) -> None:
        """Tell the loop, from the guard's thread: the kill is done by now."""
        limit, available = emergency.limit_bytes, emergency.available_bytes
        what = f"MemAvailable was {format_size(available)}, "
        what += (
            f"falling below {format_size(limit)} within seconds"
            if emergency.is_projected
            else f"below the emergency limit of {format_size(limit)}"
        )
        what += ": the engine was killed"
        self.fatal = reason = Reason("memory_emergency", what, SHORT_HINT, Grade.MEMORY)
        with contextlib.suppress(RuntimeError):  # the loop has ended: so does the appliance
            self._loop.call_soon_threadsafe(self._tell_fatal, reason)

    def _tell_fatal(self, reason: Reason) -> None:
        log.error("memory.emergency", spawn=self._number, what=reason.what)
        self._count("kill")
        with contextlib.suppress(OSError):
            self.processes = largest(LARGEST)
        self._send(RanOut(self._number, reason))

    def _memory(self) -> dict[str, int]:
        return memory_snapshot(self._care.meminfo)

    def _count(self, action: str) -> None:
        self._care.metrics.guard_actions.labels(action).inc()


def _short(available_bytes: int, floor_bytes: int, outcome: str) -> Reason:
    what = (
        f"MemAvailable stays below {format_size(floor_bytes)} "
        f"({format_size(available_bytes)}): {outcome}"
    )
    return Reason("memory_floor", what, SHORT_HINT, Grade.MEMORY)


_ACTIONS: Sequence[str] = ("resume", "warn", "stop_admission", "terminate")
