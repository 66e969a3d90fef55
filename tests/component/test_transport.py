"""Connections to an engine: kept, taken back, dropped in time, and shut at once on leaving."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from appliance.connection import HEAD_LIMIT, HELD_LIMIT, Reply
from appliance.transport import IDLE_S, FastTransport, Pool
from tests.appliance_tasks import eventually
from tests.appliances import WITHIN_S
from tests.component.test_engine_replies import SSE, plain

ASK = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
Talk = Callable[["Peer", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Peer:
    """A server that speaks as the test wants; it counts its connections and what they asked."""

    talk: Talk
    connections: int = 0
    asked: int = 0
    open: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)
    pool: Pool = field(init=False)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            await self.talk(self, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def request(self, reader: asyncio.StreamReader) -> None:
        """Read one request that has no body."""
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1

    async def sees(self, condition: Callable[[], bool], what: str) -> None:
        async def there() -> bool:
            return condition()

        await eventually(there, what)


@asynccontextmanager
async def peer(talk: Talk, idle_s: float = IDLE_S) -> AsyncIterator[Peer]:
    it = Peer(talk)
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    it.pool = Pool("127.0.0.1", port, idle_s=idle_s)
    it.url = f"http://127.0.0.1:{port}"
    async with server:
        yield it
        it.pool.close()
        await it.sees(lambda: it.open == 0 and it.pool.open == 0, "every connection to be shut")


async def polite(it: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await it.request(reader)
        writer.write(plain("200 OK", b"whole"))


async def silent(it: Peer, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await it.request(reader)
    await reader.read()


async def once(it: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request; close under the second, before a byte of its answer."""
    await it.request(reader)
    writer.write(plain("200 OK", b"whole"))
    await it.request(reader)


async def ask(pool: Pool) -> bytes:
    reply = await pool.ask(ASK, within_s=WITHIN_S, connect_s=WITHIN_S)
    try:
        return await reply.read(WITHIN_S)
    finally:
        reply.close()


# ---- kept connections


async def test_a_connection_serves_one_request_after_another() -> None:
    async with peer(polite) as engine:
        for _ in range(5):
            assert await ask(engine.pool) == b"whole"
        assert (engine.connections, engine.asked) == (1, 5)


async def test_as_many_connections_as_requests_at_once_and_all_are_kept() -> None:
    async with peer(polite) as engine:
        replies = [await engine.pool.ask(ASK) for _ in range(20)]
        assert engine.pool.idle == 0
        for reply in replies:
            assert await reply.read() == b"whole"
            reply.close()
        assert engine.pool.idle == engine.pool.open == engine.connections == 20
        assert await ask(engine.pool) == b"whole"
        assert engine.connections == 20


