"""The composition root of a running appliance, and its two-signal end."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp

from appliance import __version__
from appliance.admission import Gate
from appliance.app import Parts, build_app, local_app
from appliance.attached import Attached
from appliance.checkpoint.folder import read_model_facts
from appliance.control import Control
from appliance.engine import Engine, Request, Snapshot, Traffic
from appliance.errors import ApplianceError, EngineFailed, EngineNotReady, SettingsError
from appliance.host import StateFolder, bind, find_extras, free_port
from appliance.incarnation import Care
from appliance.incidents import IncidentStore
from appliance.keeper import open_keeper
from appliance.keys import Keys, ensure_key
from appliance.launch import Extras, LaunchPlan, plan_launch
from appliance.lifecycle import EngineState, Policy
from appliance.memory import RUNGS, safer
from appliance.metrics import Metrics
from appliance.prompt import PromptPolicy
from appliance.relay import Relay
from appliance.restart import RestartPolicy
from appliance.settings import Settings
from appliance.statefile import checkpoint_id, choice_hash
from appliance.supervisor import Order, Supervisor, Wiring
from appliance.tree import become_subreaper
from appliance.upstream import Upstream
from appliance.warmup import warm_up
from appliance.wedge import WedgePolicy

log = structlog.get_logger()

WARM_UP_S = 300.0
PREPARE_S = 60.0  # to read the model folder, which may be on a sleeping disk
CLOSE_S = 3  # after the engine's end, for replies that are on their way
PROMPT = Path(__file__).parent / "prompts" / "path_preservation.txt"


@dataclass
class Running:
    """An appliance that listens: where, with which keys, in front of which engine."""

    settings: Settings
    base_url: str
    keys: Keys
    engine: Engine
    gate: Gate


Hook = Callable[[Running], Awaitable[int | None]]


def load_prompt(settings: Settings) -> PromptPolicy:
    """Return the prompt policy in force. Raises SettingsError for an unreadable prompt_file."""
    if not settings.prompt_injection:
        return PromptPolicy("")
    path = settings.prompt_file or PROMPT
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise SettingsError(
            f"APPLIANCE_PROMPT_FILE={path} cannot be read: {cause}", "name a text file, or unset it"
        ) from cause
    if not text:
        hint = "or set APPLIANCE_PROMPT_INJECTION=off"
        raise SettingsError(f"APPLIANCE_PROMPT_FILE={path} is empty", f"write the prompt, {hint}")
    return PromptPolicy(text)


async def serve(settings: Settings, hook: Hook | None = None) -> int:
    """Run the appliance until a signal, or until ``hook`` returns an exit code.

    ``hook`` runs beside the server from the moment that it listens; returning None leaves the
    appliance running. Raises ApplianceError for what keeps it from listening at all.
    """
    policy = load_prompt(settings)
    extras = find_extras()
    with (
        contextlib.closing(StateFolder(settings.state_dir)) as state,
        bind(settings.host, settings.port) as listener,
    ):
        return await _serve(settings, policy, extras, state, listener, hook)


async def _serve(
    settings: Settings,
    policy: PromptPolicy,
    extras: Extras,
    state: StateFolder,
    listener: socket.socket,
    hook: Hook | None,
) -> int:
    keys = _keys(settings, state)
    metrics = Metrics()
    gate = Gate(settings.max_num_seqs, settings.max_waiting)
    engine, incidents = await build_engine(settings, extras, policy, metrics, state)
    relay = build_relay(settings, engine, gate, policy, metrics)
    become_subreaper()
    if isinstance(engine, Supervisor):
        engine.traffic = lambda: traffic(gate, relay)
    gate.on_idle = engine.idled
    engine.listen(lambda snapshot: follow(gate, snapshot, engine))
    control = Control(engine, gate, settings, incidents)
    app = build_app(Parts(control, relay, metrics, keys))
    base_url = _address(listener)
    state.address.write_text(base_url + "\n", encoding="ascii")
    log.info("appliance.listening", url=base_url, model=settings.served_model_name)
    running = Running(settings, base_url, keys, engine, gate)
    return await _Session(running, app, listener, state.socket, hook, control.end).run()


def build_relay(
    settings: Settings, engine: Engine, gate: Gate, policy: PromptPolicy, metrics: Metrics
) -> Relay:
    """Return the relay in front of an engine."""
    return Relay(
        engine,
        gate,
        policy,
        metrics,
        served_model=settings.served_model_name,
        max_body_bytes=settings.max_body_bytes,
        queue_timeout_s=settings.queue_timeout_s,
        admit_wait_s=settings.admit_wait_s,
        whole_wait_s=settings.whole_wait_s,
        head_after_s=settings.head_after_s,
        keepalive_s=settings.keepalive_s,
        expected_s=engine.expected_s,
        on_keepalive=metrics.keepalives.inc,
    )


def traffic(gate: Gate, relay: Relay) -> Traffic:
    """Return what the relay carries now."""
    return Traffic(
        running=gate.running,
        sending=relay.sending,
        waiting=gate.waiting,
        largest_bytes=relay.largest_in_flight(),
        chunks=relay.chunks_received,
    )


async def build_engine(
    settings: Settings, extras: Extras, policy: PromptPolicy, metrics: Metrics, state: StateFolder
) -> tuple[Engine, IncidentStore | None]:
    """Return the engine that the settings choose, ours or somebody else's, and our incidents."""

    async def check(upstream: Upstream) -> str:
        return await warm_up(upstream, settings.served_model_name, policy, WARM_UP_S)

    if settings.engine == "attach":
        key = settings.engine_key.get_secret_value() if settings.engine_key else None
        upstream = Upstream(settings.engine_url or "", key)
        return Attached(upstream, settings.served_model_name, check, metrics), None

    async def prepare(order: Order) -> LaunchPlan:
        await asyncio.to_thread(read_model_facts, settings.model_dir)
        return plan_launch(
            safer(settings, order.rung),
            extras,
            port=free_port(),
            api_key=order.api_key,
            base_env=os.environ,
            token=order.token,
            evidence=state.evidence,
        )

    checkpoint = await asyncio.to_thread(checkpoint_id, settings.model_dir)
    image = f"{__version__} {os.environ.get('UNGLITCHED_IMAGE', '')}"
    choice = choice_hash(settings.model_dump(mode="json"), checkpoint, image)
    keeper = open_keeper(state.path, choice)
    care = Care(
        warm_up=check,
        metrics=metrics,
        model=settings.served_model_name,
        evidence=state.evidence,
        wedge=_wedge_policy(settings),
        quiet_s=settings.start_quiet_s,
        idle_stop_after_s=settings.idle_stop_after_s,
    )
    wiring = Wiring(
        prepare, care, _policy(settings), keeper, settings.settle_timeout_s,
        settings.expected_start_s,
    )  # fmt: skip
    supervisor = Supervisor(wiring)
    supervisor.log.gate.debug = settings.engine_debug
    return supervisor, keeper.incidents


