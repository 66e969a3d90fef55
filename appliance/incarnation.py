"""One spawn of the engine, from exec to the last process gone: its child, and who watches it."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from appliance import wedge
from appliance.child import Child, spawn
from appliance.diagnosis import diagnose_exit
from appliance.engine import OUTPUT_SUSPECT, Traffic
from appliance.errors import UpstreamError
from appliance.events import IDLE, BecameReady, Event, Exited, Progressed, StopRequested, Wedged
from appliance.evidence import gather_stacks
from appliance.host import memory_snapshot
from appliance.launch import LaunchPlan
from appliance.logs import EngineLog
from appliance.memorywatch import MemoryCare, MemoryWatch
from appliance.metrics import Metrics
from appliance.overheads import Learned, host_share, learn
from appliance.probes import user
from appliance.progress import Progress, advance
from appliance.restart import Reason
from appliance.sizes import format_size
from appliance.tasks import Tasks
from appliance.tree import TreeUsage, is_working
from appliance.upstream import Health, Upstream
from appliance.vitals import oom_kills, read_counters, read_power_w

log = structlog.get_logger()

HEALTH_EVERY_S = 0.25
DIAGNOSED_LINES = 1000  # tracebacks of over 200 lines have been seen
ILL_S = 30.0  # vLLM takes up to 6 s from its core's death to its own end
ENGINE_ILL = "engine_ill"
SILENT = "silent"
EVIDENCE_HINT = "appliance incidents show tells where it hung"
INSIDE = ("weights", "kv_cache", "activations", "cuda_graphs", "non_torch")  # of a plan's rows
PROBE_LIMIT_S = 3600.0  # the wedge detector ends a probe that hangs, long before


def boot_now() -> float:
    """Return the seconds since boot: no clock change moves it, and it counts a suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


Start = Callable[[int, LaunchPlan, Callable[[str], None]], Child]


def start_alone(_number: int, plan: LaunchPlan, on_line: Callable[[str], None]) -> Child:
    """Start an engine that is all on this box. Raises SpawnFailed."""
    return spawn(plan.argv, plan.env, on_line)


@dataclass(frozen=True)
class Care:
    """How an engine is looked after, the same for each spawn, and how its child is started."""

    warm_up: Callable[[Upstream], Awaitable[str]]
    metrics: Metrics
    model: str
    evidence: Path
    wedge: wedge.WedgePolicy
    memory: MemoryCare
    quiet_s: float
    idle_stop_after_s: float | None = None
    start: Start = start_alone


@dataclass
class Findings:
    """What was found out about one spawn, for the incident that may come of it."""

    exit: str = ""
    traffic: Traffic = field(default_factory=Traffic)
    memory: dict[str, int] = field(default_factory=dict)
    processes: dict[str, int] = field(default_factory=dict)
    stacks: dict[str, str] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)


