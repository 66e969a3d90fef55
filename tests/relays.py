"""The relay alone, over an engine of bytes and a gate that the test itself opens and shuts."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import httpx
import uvicorn
from starlette.types import Receive, Scope, Send

from appliance.admission import Gate
from appliance.bodies import Bodies
from appliance.engine import Engine, Snapshot
from appliance.exchange import Exchange
from appliance.httpserver import ClientProtocol
from appliance.keepalive import Waits
from appliance.metrics import Metrics
from appliance.openai import ROUTES
from appliance.pathconstraint import PathConstraints
from appliance.pathrepair import Mode
from appliance.pathwatch import PathGuards
from appliance.prompt import PromptPolicy
from appliance.relay import Relay
from appliance.reply import NO_WATCH, Replies
from appliance.restart import Reason
from appliance.stream import Care, Watch
from appliance.upstream import Upstream
from tests.appliance_tasks import eventually
from tests.appliances import CHAT, NO_TLS, WITHIN_S, metric
from tests.component.test_engine_replies import DONE, PIECE, Script, chunked, plain
from tests.engines import MODEL

T = TypeVar("T")

MESSAGES = "/v1/messages"
COMMENT = b": keep-alive\n\n"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
KEEP_ALIVES = {CHAT: COMMENT, "/v1/completions": COMMENT, "/v1/responses": COMMENT, MESSAGES: PING}
ANSWER = chunked(PIECE, DONE)
SOON: dict[str, Any] = {"head_after_s": 0.05, "keepalive_s": 0.02}
NEVER: dict[str, Any] = {"head_after_s": 600.0, "keepalive_s": 600.0}


@dataclass
class Mortal(Script):
    """An engine of bytes that can hold its answers, be ill, and die."""

    health: str = "200 OK"
    asked: list[str] = field(default_factory=list)
    free: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> "Mortal":
        """Answer from now on."""
        self.free.set()
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        self.upstream = Upstream(self.url, "key")
        return self

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, once the test lets it."""
        await self.free.wait()
        await super().serve(reader, writer)

    def answer(self, path: str) -> bytes:
        """Answer as told, and note what was asked."""
        if path == "/health":
            return plain(self.health, b"")
        self.asked.append(path)
        return self.reply

    def die(self) -> None:
        """Refuse connections from now on."""
        self.server.close()

    async def end(self) -> None:
        """Leave no socket."""
        self.die()
        await self.upstream.close()


@dataclass
class Heard:
    """What a client heard of a stream, and whether it ended as HTTP should."""

    status: int
    headers: httpx.Headers
    body: bytes = b""
    ended_well: bool = False

    def said(self, path: str = CHAT) -> bytes:
        """Return what was said but for each keep-alive; it began with one."""
        keep_alive = KEEP_ALIVES[path]
        assert self.status == 200
        assert self.body.startswith(keep_alive)
        return self.body.replace(keep_alive, b"")


