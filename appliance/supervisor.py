"""The one writer of engine state: turns events into steps, and effects into deeds."""

import asyncio
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from appliance.child import Child, spawn
from appliance.diagnosis import diagnose_exit
from appliance.engine import OUTPUT_SUSPECT, Listener, Snapshot
from appliance.errors import ApplianceError, EngineNotReady, UpstreamError
from appliance.launch import LaunchPlan
from appliance.lifecycle import (
    BecameReady,
    DeadlinePassed,
    Effect,
    EngineState,
    Event,
    Exited,
    Kill,
    Machine,
    Policy,
    Prepare,
    Prepared,
    PrepareFailed,
    Reason,
    Spawn,
    StartRequested,
    StopRequested,
    Terminate,
    step,
)
from appliance.logs import EngineLog
from appliance.metrics import Metrics
from appliance.progress import Progress, advance
from appliance.upstream import Upstream

log = structlog.get_logger()

PROBE_EVERY_S = 0.25
FAILED_LINES = 20
DIAGNOSED_LINES = 1000  # tracebacks of over 200 lines have been seen
_COMING = (EngineState.PREPARING, EngineState.STARTING, EngineState.BACKOFF)


@dataclass(frozen=True)
class Wiring:
    """What the composition root gives a supervisor.

    ``prepare`` makes the plan for a port and key, or raises ApplianceError; ``warm_up`` returns
    what is wrong with the engine's output, "" when nothing is.
    """

    prepare: Callable[[int, str], Awaitable[LaunchPlan]]
    warm_up: Callable[[Upstream], Awaitable[str]]
    policy: Policy
    metrics: Metrics