def _policy(settings: Settings) -> Policy:
    return Policy(
        prepare_s=settings.settle_timeout_s + PREPARE_S,
        start_s=settings.start_timeout_s,
        quiet_s=settings.start_quiet_s,
        drain_s=settings.drain_timeout_s,
        stop_s=settings.stop_timeout_s,
        stop_loading_s=min(settings.stop_timeout_s, Policy.stop_loading_s),
        restart=RestartPolicy(
            backoff_s=settings.restart_backoff_s,
            backoff_cap_s=settings.restart_backoff_cap_s,
            max_failures=settings.restart_max_failures,
            window_s=settings.restart_window_s,
            rungs=RUNGS,
        ),
    )


def _wedge_policy(settings: Settings) -> WedgePolicy:
    return WedgePolicy(
        quiet_s=settings.wedge_quiet_s,
        prefill_tokens_per_s=settings.prefill_tokens_per_s,
        power_floor_w=settings.wedge_power_floor_w,
        probe_every_s=settings.probe_every_s,
    )


def follow(gate: Gate, snapshot: Snapshot, engine: Engine) -> None:
    """Set the gate as the engine's state asks."""
    if snapshot.is_ready:
        gate.open()
    elif snapshot.is_coming:
        gate.hold()
    elif snapshot.is_idle:
        gate.hold(lambda: engine.request(Request.START))
    elif snapshot.state in (EngineState.FAILED, EngineState.STOPPED):
        what = f"the engine is {snapshot.state}: {snapshot.reason.what or snapshot.reason.code}"
        gate.refuse(lambda: EngineFailed(what, snapshot.reason.hint or "appliance start"))
    else:
        what = f"the engine is {snapshot.state}"
        gate.refuse(lambda: EngineNotReady(what, "retry when /health/ready is 200"))


