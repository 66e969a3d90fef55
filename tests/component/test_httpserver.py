"""The server's side of a connection: who is slow, who is too many, and who leaves early."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from appliance import httpserver
from appliance.httpserver import MOST_FOLLOWING, UNASKED_BYTES, ClientProtocol, most_connections
from tests.appliance_tasks import eventually
from tests.appliances import WITHIN_S

App = Callable[[Scope, Receive, Send], Awaitable[None]]
OK = (
    {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]},
    {"type": "http.response.body", "body": b"ok"},
)
PING = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def post(length: int) -> bytes:
    return b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % length


class Hasty(ClientProtocol):
    head_s = 0.2
    body_s = 0.2


@dataclass
class Site:
    port: int
    server: uvicorn.Server
    messages: list[Message] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    @property
    def open(self) -> int:
        return len(self.server.server_state.connections)


@asynccontextmanager
async def site(app: App, protocol: type[ClientProtocol] = ClientProtocol) -> AsyncIterator[Site]:
    config = uvicorn.Config(
        app, port=0, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment]
    serving = asyncio.create_task(server.serve())

    async def listens() -> bool:
        return server.started

    await eventually(listens, "the server to listen")
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Site(port, server)
    finally:
        server.should_exit = server.force_exit = True
        await serving


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    for message in OK:
        await send(message)


async def taken(receive: Receive) -> list[bytes]:
    """Return the pieces in which a body came."""
    pieces = []
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        pieces.append(message["body"])
        if not message.get("more_body"):
            return pieces


async def ended(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(WITHIN_S):
        return await reader.read()


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost:"])
async def test_a_head_that_does_not_come_is_not_waited_for(sent: bytes) -> None:
    async with site(answer, Hasty) as it:
        reader, writer = await it.connect()
        writer.write(sent)
        assert (await ended(reader)).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_a_body_that_stops_is_not_waited_for_and_its_reader_learns_of_it() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while not seen or seen[-1] != "http.disconnect":
            seen.append((await receive())["type"])

    async with site(app, Hasty) as it:
        reader, writer = await it.connect()
        writer.write(post(100) + b"some")
        assert await ended(reader) == b""
        writer.close()

        async def told() -> bool:
            return seen[-1:] == ["http.disconnect"]

        await eventually(told, "the reader to be told")


async def test_who_is_not_read_from_is_not_late() -> None:
    asked = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asked.wait()
        assert sum(map(len, await taken(receive))) == 4_000_000
        await answer(scope, receive, send)

    async with site(app, Hasty) as it:
        reader, writer = await it.connect()
        writer.write(post(4_000_000) + b"x" * 4_000_000)
        early = asyncio.ensure_future(reader.readuntil(b"ok"))
        await asyncio.wait({early}, timeout=3 * Hasty.body_s)
        assert not early.done()
        asked.set()
        assert b"200 OK" in await early
        writer.close()


async def test_an_idle_connection_between_two_requests_is_not_late() -> None:
    async with site(answer, Hasty) as it:
        reader, writer = await it.connect()
        for _ in range(2):
            writer.write(PING)
            assert b"200 OK" in await reader.readuntil(b"ok")
        writer.close()


async def test_a_large_body_wakes_its_reader_a_few_times() -> None:
    pieces: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pieces.extend(await taken(receive))
        await answer(scope, receive, send)

    async with site(app) as it:
        reader, writer = await it.connect()
        writer.write(post(900_000) + b"x" * 900_000)
        assert b"200 OK" in await reader.readuntil(b"ok")
        assert sum(map(len, pieces)) == 900_000
        assert len(pieces) <= 3
        writer.close()


async def test_of_a_body_that_nobody_asks_for_little_is_kept() -> None:
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await answer(scope, receive, send)

    async with site(app) as it:
        _, writer = await it.connect()
        writer.write(post(50_000_000))

        async def fills() -> None:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()

        filling = asyncio.create_task(fills())

        async def stands_still() -> bool:
            connections = it.server.server_state.connections
            return any(c.flow.read_paused for c in connections)  # type: ignore[union-attr]

        await eventually(stands_still, "reading to pause")
        (one,) = it.server.server_state.connections
        assert len(one.cycle.body) <= UNASKED_BYTES + 256_000  # type: ignore[union-attr]
        filling.cancel()
        go.set()
        writer.close()


async def test_who_is_one_too_many_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpserver, "MOST_CONNECTIONS", 2)
    assert most_connections() == 2
    async with site(answer) as it:
        kept = [await it.connect() for _ in range(2)]
        for reader, writer in kept:
            writer.write(PING)
            await reader.readuntil(b"ok")
        reader, writer = await it.connect()
        told = await ended(reader)
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 5" in told
        for _, one in (*kept, (reader, writer)):
            one.close()


async def test_a_second_request_does_not_hide_that_the_client_leaves() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while seen[-1:] != ["http.disconnect"]:
            seen.append((await receive())["type"])

    async with site(app) as it:
        _, writer = await it.connect()
        writer.write(PING + PING)

        async def is_asked() -> bool:
            return bool(seen)

        await eventually(is_asked, "the first request")
        writer.close()

        async def told() -> bool:
            return seen[-1:] == ["http.disconnect"]

        await eventually(told, "the hang-up to be seen")


async def test_requests_in_a_row_are_answered_in_their_order_and_too_many_are_cut_off() -> None:
    async with site(answer) as it:
        reader, writer = await it.connect()
        writer.write(PING * 5)
        for _ in range(5):
            await reader.readuntil(b"ok")
        writer.close()
    go = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()

    async with site(slow) as it:
        reader, writer = await it.connect()
        writer.write(PING * (MOST_FOLLOWING + 3))
        with contextlib.suppress(ConnectionError):  # reset, or just ended
            assert await ended(reader) == b""
        go.set()
        writer.close()


async def test_a_head_does_not_wait_for_what_comes_after_it() -> None:
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(OK[0])
        await go.wait()
        await send(OK[1])

    async with site(app) as it:
        reader, writer = await it.connect()
        writer.write(PING)
        async with asyncio.timeout(WITHIN_S):
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        go.set()
        assert await reader.readexactly(2) == b"ok"
        writer.close()


async def test_a_head_that_is_held_back_when_the_client_leaves_is_written_to_nobody() -> None:
    class Gone(asyncio.Transport):
        written: tuple[bytes, ...] = ()
        left = False

        def is_closing(self) -> bool:
            return self.left

        def pause_reading(self) -> None: ...
        def resume_reading(self) -> None: ...

        def write(self, data: bytes | bytearray | memoryview) -> None:
            assert not self.left
            self.written += (bytes(data),)

    loop = asyncio.get_running_loop()
    for leaves in (False, True):
        there = Gone()
        held = httpserver._HeadFirst(there, loop)
        held.write(b"HTTP/1.1 200 OK\r\n\r\n")
        assert there.written == ()
        there.left = leaves
        await asyncio.sleep(0)
        assert bool(there.written) is not leaves