@dataclass
class Box:
    """A relay that listens, its gate shut at first, its engine, and a client.

    To the relay it is the engine. ``beats`` counts each keep-alive, of all requests.
    """

    gate: Gate
    engine: Mortal
    metrics: Metrics = field(default_factory=Metrics)
    beats: int = 0
    expected_s: float = 0.0
    max_model_len: int | None = None
    relay: Relay = field(init=False)
    client: httpx.AsyncClient = field(init=False)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    @property
    def upstream(self) -> Upstream:
        """The engine as the relay sees it."""
        return self.engine.upstream

    @property
    def snapshot(self) -> Snapshot:
        """The engine's state as the relay sees it: ready while the gate is open."""
        why = Reason("test")
        return Snapshot(
            "ready", why, 0.0, is_ready=self.gate.is_open, max_model_len=self.max_model_len
        )

    def beat(self) -> None:
        """Count one keep-alive."""
        self.beats += 1

    def count(self, name: str, **labels: str) -> float:
        """Return one of the relay's counters."""
        return metric(self.metrics.text().decode(), f"appliance_{name}_total", **labels)

    async def sees(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a state, with a deadline."""

        async def there() -> bool:
            return condition()

        await eventually(there, what)

    async def waits(self, count: int) -> None:
        """Wait until so many wait at the gate."""
        await self.sees(lambda: self.gate.waiting == count, f"{count} to wait")

    async def runs(self, count: int) -> None:
        """Wait until so many hold a place."""
        await self.sees(lambda: self.gate.running == count, f"{count} to run")

    async def beaten(self, count: int) -> None:
        """Wait until a keep-alive has been sent so often."""
        await self.sees(lambda: self.beats >= count, f"a keep-alive {count} times")

    def stream(self, path: str = CHAT, **more: object) -> asyncio.Task[Heard]:
        """Ask for a stream."""
        return self.spawn(self._stream(path, more))

    def whole(self, **more: object) -> asyncio.Task[httpx.Response]:
        """Ask for a whole reply."""
        return self.spawn(self.client.post(CHAT, json={"model": MODEL, **more}))

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something meanwhile; it is awaited before the box ends."""
        task = asyncio.create_task(work)
        self.tasks.append(task)
        return task

    async def _stream(self, path: str, more: dict[str, object]) -> Heard:
        body = {"model": MODEL, "stream": True, **more}
        headers = {"x-request-id": "mine"}
        async with self.client.stream("POST", path, json=body, headers=headers) as reply:
            heard = Heard(reply.status_code, reply.headers)
            try:
                async for part in reply.aiter_raw():
                    heard.body += part
                heard.ended_well = True
            except httpx.RemoteProtocolError:
                pass
        return heard


async def reborn(box: Box, reply: bytes = ANSWER) -> Mortal:
    """Let the engine be another one, at another address."""
    await box.engine.end()
    box.engine = await Mortal(reply=reply).listen()
    return box.engine


@asynccontextmanager
async def front(
    gate: Gate | None = None,
    /,
    *,
    engine: Mortal | None = None,
    care: Care | None = None,
    watch: Callable[[Exchange], Watch | None] = NO_WATCH,
    path_mode: Mode = Mode.OFF,
    **waits: float,
) -> AsyncIterator[Box]:
    """Run a relay over a mortal engine; at the end nobody runs in it and nobody waits."""
    box = Box(gate or Gate(1, 64), await (engine or Mortal(reply=ANSWER)).listen())
    lengths: dict[str, Any] = {"queue_timeout_s": WITHIN_S, **SOON, **waits}
    lengths.setdefault("admit_wait_s", lengths["queue_timeout_s"])
    guards = PathGuards(box.metrics)
    constraints = PathConstraints(box.metrics, guards.reader)
    box.relay = Relay(
        cast(Engine, box),
        box.gate,
        Bodies(
            PromptPolicy(""),
            box.metrics,
            served_model=MODEL,
            max_body_bytes=1_000_000,
            path_mode=path_mode,
        ),
        Replies(box.metrics, care, watch, guards.watch, constraints.make),
        Waits(**lengths),
        box.metrics,
        expected_s=lambda: box.expected_s,
        on_keepalive=box.beat,
    )
    async with listening(box.relay) as url:
        http = httpx.AsyncClient(base_url=url, timeout=WITHIN_S, trust_env=False, verify=NO_TLS)
        async with http as box.client:
            yield box
            await asyncio.gather(*box.tasks, return_exceptions=True)
        await box.runs(0)
        await box.waits(0)
    await box.engine.end()
    assert box.relay.largest_in_flight() == 0


@asynccontextmanager
async def listening(relay: Relay) -> AsyncIterator[str]:
    """Serve a relay's routes without a door; yield the address."""
    routes = {route.path: route for route in ROUTES}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await relay.carry(routes[scope["path"]], scope, receive, send)

    config = uvicorn.Config(
        app, http=ClientProtocol, ws="none", lifespan="off", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))

        async def started() -> bool:
            return server.started

        await eventually(started, "the relay to listen")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving
