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

from appliance.admission import Gate
from appliance.allocator import Trimmer, keep_large_blocks
from appliance.app import Parts, build_app, local_app
from appliance.assembly import build_engine
from appliance.clientkeys import LOOK_S, KeyFile
from appliance.control import Control, is_admitting
from appliance.engine import Engine, Request, Snapshot, Traffic
from appliance.enginefacts import engine_facts
from appliance.errors import ApplianceError, EngineFailed, EngineNotReady, SettingsError
from appliance.fieldtypes import is_loopback
from appliance.gateway import build_relay
from appliance.guards import pin_memory
from appliance.host import StateFolder, bind, find_extras
from appliance.hostcheck import Hosts
from appliance.hostmetrics import HostMetrics
from appliance.httpserver import ClientProtocol
from appliance.keys import Keys, ensure_key
from appliance.lan import in_container, lan_addresses, lan_urls, machine_names
from appliance.launch import Extras
from appliance.lifecycle import EngineState
from appliance.metrics import Metrics
from appliance.prompt import PromptPolicy
from appliance.relay import Relay
from appliance.settings import Settings
from appliance.statefile import write_private
from appliance.supervisor import Supervisor
from appliance.tokenizerwatch import TokenizerWatch
from appliance.tree import become_subreaper
from appliance.weblogin import Logins

log = structlog.get_logger()

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
    keep_large_blocks()
    policy = load_prompt(settings)
    extras = find_extras()
    certified = _check_certificate(settings) if settings.tls_cert or settings.tls_key else ()
    with (
        contextlib.closing(StateFolder(settings.state_dir)) as state,
        bind(settings.host, settings.port) as listener,
    ):
        own = machine_names(is_boxed=in_container())
        hosts = Hosts((*own, *settings.allowed_hosts, *certified))
        return await _serve(settings, policy, extras, state, listener, hosts, hook)


def _check_certificate(settings: Settings) -> tuple[str, ...]:
    """Warn of what is wrong with the certificate; return the names that it is for."""
    from appliance.tls import load_identity, now_utc  # 9 MB that plain HTTP does not need

    identity = load_identity(settings.tls_cert, settings.tls_key, now_utc())
    for what, hint in identity.warnings(now_utc()) if identity else ():
        log.warning("appliance.certificate", what=what, next=hint)
    return identity.names if identity else ()


async def _serve(
    settings: Settings,
    policy: PromptPolicy,
    extras: Extras,
    state: StateFolder,
    listener: socket.socket,
    hosts: Hosts,
    hook: Hook | None,
) -> int:
    keys = _keys(settings, state)
    host = HostMetrics()
    metrics = Metrics(host)
    gate = Gate(settings.max_num_seqs, settings.max_waiting)
    metrics.limit.labels("running").set(settings.max_num_seqs)
    metrics.limit.labels("waiting").set(settings.max_waiting)
    engine, incidents = await build_engine(settings, extras, policy, metrics, state)
    relay = build_relay(settings, engine, gate, policy, metrics)
    become_subreaper()
    if isinstance(engine, Supervisor):
        engine.traffic = lambda: traffic(gate, relay)
    gate.on_idle = _rest(engine, gate)
    engine.listen(lambda snapshot: follow(gate, snapshot, engine))
    tokenizer = TokenizerWatch(engine, settings, metrics.tokenizer_mismatches.set)
    engine.listen(tokenizer.follow)
    build = engine_facts(settings.engine_command) if settings.engine == "spawn" else None
    control = Control(engine, gate, settings, metrics, hosts, incidents, build)
    logins = Logins(settings.login_idle_s, settings.login_s)
    app = build_app(Parts(control, relay, metrics, keys, logins))
    base_url = _address(settings, listener)
    write_private(state.address, f"{base_url}\n".encode())  # whole as soon as it is there
    log.info("appliance.listening", url=base_url, model=settings.served_model_name)
    _tell_network(settings, listener)
    if settings.engine == "spawn" and settings.memory_guards and (why := pin_memory()):
        log.debug("guard.not_pinned", why=why, next="raise the limit on locked memory")
    running = Running(settings, base_url, keys, engine, gate)
    following = asyncio.create_task(_follow_operator_key(keys, logins, control.cut))
    with contextlib.closing(host):
        try:
            return await _Session(running, app, listener, state.socket, hook, control.end).run()
        finally:
            following.cancel()
            await tokenizer.end()


async def _follow_operator_key(keys: Keys, logins: Logins, cut: Callable[[], None]) -> None:
    """Take a new operator key from its file within a second, and end all log-ins of the old one."""
    while True:
        await asyncio.sleep(LOOK_S)
        if keys.look():
            logins.end_all()
            cut()
            log.info("keys.operator_changed", is_there=bool(keys.operator))


def _rest(engine: Engine, gate: Gate) -> Callable[[], None]:
    trimmer = Trimmer(lambda: gate.running == 0)

    def rest() -> None:
        engine.idled()
        trimmer.rest()

    return rest


def traffic(gate: Gate, relay: Relay) -> Traffic:
    """Return what the relay carries now."""
    return Traffic(
        running=gate.running,
        sending=relay.sending,
        waiting=gate.waiting,
        largest_bytes=relay.largest_in_flight(),
        chunks=relay.chunks_received,
    )


def follow(gate: Gate, snapshot: Snapshot, engine: Engine) -> None:
    """Set the gate as the engine's state asks."""
    if is_admitting(snapshot):
        gate.open()
    elif snapshot.is_short or snapshot.is_coming:
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
    named = KeyFile(settings.client_keys or state.client_keys)
    return Keys(client, operator, named, None if settings.operator_key else state.operator_key)


def _address(settings: Settings, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"{_scheme(settings)}://{host}:{port}"


def _scheme(settings: Settings) -> str:
    return "https" if settings.tls_cert else "http"


def _tell_network(settings: Settings, listener: socket.socket) -> None:
    """Say where the network finds us, and that it can read along."""
    boxed = in_container()
    host, port = listener.getsockname()[:2]
    # A container listens on all of its own addresses: what it is open to, its port's mapping says.
    if settings.listen != "lan" and (boxed or is_loopback(host)):
        return
    urls = lan_urls(_scheme(settings), port, () if boxed else lan_addresses())
    log.info("appliance.on_the_network", urls=urls)
    if not settings.tls_cert:
        log.warning(
            "appliance.plain_http",
            why="whoever is on the network can read keys, prompts and answers",
            next="appliance cert, then APPLIANCE_TLS_CERT and APPLIANCE_TLS_KEY as it says",
        )


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
        settings = self.running.settings
        # who may open the socket's file is on this machine: nobody reads along there
        tls = {} if where else {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}
        config = uvicorn.Config(
            app,
            http=ClientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # whoever asks is told by a key, not by an address
            timeout_graceful_shutdown=CLOSE_S,
            **tls,  # type: ignore[arg-type]
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