def _keys(settings: Settings, state: StateFolder) -> Keys:
    given = [k.get_secret_value() if k else None for k in (settings.api_key, settings.operator_key)]
    client = ensure_key(state.client_key, given[0])
    operator = ensure_key(state.operator_key, given[1])
    if client == operator:
        raise SettingsError(
            "the client key and the operator key are the same",
            f"delete {state.operator_key}, or set APPLIANCE_OPERATOR_KEY to another one",
        )
    return Keys(client, operator)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: the session has it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


@dataclass
class _Session:
    """From listening to the last process gone."""

    running: Running
    app: ASGIApp
    listener: socket.socket
    socket_path: Path
    hook: Hook | None
    on_end: Callable[[], None]
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _second: asyncio.Event = field(default_factory=asyncio.Event)
    _code: int = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        servers = [self._server(self.app), *self._local_servers()]
        engine = asyncio.create_task(self.running.engine.run())
        serving = [asyncio.create_task(server) for _, server in servers]
        hook = asyncio.create_task(self._run_hook())
        hook.add_done_callback(self._on_hook_done)
        self.running.engine.begin()
        try:
            await self._until_over(engine, serving)
        finally:
            hook.cancel()
            self.on_end()
            for server, _ in servers:
                server.should_exit = True
                server.force_exit = self._second.is_set()
            await asyncio.wait(serving)
            engine.cancel()
            await asyncio.wait([engine, hook])
            self.socket_path.unlink(missing_ok=True)
        for task in (engine, hook, *serving):
            if not task.cancelled() and (fault := task.exception()) is not None:
                raise fault
        return self._code

    async def _until_over(
        self, engine: asyncio.Task[None], serving: list[asyncio.Task[None]]
    ) -> None:
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait({stop, engine, *serving}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if engine.done():
            return
        self.running.engine.request(Request.END)
        second = asyncio.create_task(self._second.wait())
        down = asyncio.create_task(self._engine_down())
        await asyncio.wait({second, down}, return_when=asyncio.FIRST_COMPLETED)
        second.cancel()
        down.cancel()

    @property
    def _spawns(self) -> bool:
        return self.running.settings.engine == "spawn"

    async def _engine_down(self) -> None:
        changed = asyncio.Event()
        forget = self.running.engine.listen(lambda _snapshot: changed.set())
        try:
            ends = ("stopped", "failed") if self._spawns else ("draining",)
            while self.running.engine.snapshot.state not in ends:
                changed.clear()
                await changed.wait()
        finally:
            forget()

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            log.warning("appliance.killed", signal=number.name)
            self._code = 128 + number
            self._second.set()
            return
        log.info("appliance.stopping", signal=number.name, next="once more to end at once")
        self._stop.set()

    async def _run_hook(self) -> None:
        if self.hook is None:
            return
        try:
            code = await self.hook(self.running)
        except ApplianceError as error:
            log.error("appliance.hook", what=error.what, next=error.hint)
            code = error.exit_code
        if code is not None and not self._stop.is_set():
            self._code = code
            self._stop.set()

    def _on_hook_done(self, hook: asyncio.Task[None]) -> None:
        if not hook.cancelled() and hook.exception() is not None:
            self._stop.set()

    def _server(self, app: ASGIApp, **where: str) -> tuple[_Server, Coroutine[Any, Any, None]]:
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=CLOSE_S,
            **where,  # type: ignore[arg-type]
        )
        server = _Server(config)
        sockets = None if where else [self.listener]
        return server, server.serve(sockets=sockets)

    def _local_servers(self) -> list[tuple[_Server, Coroutine[Any, Any, None]]]:
        self.socket_path.unlink(missing_ok=True)
        if len(os.fsencode(self.socket_path)) > 107:  # sun_path
            log.warning("appliance.no_socket", path=str(self.socket_path), why="path too long")
            return []
        # uvicorn keeps the mode of a file that is there: bind it shut, then hand it over
        with socket.socket(socket.AF_UNIX) as first:
            previous = os.umask(0o177)
            try:
                first.bind(str(self.socket_path))
            finally:
                os.umask(previous)
        return [self._server(local_app(self.app), uds=str(self.socket_path))]