class Incarnation:
    """A running engine of one spawn number. ``send`` takes its events, ``tell`` its progress."""

    def __init__(
        self,
        number: int,
        plan: LaunchPlan,
        care: Care,
        engine_log: EngineLog,
        traffic: Callable[[], Traffic],
        send: Callable[[Event], None],
        tell: Callable[[], None],
    ) -> None:
        self.number = number
        self.plan = plan
        self.progress = Progress()
        self.degraded: tuple[str, ...] = ()
        self.max_model_len: int | None = None
        self.learned: Learned | None = None
        self.findings = Findings(memory=memory_snapshot())
        self.is_ready = False
        self._available_before = self.findings.memory.get("MemAvailable")
        self._care = care
        self._log = engine_log
        self._traffic = traffic
        self._send = send
        self._tell = tell
        self._began = time.monotonic()
        self._first_line = engine_log.count
        self._oom_kills = oom_kills()
        self._upstream = Upstream(plan.base_url, plan.api_key)
        self._tasks = Tasks()
        self._probing = False
        self.is_over = False
        # Raises SpawnFailed: nothing else has begun by then.
        self.child: Child = care.start(number, plan, self._line)
        floors = plan.memory.floors if plan.memory and care.memory.is_armed else None
        self.memory = MemoryWatch(number, self.child, floors, care.memory, send, tell, self._gather)
        watches = (
            self._watch_exit(),
            self._watch_progress(),
            self.memory.watch_load(lambda: not (self.is_ready or self.is_over)),
            self._watch_ready(),
        )
        for watch in watches:
            self._tasks.begin(watch)

    @property
    def upstream(self) -> Upstream:
        """The engine's HTTP side."""
        return self._upstream

    @property
    def warnings(self) -> tuple[str, ...]:
        """All that is wrong while it serves."""
        return (*self.degraded, *self.memory.degraded)

    @property
    def uptime_s(self) -> float:
        """Seconds since the spawn."""
        return time.monotonic() - self._began

    def compare(self) -> Learned | None:
        """Show what the engine took beside what was planned; return what that teaches."""
        actual = self._care.metrics.actual_bytes
        for name, size in (self.learned.as_dict() if self.learned else {}).items():
            actual.labels(name.removesuffix("_bytes")).set(size)
        available, plan = memory_snapshot().get("MemAvailable"), self.plan.memory
        if available is None or plan is None:
            return self.learned
        actual.labels("available").set(available)
        if self._available_before is not None:
            inside = sum(row.bytes for row in plan.rows if row.name in INSIDE)
            on_cpu = plan.gpu_memory_utilization is None
            share = host_share(self._available_before - available, inside, on_cpu)
            if share is not None:
                self.learned = replace(self.learned or Learned(), engine_host_bytes=share)
        planned = format_size(plan.steady_available_bytes)
        log.info("memory.ready", available=format_size(available), planned=planned)
        return self.learned

    def terminate(self) -> None:
        """Ask the engine to end."""
        self.memory.leave()
        self.child.terminate()

    def kill(self) -> None:
        """End every process of it; the exit is told as always."""
        self._tasks.begin(self._sweep())

    async def end(self) -> None:
        """Leave nothing behind: no task, no process, no connection."""
        self.is_over = True
        self.memory.stop()
        await self._tasks.end()
        await self._sweep()
        await self._upstream.close()

    async def _sweep(self) -> None:
        if not await self.child.sweep():
            log.error("engine.survivors", pid=self.child.pid, next="they ignore SIGKILL: see ps")

    # ---- its output and its end

    def _line(self, text: str) -> None:
        line = self._log.append(text)
        before = self.progress
        if not self.is_ready:
            self.progress = advance(before, line.text)
        if self.progress != before:
            self._tell()

    def _lines(self) -> list[str]:
        return [line.text for line in self._log.tail(DIAGNOSED_LINES, after=self._first_line)]

    async def _watch_exit(self) -> None:
        code = await self.child.wait()
        self.is_over = True
        self.findings.traffic = self._traffic()  # in a moment the relay has let go of it
        self._tell()  # at once: the gate shuts, and nobody more runs into a dead engine
        self._tasks.cancel_others()  # they watch somebody who is gone
        self.memory.stop()
        await self._sweep()
        await self._upstream.close()
        self.findings.processes = self.memory.processes
        self.findings.exit = f"signal {-code}" if code < 0 else f"exit code {code}"
        is_oom = oom_kills() > self._oom_kills
        reason = (
            self.memory.fatal
            or self.child.why
            or diagnose_exit(code, self._lines(), was_ready=self.is_ready, oom_killed=is_oom)
        )
        self._send(Exited(self.number, reason, boot_now(), random.random()))  # noqa: S311 - jitter

    # ---- while it loads

    async def _watch_progress(self) -> None:
        """Tell that it works: by a line, by bytes, or by processor time (a silent compile)."""
        every_s = min(5.0, self._care.quiet_s / 10)
        usage, lines = TreeUsage(), self._log.count
        while not (self.is_ready or self.is_over):
            await asyncio.sleep(every_s)
            before = usage
            with contextlib.suppress(OSError):  # no descriptor is free to look with
                usage = self.child.usage()
            if is_working(before, usage, every_s) or self._log.count > lines:
                self._send(Progressed(self.number, boot_now()))
            lines = self._log.count

    async def _watch_ready(self) -> None:
        trouble = await self._warmed_up()
        self.max_model_len = await _context(self._upstream)
        if self.is_over:
            return
        if trouble:
            log.warning("engine.output_suspect", spawn=self.number, what=trouble)
        self.degraded = (OUTPUT_SUSPECT,) if trouble else ()
        with contextlib.suppress(OSError):
            self.child.note_segments()
        self.learned = learn(self._lines(), self._available_before)
        self.is_ready = True
        self._send(BecameReady(self.number))
        self._tasks.begin(self.memory.watch_floors())
        await self._watch_life()

    async def _warmed_up(self) -> str:
        """Wait until the engine is healthy; return what is wrong with its output."""
        while not self.is_over:
            if not await self._upstream.is_healthy():
                await asyncio.sleep(HEALTH_EVERY_S)
                continue
            self.progress = Progress("warming up")
            self._tell()
            trouble = await self._care.warm_up(self._upstream)
            # An engine that died meanwhile gave no answer: that says nothing of its output.
            if not trouble or await self._upstream.is_healthy():
                return trouble
        return ""

    # ---- while it serves

    async def _watch_life(self) -> None:
        """Look at the engine's progress until it ends, wedges, or has idled for long enough."""
        # a body longer than the context is refused: it buys no more patience than that
        bound = self.max_model_len or self._care.wedge.max_prompt_tokens
        policy, watch = replace(self._care.wedge, max_prompt_tokens=bound), wedge.Watch()
        ill_since: float | None = None
        idle_since, chunks = time.monotonic(), 0
        while not self.is_over:
            began = time.monotonic()
            vitals = await self._vitals(power=wedge.power_due(watch, policy))
            watch, verdict = wedge.look(watch, vitals, policy)
            ill_since = (ill_since or vitals.at) if await self._is_ill() else None
            self._show(ENGINE_ILL, ill_since is not None)
            self._show(SILENT, verdict is not wedge.Verdict.FINE)
            if verdict is wedge.Verdict.WEDGED:
                await self._put_down(_wedge_reason(watch, vitals), watch, vitals)
                return
            if ill_since is not None and vitals.at - ill_since >= min(ILL_S, policy.quiet_s):
                await self._put_down(_ill_reason(vitals.at - ill_since), watch, vitals)
                return
            is_used = watch.silent_since is not None and not self._probing
            if is_used or vitals.chunks != chunks:
                idle_since, chunks = vitals.at, vitals.chunks
            limit_s = self._care.idle_stop_after_s
            if limit_s is not None and vitals.at - idle_since >= limit_s:
                self._send(StopRequested(IDLE))
                return
            if wedge.probe_due(watch, vitals, policy):
                watch = wedge.probed(watch, vitals.at)
                self._tasks.begin(self._probe())
            looked_s = time.monotonic() - began
            await asyncio.sleep(max(0.05, policy.look_every_s - looked_s))

    async def _is_ill(self) -> bool:
        """Tell whether it says itself that it is dead: vLLM does so, and then mostly exits."""
        return await self._upstream.health(self._care.wedge.read_within_s) is Health.ILL

    def _show(self, kind: str, holds: bool) -> None:
        """Show, or show no more, what is wrong while it serves."""
        others = tuple(shown for shown in self.degraded if shown != kind)
        degraded = (*others, kind) if holds else others
        if set(degraded) != set(self.degraded):
            self.degraded = degraded
            self._care.metrics.degraded.labels(kind).set(holds)
            self._tell()

    async def _vitals(self, *, power: bool) -> wedge.Vitals:
        within_s = self._care.wedge.read_within_s
        counters = await read_counters(self._upstream, within_s)
        if memory := memory_snapshot():
            self.findings.memory = memory
        traffic = self._traffic()
        return wedge.Vitals(
            at=time.monotonic(),
            in_flight=traffic.running - traffic.sending + self._probing,
            engine_load=counters.load if counters else None,
            heartbeat=counters.heartbeat if counters else None,
            chunks=traffic.chunks,
            prompt_bytes=traffic.largest_bytes,
            power_w=await read_power_w(within_s=within_s) if power else None,
        )

    async def _probe(self) -> None:
        """Ask an idle engine for one token: only that proves that it still works."""
        body = {"model": self._care.model, "messages": [user("ping")], "max_tokens": 1}
        self._probing = True
        try:
            await self._upstream.complete(body, PROBE_LIMIT_S)
            outcome = "ok"
        except UpstreamError as cause:
            outcome = "failed"
            if not self.is_over:
                log.warning("engine.probe_failed", spawn=self.number, what=cause.what)
        finally:
            self._probing = False
        self._care.metrics.probes.labels(outcome).inc()

    async def _gather(self) -> None:
        """Ask its processes what they are doing. Raises OSError where they cannot be seen."""
        self.findings.stacks = await gather_stacks(self.child.tree(), self._care.evidence)

    async def _put_down(self, reason: Reason, watch: wedge.Watch, vitals: wedge.Vitals) -> None:
        """Save the evidence, then have it killed."""
        log.error("engine.wedged", spawn=self.number, reason=reason.code, what=reason.what)
        self._care.metrics.wedges.inc()
        with contextlib.suppress(OSError):  # evidence must not stand between it and its end
            await self._gather()
        self.findings.counters = {
            "silence_s": round(watch.silence_s, 1),
            "in_flight": vitals.in_flight,
            "engine_load": -1 if vitals.engine_load is None else vitals.engine_load,
            "prompt_bytes": watch.prompt_bytes,
        }
        self._send(Wedged(self.number, reason))


def _wedge_reason(watch: wedge.Watch, vitals: wedge.Vitals) -> Reason:
    power = "" if vitals.power_w is None else f", the GPU draws {vitals.power_w:.0f} W"
    what = (
        f"no token, no step and no prefill for {watch.silence_s:.0f} s, with "
        f"{vitals.in_flight} of our requests in flight{power}"
    )
    return Reason("wedged", what, EVIDENCE_HINT)


def _ill_reason(ill_s: float) -> Reason:
    what = f"the engine said for {ill_s:.0f} s that it is dead, and did not end"
    return Reason("engine_ill", what, EVIDENCE_HINT)


async def _context(upstream: Upstream) -> int | None:
    """Return the served context in tokens, as the engine itself reports it."""
    try:
        models = await upstream.models()
    except UpstreamError:
        return None
    length = models[0].get("max_model_len") if models else None
    return length if isinstance(length, int) else None