async def test_an_idle_connection_that_the_engine_shuts_is_not_taken() -> None:
    async def brief(it: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await it.request(reader)
        writer.write(plain("200 OK", b"whole"))

    async with peer(brief) as engine:
        for number in range(1, 4):
            assert await ask(engine.pool) == b"whole"
            assert engine.connections == number
            await engine.sees(lambda: engine.pool.open == 0, "the engine's close to be seen")


async def test_a_kept_connection_that_shuts_under_a_request_is_tried_no_more_than_once() -> None:
    async with peer(once) as engine:
        assert await ask(engine.pool) == b"whole"
        assert await ask(engine.pool) == b"whole"  # the first connection took it, and shut
        assert (engine.connections, engine.asked) == (2, 3)


async def test_a_new_connection_that_shuts_is_a_fault_at_once() -> None:
    async def mute(it: Peer, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await it.request(reader)

    async with peer(mute) as engine:
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(engine.pool)
        assert engine.asked == 1


async def test_a_kept_connection_that_breaks_within_an_answer_is_not_tried_again() -> None:
    async def half(it: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await it.request(reader)
        writer.write(plain("200 OK", b"whole"))
        await it.request(reader)
        writer.write(b"HTTP/1.1 200")

    async with peer(half) as engine:
        assert await ask(engine.pool) == b"whole"
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(engine.pool)
        assert engine.asked == 2


async def test_idle_connections_are_dropped() -> None:
    async with peer(polite, idle_s=0.05) as engine:
        replies = [await engine.pool.ask(ASK) for _ in range(3)]
        for reply in replies:
            await reply.read()
            reply.close()
        await engine.sees(lambda: engine.open == 0 and engine.pool.open == 0, "an empty pool")
        assert await ask(engine.pool) == b"whole"
        assert engine.connections == 4


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nwhole",
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nwhole",
        plain("200 OK", b"whole") + plain("200 OK", b"unasked"),
        plain("200 OK", b"whole") + b"rubbish",
    ],
    ids=["close", "1.0", "two replies", "rubbish"],
)
async def test_a_connection_that_may_not_be_kept_is_shut(reply: bytes) -> None:
    async def speak(it: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await it.request(reader)
        writer.write(reply)
        await reader.read()

    async with peer(speak) as engine:
        assert await ask(engine.pool) == b"whole"
        await engine.sees(lambda: engine.open == 0, "our close")
        assert engine.pool.idle == 0


async def test_a_connection_that_speaks_unasked_is_shut() -> None:
    async def chatty(it: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await it.request(reader)
        writer.write(plain("200 OK", b"whole"))
        await it.go.wait()
        writer.write(plain("200 OK", b"unasked"))
        await reader.read()

    async with peer(chatty) as engine:
        assert await ask(engine.pool) == b"whole"
        engine.go.set()
        await engine.sees(lambda: engine.pool.open == 0, "our close")


# ---- leaving


async def test_leaving_before_the_head_shuts_the_connection() -> None:
    async with peer(silent) as engine:
        asking = asyncio.create_task(ask(engine.pool))
        await engine.sees(lambda: engine.asked == 1, "the request")
        asking.cancel()
        await engine.sees(lambda: engine.open == 0, "our close")


async def endless(it: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await it.request(reader)
    writer.write(SSE)
    while True:
        writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        await writer.drain()


async def test_leaving_within_the_body_shuts_the_connection() -> None:
    async with peer(endless) as engine:
        reply = await engine.pool.ask(ASK)
        assert engine.open == 1
        reply.close()
        await engine.sees(lambda: engine.open == 0, "our close")


async def test_closing_the_pool_ends_what_is_under_way() -> None:
    async with peer(silent) as engine:
        asking = asyncio.create_task(ask(engine.pool))
        await engine.sees(lambda: engine.asked == 1, "the request")
        engine.pool.close()
        with pytest.raises(httpx.TransportError):
            await asking
        with pytest.raises(httpx.ConnectError):
            await ask(engine.pool)


# ---- limits


async def test_no_head_in_time_is_a_read_timeout() -> None:
    async with peer(silent) as engine:
        with pytest.raises(httpx.ReadTimeout, match=r"0\.02 s"):
            await engine.pool.ask(ASK, within_s=0.02)
        await engine.sees(lambda: engine.open == 0, "our close")


async def test_nothing_more_in_time_is_a_read_timeout() -> None:
    async def head(it: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await it.request(reader)
        writer.write(SSE)
        await reader.read()

    async with peer(head) as engine:
        reply = await engine.pool.ask(ASK)
        with pytest.raises(httpx.ReadTimeout):
            await reply.read(0.02)
        reply.close()
        await engine.sees(lambda: engine.open == 0, "our close")


@pytest.mark.parametrize("piece", [b"x-long: " + b"y" * 2 * HEAD_LIMIT, b"a: b\r\n" * HEAD_LIMIT])
async def test_a_head_without_end_is_refused(piece: bytes) -> None:
    async def long(it: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await it.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + piece + b"\r\n\r\n")
        await reader.read()

    async with peer(long) as engine:
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(engine.pool)
        await engine.sees(lambda: engine.open == 0, "our close")


async def test_an_engine_is_held_back_while_nobody_takes_what_it_says() -> None:
    written = 0

    async def flood(it: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await it.request(reader)
        writer.write(SSE)
        for _ in range(1024):
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()
            written += 0x10000
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async with peer(flood) as engine:
        reply: Reply = await engine.pool.ask(ASK)
        await engine.sees(lambda: written > HELD_LIMIT, "the engine to write")
        before = -1
        while before != written:  # until the sockets' buffers are full too
            before = written
            await ask_elsewhere(engine)
        assert written < 1024 * 0x10000
        assert len(await reply.read(WITHIN_S)) == 1024 * 0x10000
        reply.close()


async def ask_elsewhere(engine: Peer) -> None:
    """Give the loop some hundred turns, in which a flood would go on."""
    for _ in range(500):
        await asyncio.sleep(0)


async def test_a_sink_that_pauses_is_given_nothing_until_it_goes_on() -> None:
    got: list[bytes] = []

    async with peer(endless) as engine:
        reply = await engine.pool.ask(ASK)

        def sink(data: bytes) -> None:
            got.append(data)
            reply.pause()

        pushing = asyncio.create_task(reply.push(sink))
        for count in range(1, 5):
            await engine.sees(lambda count=count: len(got) == count, "a piece")  # type: ignore[misc]
            await ask_elsewhere(engine)
            assert len(got) == count
            reply.resume()
        reply.fail(httpx.ReadError("enough"))
        with pytest.raises(httpx.ReadError, match="enough"):
            await pushing
        reply.close()


async def test_a_refused_connection_is_a_connect_error() -> None:
    async with peer(polite) as engine:
        pool = engine.pool
    with pytest.raises(httpx.ConnectError):
        await Pool("127.0.0.1", int(engine.url.rpartition(":")[2])).ask(ASK)
    assert pool.open == 0


# ---- through httpx


async def test_httpx_speaks_through_it_with_bodies_of_any_size() -> None:
    bodies: list[bytes] = []

    async def echo(it: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length: ")[2].split()[0])
            bodies.append(await reader.readexactly(length))
            writer.write(plain("200 OK", b"whole"))

    async with (
        peer(echo) as engine,
        httpx.AsyncClient(transport=FastTransport(), base_url=engine.url) as client,
    ):
        for content in (b"small", b"y" * 3_000_000):
            reply = await client.post("/", content=content, timeout=WITHIN_S)
            assert reply.text == "whole"
        assert bodies == [b"small", b"y" * 3_000_000]
        assert engine.connections == 1


async def test_a_body_in_parts_is_refused_before_anything_is_sent() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"z"

    async with (
        peer(polite) as engine,
        httpx.AsyncClient(transport=FastTransport(), base_url=engine.url) as client,
    ):
        with pytest.raises(httpx.LocalProtocolError, match="whole"):
            await client.post("/", content=parts(), timeout=WITHIN_S)
        assert engine.connections == 0
