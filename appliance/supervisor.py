"""The one writer of engine state: turns events into steps, and effects into deeds."""

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import structlog

from appliance.child import keep_reaping
from appliance.engine import OUTPUT_SUSPECT, Listener, Request, Snapshot, Traffic
from appliance.errors import ApplianceError, DoesNotFit, EngineNotReady
from appliance.events import (
    APPLIANCE_ENDS,
    IDLE,
    DeadlinePassed,
    DrainRequested,
    Effect,
    Event,
    Exited,
    Idled,
    Kill,
    Prepare,
    Prepared,
    PrepareFailed,
    RanOut,
    RanShort,
    ResetRequested,
    RestartRequested,
    Spawn,
    StartRequested,
    StopRequested,
    Terminate,
)
from appliance.host import memory_snapshot
from appliance.incarnation import ENGINE_ILL, SILENT, Care, Incarnation, boot_now
from appliance.keeper import NOT_SAVED, Keeper
from appliance.launch import LaunchPlan
from appliance.lifecycle import ALIVE, EngineState, Machine, Policy, step
from appliance.listeners import Listeners
from appliance.logs import EngineLog
from appliance.memorywatch import MEMORY_LOW
from appliance.restart import Grade, Reason
from appliance.settle import settle
from appliance.tasks import Tasks
from appliance.upstream import Upstream
from appliance.whatnext import forecast

log = structlog.get_logger()

FAILED_LINES = 20
REPORT_HINT = "report this with the appliance's log"
_COMING = (EngineState.PREPARING, EngineState.STARTING, EngineState.BACKOFF)
_LEAVING = (EngineState.DRAINING, EngineState.STOPPING)
_FALLEN = (EngineState.BACKOFF, EngineState.FAILED)


@dataclass(frozen=True)
class Order:
    """What a plan is made for: a fresh key and token, and how many safer steps to take."""

    api_key: str
    token: str
    rung: int


@dataclass(frozen=True)
class Wiring:
    """What the composition root gives a supervisor.

    ``prepare`` makes the plan for an order, or raises ApplianceError; ``close`` is for the end.
    """

    prepare: Callable[[Order], Awaitable[LaunchPlan]]
    care: Care
    policy: Policy
    keeper: Keeper
    settle_s: float
    expected_start_s: float
    close: Callable[[], Awaitable[None]] | None = None


