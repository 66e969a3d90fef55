"""Memory of one spawn, from exec to exit: the load guard, the floors and the emergency guard."""

import asyncio
import contextlib
import time
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

UNGUARDED = "memory_unguarded"  # the emergency guard could not be armed
MEMORY_LOW = "memory_low"  # the name of a warning; what follows has reasons of its own
SHORT_HINT = "appliance incidents show tells who held memory; the next start is smaller"
LOAD_LOOK_S = 1.0
LOAD_REST_S = 5.0  # from one drop of the cache to the next: the shard that is read goes too
LOAD_LONG_REST_S = 60.0  # where there was next to nothing to drop
LOAD_WORTH_BYTES = 64 * 2**20
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
        evidence: Callable[[], Awaitable[None]],
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
        self._evidence = evidence
        self._is_serving = False
        self._loop = asyncio.get_running_loop()
        self._guard: EmergencyGuard | None = None
        if floors is not None:
            self._arm(child, floors)

    def _arm(self, child: Child, floors: Floors) -> None:
        limit, care = floors.emergency_bytes, self._care
        try:
            guard = EmergencyGuard(
                care.meminfo, limit, care.policy, child.kill_group, self._on_fired
            )
        except OSError as cause:
            log.error("memory.unguarded", spawn=self._number, why=f"{care.meminfo}: {cause}")
            return
        try:
            guard.start()
        except RuntimeError as cause:  # no thread to be had
            guard.stop()
            log.error("memory.unguarded", spawn=self._number, why=str(cause))
            return
        self._guard = guard

    @property
    def degraded(self) -> tuple[str, ...]:
        """What is wrong while it serves."""
        unguarded = self._floors is not None and self._guard is None
        return (
            *((MEMORY_LOW,) if self.level >= Level.WARN else ()),
            *((UNGUARDED,) if unguarded else ()),
        )

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
            freed = await self._drop_cache("memory.load_guard", free=format_size(free))
            await asyncio.sleep(LOAD_REST_S if freed >= LOAD_WORTH_BYTES else LOAD_LONG_REST_S)
        await self._drop_cache("memory.loaded")

    async def _drop_cache(self, event: str, **facts: str) -> int:
        if self._care.drop_cache is None:
            return 0
        freed = await self._care.drop_cache()
        self._count("drop_cache")
        log.info(event, spawn=self._number, freed=format_size(freed), **facts)
        return freed

    # ---- while it serves

    async def watch_floors(self) -> None:
        """Follow the debounced floors until the engine must end, or ``leave``, or a cancel."""
        self._is_serving = True
        if self._guard:
            self._guard.serving(True)
        policy, watch = self._care.policy, Watch()
        shut_at: float | None = None
        while self._floors is not None and self._is_serving:
            available = self._memory().get("MemAvailable")
            if available is not None:
                watch = look(watch, available, self._floors, policy)
                self._enter(watch.level, available)
            now = time.monotonic()
            shut_at = (shut_at or now) if watch.level >= Level.STOP else None
            # an engine that has grown does not give back: nobody would be let in for ever
            is_stuck = shut_at is not None and now - shut_at >= policy.stuck_s
            if watch.level is Level.KILL or is_stuck:
                floor = self._floors.stop_bytes if is_stuck else self._floors.kill_bytes
                await self._end(_short(available or 0, floor, "the engine was ended"))
                return
            await asyncio.sleep(policy.every_s)

    def leave(self) -> None:
        """Be told that the engine is on its way down: only the emergency limit holds from here."""
        self._is_serving = False
        if self._guard:
            self._guard.serving(False)

    def _enter(self, level: Level, available: int) -> None:
        before, self.level = self.level, level
        if level is before or self._floors is None:
            return
        action = _ACTIONS[level] if level > before else "resume"
        self._count(action)
        note = log.warning if level > before else log.info
        note("memory.floor", spawn=self._number, action=action, available=format_size(available))
        self._care.metrics.degraded.labels(MEMORY_LOW).set(level >= Level.WARN)
        if level < Level.STOP:
            self.reason = None
        elif self.reason is None:
            self.reason = _short(available, self._floors.stop_bytes, "nobody more is let in")
        self._tell()

    async def _end(self, reason: Reason) -> None:
        with contextlib.suppress(OSError):
            self.processes = largest(LARGEST)
        with contextlib.suppress(OSError):  # evidence must not stand between it and its end
            await self._evidence()
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
