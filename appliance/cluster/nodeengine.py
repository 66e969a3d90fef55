"""The worker's part of an engine: one child at most, made of its own settings and a head's order.

What an order may say is the spawn, its token, and how much KV cache the head has planned. The
command is this box's own. The child has no HTTP side: that it runs is all that is seen of it
here, and the head judges by what the engine generates.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from appliance.child import Child, spawn
from appliance.cluster.nodelook import look_at_node
from appliance.cluster.peer import Alive, Exited, Idle, NodeFacts, NodeState, SpawnOrder
from appliance.diagnosis import diagnose_exit
from appliance.errors import ApplianceError
from appliance.events import Event, RanOut, RanShort
from appliance.facts import HostFacts, ModelFacts
from appliance.host import memory_snapshot
from appliance.launch import LaunchPlan
from appliance.listeners import Listeners
from appliance.logs import EngineLog
from appliance.memory import Learned, MemoryPlan
from appliance.memorywatch import MemoryCare, MemoryWatch
from appliance.preparation import Preparation
from appliance.restart import Reason
from appliance.settings import Settings
from appliance.settle import settle
from appliance.shard import Bound, bounded, plan_part
from appliance.supervisor import Order
from appliance.tasks import Tasks
from appliance.vitals import oom_kills

log = structlog.get_logger()

DIAGNOSED_LINES = 1000


def mark_of(token: str) -> str:
    """Return what marks the processes of the worker's part: not what marks those of the head's.

    Where both boxes are one machine, neither may sweep the other's.
    """
    return f"{token}-worker"


@dataclass(frozen=True)
class Means:
    """What the worker's part is made with. ``look`` returns what is seen of this box."""

    preparation: Preparation
    memory: MemoryCare
    settle_s: float
    look: Callable[[Settings], NodeFacts] = look_at_node


class EnginePart:
    """One child, or none. Whoever gives the orders sees to it that they come one at a time."""

    def __init__(self, means: Means) -> None:
        self.log = EngineLog()
        self._means = means
        self._listeners = Listeners[NodeState]()
        self._running: _Running | None = None
        self._baseline: int | None = None
        self._exited: Exited | None = None

    @property
    def state(self) -> NodeState:
        """What the child does now."""
        now = self._running
        if now is not None:
            return Alive(now.order.spawn, now.child.pid, time.monotonic() - now.began)
        return self._exited or Idle()

    def listen(self, told: Callable[[NodeState], None]) -> Callable[[], None]:
        """Call ``told`` at each change of the state; return how to stop that."""
        return self._listeners.add(told)

    async def facts(self) -> NodeFacts:
        """Return what is seen of this box."""
        means = self._means
        return await asyncio.to_thread(means.look, means.preparation.settings)

    async def spawn(self, order: SpawnOrder) -> None:
        """Start the child; returns once it is there. Raises ApplianceError, DoesNotFit too."""
        await self._settle()
        preparation = replace(self._means.preparation, fit=_fit(order))
        key = secrets.token_urlsafe(32)  # of a door that a headless part does not open
        plan = await preparation.prepare(Order(key, mark_of(order.token), rung=0))
        self._baseline = memory_snapshot().get("MemAvailable")
        self.log.gate.strict = False
        self.log.gate.secrets = (key,)
        self.log.gate.known_paths = plan.known_paths
        child = spawn(plan.argv, plan.env, self._line)
        self._running = _Running(order, plan, child, self)
        log.info("node.spawned", spawn=order.spawn, pid=child.pid)
        self._listeners.tell(self.state)

    async def stop(self, *, grace_s: float) -> None:
        """End the child, by force after ``grace_s``; returns once its whole tree is gone."""
        if self._running is not None:
            await self._running.end(grace_s)

    def _line(self, text: str) -> None:
        self.log.append(text)

    async def _settle(self) -> None:
        if self._baseline is not None:
            await settle(self._baseline, memory_snapshot, self._means.settle_s)

    def _over(self, exited: Exited) -> None:
        self._running, self._exited = None, exited
        log.info("node.exited", spawn=exited.spawn, code=exited.code, reason=exited.diagnosis.code)
        self._listeners.tell(exited)


class _Running:
    """One child from exec to the last process gone, and who watches it."""

    def __init__(self, order: SpawnOrder, plan: LaunchPlan, child: Child, part: EnginePart) -> None:
        self.order = order
        self.child = child
        self.began = time.monotonic()
        self._part = part
        self._first_line = part.log.count
        self._oom_kills = oom_kills()
        self._short: Reason | None = None
        self._tasks = Tasks()
        self._gone = asyncio.Event()
        care = part._means.memory
        floors = plan.memory.floors if plan.memory and care.is_armed else None
        self._memory = MemoryWatch(
            order.spawn, child, floors, care, self._on_memory, lambda: None, _no_evidence
        )
        for watch in (
            self._watch_exit(),
            self._memory.watch_load(lambda: not self._gone.is_set()),
            self._memory.watch_floors(),
        ):
            self._tasks.begin(watch)

    async def end(self, grace_s: float) -> None:
        """Ask it to end, and kill what is left after ``grace_s``."""
        self._memory.leave()
        self.child.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._gone.wait()
        if not self._gone.is_set():
            self.child.kill_group()
            await self._gone.wait()

    def _on_memory(self, event: Event) -> None:
        if isinstance(event, RanShort | RanOut):
            self._short = event.reason
            self.child.kill_group()

    async def _watch_exit(self) -> None:
        code = await self.child.wait()
        self._memory.stop()
        with contextlib.suppress(OSError):
            self.child.note_segments()
        if not await self.child.sweep():
            log.error("node.survivors", pid=self.child.pid, next="they ignore SIGKILL: see ps")
        self._tasks.cancel_others()
        lines = [line.text for line in self._part.log.tail(DIAGNOSED_LINES, self._first_line)]
        is_oom = oom_kills() > self._oom_kills
        reason = self._memory.fatal or self._short
        reason = reason or diagnose_exit(code, lines, was_ready=None, oom_killed=is_oom)
        self._gone.set()
        self._part._over(Exited(self.order.spawn, code, reason))


async def _no_evidence() -> None:
    """Gather nothing: a headless part has no wedge to explain."""


def _fit(order: SpawnOrder) -> Callable[..., MemoryPlan]:
    def fit(
        settings: Settings,
        host: HostFacts,
        model: ModelFacts,
        learned: Learned | None,
        _rung: int,
    ) -> MemoryPlan:
        _alike(settings, order)
        own = plan_part(settings, host, model, learned)
        if order.kv_bytes is None or order.max_model_len is None:
            return own
        return bounded(own, Bound(order.kv_bytes, own.kv_tokens, order.max_model_len))

    return fit


def _alike(settings: Settings, order: SpawnOrder) -> None:
    if order.max_num_seqs not in (None, settings.max_num_seqs):
        raise ApplianceError(
            f"the head runs {order.max_num_seqs} requests at once, and this node "
            f"{settings.max_num_seqs}",
            "set APPLIANCE_MAX_NUM_SEQS alike on both boxes",
            code="other_max_num_seqs",
        )