class Supervisor:
    """Owns the engine's process and its state. Everyone else sends it events."""

    states: tuple[str, ...] = tuple(EngineState)

    def __init__(self, wiring: Wiring) -> None:
        self.log = EngineLog()
        self._wiring = wiring
        self._machine = Machine()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[Listener] = []
        self._child: Child | None = None
        self._plan: LaunchPlan | None = None
        self._upstream: Upstream | None = None
        self._progress = Progress()
        self._since = time.time()
        self._spawned_at = 0.0
        self._degraded: tuple[str, ...] = ()
        self._max_model_len: int | None = None

    # ---- seen from outside

    @property
    def snapshot(self) -> Snapshot:
        """The engine now."""
        machine = self._machine
        starting = machine.state is EngineState.STARTING
        failed = machine.state is EngineState.FAILED
        lines = self.log.tail(FAILED_LINES) if failed and self._child is not None else []
        return Snapshot(
            state=machine.state.value,
            reason=machine.reason,
            since=self._since,
            spawn=machine.spawn,
            is_ready=machine.state is EngineState.READY,
            is_coming=machine.state in _COMING or machine.again,
            progress=str(self._progress) if starting else "",
            fraction=self._progress.fraction if starting else None,
            degraded=self._degraded if machine.state is EngineState.READY else (),
            last_lines=tuple(line.text for line in lines),
            max_model_len=self._max_model_len,
        )

    @property
    def upstream(self) -> Upstream:
        """The engine's HTTP side. Raises EngineNotReady when it is not ready."""
        if self._upstream is None or self._machine.state is not EngineState.READY:
            state = self._machine.state.value
            raise EngineNotReady(f"the engine is {state}", "retry when /health/ready is 200")
        return self._upstream

    @property
    def plan(self) -> LaunchPlan | None:
        """The command of the current or last spawn."""
        return self._plan

    @property
    def pid(self) -> int | None:
        """The engine's process id while it lives."""
        return self._child.pid if self._child and self._machine.state.value != "failed" else None

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` on each change; return how to stop that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def request_start(self) -> None:
        """Ask for the engine; returns at once."""
        self._events.put_nowait(StartRequested())

    def request_stop(self) -> None:
        """Ask for no engine; returns at once."""
        self._events.put_nowait(StopRequested())

    # ---- the loop

    async def run(self) -> None:
        """Take events until cancelled; then end the child and everything it started."""
        try:
            while True:
                event = await self._events.get()
                self._take(event)
        finally:
            await asyncio.shield(self._end())

    def _take(self, event: Event) -> None:
        before = self._machine
        self._machine, effects = step(before, event, self._wiring.policy)
        if self._machine.entered != before.entered:
            self._entered(before, event)
        for effect in effects:
            self._act(effect)
        if self._machine is not before:
            self._tell()

    def _entered(self, before: Machine, event: Event) -> None:
        machine = self._machine
        self._since = time.time()
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if machine.deadline_s is not None:
            passed = DeadlinePassed(machine.entered)
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(machine.deadline_s, self._events.put_nowait, passed)
        if before.state is EngineState.READY:
            self._wiring.metrics.degraded.labels(OUTPUT_SUSPECT).set(0)
        if machine.state is EngineState.READY:
            self._wiring.metrics.degraded.labels(OUTPUT_SUSPECT).set(bool(self._degraded))
            self._wiring.metrics.start_s.set(time.monotonic() - self._spawned_at)
        self._wiring.metrics.enter_state(machine.state.value, self.states)
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
        snapshot = self.snapshot
        for listener in list(self._listeners):
            listener(snapshot)

    def _act(self, effect: Effect) -> None:
        match effect:
            case Prepare(spawn=number):
                self._begin(self._prepare(number))
            case Spawn(spawn=number):
                self._spawn(number)
            case Terminate():
                if self._child:
                    self._child.terminate()
            case Kill():
                if self._child:
                    self._begin(self._sweep(self._child))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- deeds

    async def _prepare(self, number: int) -> None:
        self._degraded = ()
        self._child = None
        try:
            plan = await self._wiring.prepare(_free_port(), secrets.token_urlsafe(32))
        except ApplianceError as error:
            reason = Reason(error.code, error.what, error.hint)
            self._events.put_nowait(PrepareFailed(number, reason))
            return
        except Exception as cause:  # a fault of ours: it ends this start, not the appliance
            log.exception("supervisor.fault", spawn=number)
            what = f"the start could not be prepared: {type(cause).__name__}: {cause}"
            reason = Reason("internal_error", what, "report this with the appliance's log")
            self._events.put_nowait(PrepareFailed(number, reason))
            return
        if number == self._machine.spawn:  # a slow one must not replace a newer plan
            self._plan = plan
        self._events.put_nowait(Prepared(number))

    def _spawn(self, number: int) -> None:
        plan = self._plan
        if plan is None:  # pragma: no cover - Prepared always follows a plan
            raise AssertionError("Spawn without a plan")
        self._progress = Progress()
        self._spawned_at = time.monotonic()
        self.log.secrets = (plan.api_key,)
        first_line = self.log.count
        try:
            child = spawn(plan.argv, plan.env, self._line)
        except ApplianceError as error:
            self._events.put_nowait(Exited(number, Reason(error.code, error.what, error.hint)))
            return
        self._child = child
        self._wiring.metrics.spawns.inc()
        self._begin(self._watch_exit(number, child, first_line))
        self._begin(self._watch_ready(number, Upstream(plan.base_url, plan.api_key)))

    def _line(self, text: str) -> None:
        line = self.log.append(text)
        before = self._progress
        self._progress = advance(before, line.text)
        if self._progress != before and self._machine.state is EngineState.STARTING:
            self._tell()

    async def _watch_exit(self, number: int, child: Child, first_line: int) -> None:
        code = await child.wait()
        was_ready = self._upstream is not None
        await self._sweep(child)
        await self._drop_upstream()
        lines = [line.text for line in self.log.tail(DIAGNOSED_LINES, after=first_line)]
        reason = diagnose_exit(code, lines, was_ready=was_ready)
        asked = self._machine.state is EngineState.STOPPING
        self._wiring.metrics.exits.labels("requested" if asked else reason.code).inc()
        self._events.put_nowait(Exited(number, reason))

    async def _sweep(self, child: Child) -> None:
        if not await child.sweep():
            log.error("engine.survivors", pid=child.pid, next="a process ignores SIGKILL: see ps")

    async def _watch_ready(self, number: int, upstream: Upstream) -> None:
        try:
            trouble = await self._warmed_up(number, upstream)
            context = await _context(upstream)
            if self._is_over(number):
                return
            if trouble:
                log.warning("engine.output_suspect", spawn=number, what=trouble)
            self._degraded = (OUTPUT_SUSPECT,) if trouble else ()
            self._max_model_len = context
            self._upstream = upstream
            self._events.put_nowait(BecameReady(number))
        finally:
            if self._upstream is not upstream:
                await upstream.close()

    async def _warmed_up(self, number: int, upstream: Upstream) -> str:
        """Wait until the engine is healthy; return what is wrong with its output."""
        trouble = ""
        while not self._is_over(number):
            if not await upstream.is_healthy():
                await asyncio.sleep(PROBE_EVERY_S)
                continue
            self._progress = Progress("warming up")
            self._tell()
            trouble = await self._wiring.warm_up(upstream)
            # An engine that died meanwhile gave no answer: that says nothing of its output.
            if not trouble or await upstream.is_healthy():
                break
        return trouble

    def _is_over(self, number: int) -> bool:
        machine = self._machine
        return machine.spawn != number or machine.state is not EngineState.STARTING

    async def _drop_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream:
            await upstream.close()

    async def _end(self) -> None:
        """Leave nothing behind: no timer, no task, no process."""
        if self._timer:
            self._timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._child:
            await self._sweep(self._child)
        await self._drop_upstream()


async def _context(upstream: Upstream) -> int | None:
    """Return the served context in tokens, as the engine itself reports it."""
    try:
        models = await upstream.models()
    except UpstreamError:
        return None
    length = models[0].get("max_model_len") if models else None
    return length if isinstance(length, int) else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