class Supervisor:
    """Owns the engine's process and its state. Everyone else sends it events."""

    states: tuple[str, ...] = tuple(EngineState)

    def __init__(self, wiring: Wiring) -> None:
        self.log = EngineLog()
        self.traffic: Callable[[], Traffic] = Traffic
        self._wiring = wiring
        self._metrics = wiring.care.metrics
        self._keeper = wiring.keeper
        self._machine = Machine(history=wiring.keeper.history)
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._timer: asyncio.TimerHandle | None = None
        self._due_at: float | None = None
        self._tasks = Tasks()
        self._listeners = Listeners[Snapshot]()
        self._now: Incarnation | None = None
        self._plan: LaunchPlan | None = None
        self._memory: Mapping[str, Any] | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._since = time.time()
        self._settling = False
        self._baseline: int | None = None  # memory before an engine had its share
        self._must_settle = False
        self._last_start_s = wiring.expected_start_s

    # ---- seen from outside

    @property
    def snapshot(self) -> Snapshot:
        """The engine now."""
        machine, now = self._machine, self._now
        state = machine.state
        starting = now is not None and state is EngineState.STARTING
        ready = now is not None and state is EngineState.READY
        fallen = state in _FALLEN and now is not None
        lines = self.log.tail(FAILED_LINES) if fallen else []
        is_over = now is not None and now.is_over  # its exit is yet to be taken
        leaving = state in _LEAVING and (machine.again or machine.pending is not None)
        short = now.memory.reason if now and ready else None
        return Snapshot(
            state=state.value,
            reason=short or machine.reason,
            since=self._since,
            spawn=machine.spawn,
            is_ready=state is EngineState.READY and not is_over,
            is_coming=state in _COMING or leaving or (state is EngineState.READY and is_over),
            is_idle=state is EngineState.STOPPED and machine.reason == IDLE,
            progress=str(now.progress) if now and starting else "",
            fraction=now.progress.fraction if now and starting else None,
            degraded=(*(now.warnings if now and ready else ()), *self._keeper.degraded),
            last_lines=tuple(line.text for line in lines),
            max_model_len=now.max_model_len if now else None,
            next=forecast(machine, self._wiring.policy, settling=self._settling),
            next_at=self._due_at,
            rung=machine.history.rung,
            is_short=short is not None,
            memory=self._memory,
        )

    @property
    def upstream(self) -> Upstream:
        """The engine's HTTP side. Raises EngineNotReady when it does not serve."""
        state = self._machine.state
        if self._now is None or state not in (EngineState.READY, EngineState.DRAINING):
            raise EngineNotReady(f"the engine is {state}", "retry when /health/ready is 200")
        return self._now.upstream

    @property
    def plan(self) -> LaunchPlan | None:
        """The command of the current or last spawn."""
        return self._plan

    def expected_s(self) -> float:
        """Return in how many seconds it will be ready, as far as is known; 0 when it is."""
        machine = self._machine
        if machine.state is EngineState.READY:
            return 0.0
        if machine.state is EngineState.STARTING and self._now:
            # an overdue start is not about to be there: clients' tries must not be used up on it
            return max(self._last_start_s / 5, self._last_start_s - self._now.uptime_s)
        if machine.state is EngineState.BACKOFF and self._due_at is not None:
            return self._last_start_s + max(0.0, self._due_at - time.time())
        return self._last_start_s

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` on each change; return how to stop that."""
        return self._listeners.add(listener)

    def request(self, what: Request) -> None:
        """Ask for a change; returns at once. All but the appliance's own end are kept."""
        if what is not Request.END:
            self._keeper.want(what not in (Request.STOP, Request.DRAIN))
        if what is Request.RESET:
            self._keeper.forget()
        self._send(_EVENTS[what])

    def begin(self) -> None:
        """Start the engine, unless an operator had stopped it when the appliance last ran."""
        self._send(StartRequested() if self._keeper.is_wanted else StopRequested())

    def idled(self) -> None:
        """Be told that no request runs any more."""
        if self._machine.state is EngineState.DRAINING:
            self._send(Idled())

    # ---- the loop

    async def run(self) -> None:
        """Take events until cancelled; then end the child and everything it started."""
        beside = [asyncio.create_task(self._keeper.run()), asyncio.create_task(keep_reaping())]
        try:
            self._must_settle = await self._keeper.end_orphans()
            while True:
                self._take(await self._events.get())
        finally:
            await asyncio.shield(self._end())
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            self._keeper.save_now()

    def _send(self, event: Event) -> None:
        self._events.put_nowait(event)

    def _take(self, event: Event) -> None:
        before = self._machine
        self._machine, effects = step(before, event, self._wiring.policy)
        now = self._machine
        if now.armed != before.armed:
            self._arm()
        is_new = (now.state, now.reason) != (before.state, before.reason)
        if is_new:
            self._entered(before, event)
        if before.state in ALIVE and now.state not in ALIVE:
            self._keeper.gone()
        if before.state is EngineState.PREPARING and now.state is not before.state:
            self._abandon(now.state)
        self._keeper.remember(now.history)
        for effect in effects:
            self._act(effect)
        if _has_fallen(before, event, now):
            self._incident(before, event)
        elif isinstance(event, Exited) and now is not before:
            self._metrics.exits.labels("requested").inc()
        if is_new or now.again is not before.again:
            self._tell()

    def _arm(self) -> None:
        machine, self._due_at = self._machine, None
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if machine.deadline_s is not None:
            self._due_at = time.time() + machine.deadline_s
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(machine.deadline_s, self._overdue, machine.armed)

    def _overdue(self, armed: int) -> None:
        self._send(DeadlinePassed(armed, boot_now(), random.random()))  # noqa: S311 - jitter

    def _entered(self, before: Machine, event: Event) -> None:
        machine, metrics = self._machine, self._metrics
        self._since = time.time()
        if before.state is EngineState.READY:
            for kind in (OUTPUT_SUSPECT, ENGINE_ILL, SILENT, MEMORY_LOW):
                metrics.degraded.labels(kind).set(0)
        if machine.state is EngineState.READY and self._now:
            self.log.gate.strict = True  # from here on its lines may quote requests
            metrics.degraded.labels(OUTPUT_SUSPECT).set(OUTPUT_SUSPECT in self._now.degraded)
            if before.state is EngineState.STARTING:
                self._last_start_s = self._now.uptime_s
                self._keeper.learn(self._now.compare())
                metrics.start_s.set(self._now.uptime_s)
        if machine.state is EngineState.DRAINING and self.traffic().running == 0:
            self._send(Idled())
        metrics.degraded.labels(NOT_SAVED).set(bool(self._keeper.degraded))
        metrics.enter_state(machine.state.value, self.states)
        log.info(
            "engine.transition",
            was=before.state.value,
            to=machine.state.value,
            because=type(event).__name__,
            reason=machine.reason.code,
            spawn=machine.spawn,
            **({"what": machine.reason.what} if machine.reason.what else {}),
            **({"next": machine.reason.hint} if machine.reason.hint else {}),
        )

    def _tell(self) -> None:
        self._listeners.tell(self.snapshot)

    def _act(self, effect: Effect) -> None:
        match effect:
            case Prepare(spawn=number, rung=rung):
                self._preparing = self._tasks.begin(self._prepare(number, rung, self._preparing))
            case Spawn(spawn=number):
                self._spawn(number)
            case Terminate():
                if self._now:
                    self._now.terminate()
            case Kill():
                if self._now:
                    self._now.kill()

    # ---- deeds

    async def _prepare(self, number: int, rung: int, earlier: asyncio.Task[None] | None) -> None:
        try:
            if earlier is not None:  # it may have a helper to end
                await asyncio.wait([earlier])
            await self._settle()
            order = Order(secrets.token_urlsafe(32), secrets.token_hex(16), rung)
            plan = await self._wiring.prepare(order)
        except DoesNotFit as error:
            if number == self._machine.spawn:
                self._memory = {"rows": error.table, "shortfalls": error.shortfalls}
            # after a failure memory may yet come back
            grade = Grade.TRANSIENT if self._machine.history.failures else Grade.PERMANENT
            reason = Reason(error.code, error.what, error.hint, grade)
        except ApplianceError as error:
            grade = Grade.AWAITED if error.is_passing else Grade.PERMANENT
            reason = Reason(error.code, error.what, error.hint, grade)
        except Exception as cause:  # a fault of ours: it ends this start, not the appliance
            log.exception("supervisor.fault", spawn=number)
            what = f"the start could not be prepared: {type(cause).__name__}: {cause}"
            reason = Reason("internal_error", what, REPORT_HINT, Grade.PERMANENT)
        else:
            if number == self._machine.spawn:  # a slow one must not replace a newer plan
                self._plan = plan
                self._memory = asdict(plan.memory) if plan.memory else None
                await self._keeper.announce(plan.token)
            self._send(Prepared(number, boot_now()))
            return
        self._send(PrepareFailed(number, reason, boot_now(), random.random()))  # noqa: S311

    def _abandon(self, state: EngineState) -> None:
        """End a preparation that nobody waits for: it must not touch memory under a new engine."""
        if self._preparing and state is not EngineState.STARTING:
            self._preparing.cancel()

    async def _settle(self) -> None:
        """Wait for the memory of the engine before this one."""
        if not self._must_settle:
            return
        self._settling = True
        try:
            settled = await settle(self._baseline, memory_snapshot, self._wiring.settle_s)
        finally:
            self._settling = False
        self._must_settle = False
        tell = log.info if settled.is_back else log.warning
        tell("engine.settled", seconds=round(settled.seconds, 1), memory_back=settled.is_back)

    def _spawn(self, number: int) -> None:
        plan = self._plan
        if plan is None:  # pragma: no cover - Prepared always follows a plan
            raise AssertionError("Spawn without a plan")
        self._baseline = memory_snapshot().get("MemAvailable")
        self._must_settle = True
        self.log.gate.strict = False  # no request has come to this one yet
        self.log.gate.secrets = (plan.api_key,)
        self.log.gate.known_paths = plan.known_paths
        try:
            self._now = Incarnation(
                number, plan, self._wiring.care, self.log, lambda: self.traffic(), self._send,
                self._tell,
            )  # fmt: skip
        except ApplianceError as error:
            reason = Reason(error.code, error.what, error.hint, Grade.PERMANENT)
            self._now = None
            self._send(Exited(number, reason, boot_now()))
            return
        self._metrics.spawns.inc()
        self._keeper.born(self._now.child.pid, plan.token)

    def _incident(self, before: Machine, event: Event) -> None:
        """Keep what is known of a failure: it is the operator's only witness."""
        reason = before.pending or getattr(event, "reason", None) or self._machine.reason
        now = self._now if self._now and self._now.number == before.spawn else None
        self._metrics.exits.labels(reason.code).inc()
        self._keeper.incident(before, reason, self.snapshot, self.log, now)

    async def _end(self) -> None:
        """Leave nothing behind: no timer, no task, no process."""
        if self._timer:
            self._timer.cancel()
        await self._tasks.end()
        if self._now:
            await self._now.end()
        if self._wiring.close:
            await self._wiring.close()
        self._keeper.gone()


_EVENTS: dict[Request, Event] = {
    Request.START: StartRequested(),
    Request.STOP: StopRequested(),
    Request.DRAIN: DrainRequested(),
    Request.RESTART: RestartRequested(),
    Request.RESET: ResetRequested(),
    Request.END: DrainRequested(APPLIANCE_ENDS),
}


def _has_fallen(before: Machine, event: Event, now: Machine) -> bool:
    """Tell whether this step was a failure: an exit that nobody asked for, a start that failed."""
    if before.state is EngineState.DRAINING and isinstance(event, Exited):
        return True
    if isinstance(event, RanOut | RanShort) and now.history.rung != before.history.rung:
        return True  # nobody wanted it any more: it must be known all the same
    came_from = before.state not in (*_FALLEN, EngineState.STOPPED)
    # who waits for another box has not failed, and it may go on for days
    return came_from and now.state in _FALLEN and now.reason.grade is not Grade.AWAITED
