"""An engine that somebody else runs: seen, served from, never started nor stopped."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from enum import StrEnum
from typing import Any

import structlog

from appliance.engine import OUTPUT_SUSPECT, Listener, Request, Snapshot
from appliance.errors import EngineNotReady, UpstreamError
from appliance.launch import LaunchPlan
from appliance.listeners import Listeners
from appliance.logs import EngineLog
from appliance.metrics import Metrics
from appliance.restart import Reason
from appliance.upstream import Upstream

log = structlog.get_logger()

PROBE_EVERY_S = 1.0


class AttachedState(StrEnum):
    """The whole life of an attached engine, as far as it concerns us."""

    UNREACHABLE = "unreachable"
    READY = "ready"
    DRAINING = "draining"


class Attached:
    """Serves in front of a running engine. Stop closes the gate; start opens it again."""

    states: tuple[str, ...] = tuple(AttachedState)

    def __init__(
        self,
        upstream: Upstream,
        served_model_name: str,
        warm_up: Callable[[Upstream], Awaitable[str]],
        metrics: Metrics,
    ) -> None:
        self.log = EngineLog()
        self._engine = upstream
        self._name = served_model_name
        self._warm_up = warm_up
        self._metrics = metrics
        self._state = AttachedState.UNREACHABLE
        self._reason = Reason("connecting", f"looking for an engine at {upstream.base_url}")
        self._since = time.time()
        self._wanted = False
        self._wake = asyncio.Event()
        self._degraded: tuple[str, ...] = ()
        self._max_model_len: int | None = None
        self._listeners = Listeners[Snapshot]()
        metrics.enter_state(self._state, self.states)

    @property
    def snapshot(self) -> Snapshot:
        """The engine now."""
        return Snapshot(
            state=self._state.value,
            reason=self._reason,
            since=self._since,
            is_ready=self._state is AttachedState.READY,
            degraded=self._degraded,
            max_model_len=self._max_model_len,
        )

    @property
    def upstream(self) -> Upstream:
        """The engine's HTTP side. Raises EngineNotReady while it is not to be used."""
        if self._state is not AttachedState.READY:
            raise EngineNotReady(f"the engine is {self._state}", "retry when /health/ready is 200")
        return self._engine

    @property
    def plan(self) -> LaunchPlan | None:
        """None: its command is somebody else's."""
        return None

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` on each change; return how to stop that."""
        return self._listeners.add(listener)

    def request(self, what: Request) -> None:
        """Serve from it (again), or serve no more from it; it goes on running either way."""
        self._wanted = what in (Request.START, Request.RESTART, Request.RESET)
        if what is Request.RESTART:  # greet it anew: its model and its output may have changed
            self._enter(AttachedState.UNREACHABLE, Reason("connecting", "looking at it again"))
        self._wake.set()

    def begin(self) -> None:
        """Serve from it as soon as it answers."""
        self.request(Request.START)

    def idled(self) -> None:
        """Nothing waits for that: its owner ends it, not we."""

    def expected_s(self) -> float:
        """Return 0: when it comes is not for us to know."""
        return 0.0

    async def run(self) -> None:
        """Look at the engine once a second until cancelled."""
        try:
            while True:
                self._wake.clear()
                await self._unless_woken(self._look())
        finally:
            await self._engine.close()

    async def _unless_woken(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work``, or drop it when a start or a stop is asked for: a warm-up may take long."""
        task = asyncio.create_task(work)
        woken = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait({task, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            if not task.done():
                task.cancel()
            await asyncio.wait({task, woken})
        if not task.cancelled():
            task.result()

    async def _look(self) -> None:
        if not self._wanted:
            self._enter(AttachedState.DRAINING, Reason("stopped_by_operator"))
        elif not await self._engine.is_healthy():
            what = f"no healthy engine answers at {self._engine.base_url}"
            hint = "start it, or correct APPLIANCE_ENGINE_URL"
            self._enter(AttachedState.UNREACHABLE, Reason("unreachable", what, hint))
        elif self._state is not AttachedState.READY:
            await self._greet()
        await asyncio.sleep(PROBE_EVERY_S)

    async def _greet(self) -> None:
        """Check a newly found engine: its key, its model's name, its output."""
        try:
            models = await self._engine.models()
        except UpstreamError as cause:
            hint = "set APPLIANCE_ENGINE_KEY to the engine's API key"
            self._enter(AttachedState.UNREACHABLE, Reason("refused", cause.what, hint))
            return
        served = {model.get("id"): model for model in models}
        if self._name not in served:
            what = f"the engine serves {', '.join(map(str, served)) or 'nothing'}, not {self._name}"
            hint = "set APPLIANCE_SERVED_MODEL_NAME to one of these"
            self._enter(AttachedState.UNREACHABLE, Reason("other_model", what, hint))
            return
        length = served[self._name].get("max_model_len")
        self._max_model_len = length if isinstance(length, int) else None
        trouble = await self._warm_up(self._engine)
        if trouble and not await self._engine.is_healthy():
            return  # it went away meanwhile: that says nothing of its output
        if trouble:
            log.warning("engine.output_suspect", what=trouble)
        self._degraded = (OUTPUT_SUSPECT,) if trouble else ()
        self._enter(AttachedState.READY, Reason("ready"))

    def _enter(self, state: AttachedState, reason: Reason) -> None:
        if (state, reason) == (self._state, self._reason):
            return
        was, self._state, self._reason = self._state, state, reason
        self._since = time.time()
        if state is not AttachedState.READY:
            self._degraded = ()
        self._metrics.degraded.labels(OUTPUT_SUSPECT).set(bool(self._degraded))
        self._metrics.enter_state(state, self.states)
        log.info("engine.transition", was=was.value, to=state.value, reason=reason.code)
        self._listeners.tell(self.snapshot)
