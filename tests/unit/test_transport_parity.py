"""Our transport and httpx's own, given the same bytes in the same pieces, tell the same."""

import asyncio
from itertools import pairwise
from typing import Any, cast

import httpcore
import httpx
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.connection import Connection
from appliance.transport import FastTransport, Pool

Outcome = tuple[int, list[tuple[str, str]], bytes] | type[Exception]


class Wire(asyncio.Transport):
    """A socket whose peer answers the first byte of a request with these pieces, and closes."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__()
        self.pieces = pieces
        self.closed = False
        self.asked = False
        self.connection: Connection

    def write(self, data: Any) -> None:
        if not self.asked:
            self.asked = True
            asyncio.get_running_loop().call_soon(self.answer)

    def answer(self) -> None:
        if self.closed:
            return
        if self.pieces:
            self.connection.data_received(self.pieces.pop(0))
            asyncio.get_running_loop().call_soon(self.answer)
        else:
            self.abort()

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0


class Wired(Pool):
    """A pool whose connections are such sockets."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__("engine", 80)
        self.pieces = pieces

    async def _connect(self, within_s: float | None) -> Connection:
        wire = Wire(self.pieces)
        wire.connection = Connection(self._keep, self._all.discard)
        wire.connection.connection_made(wire)
        self._all.add(wire.connection)
        return wire.connection


async def outcome(transport: httpx.AsyncBaseTransport) -> Outcome:
    async with httpx.AsyncClient(transport=transport) as client:
        try:
            reply = await client.post("http://engine/x", content=b"asked")
        except httpx.TransportError as error:
            return type(error)
        headers = [(name.lower(), value) for name, value in reply.headers.multi_items()]
        return reply.status_code, headers, reply.content


def ours(pieces: list[bytes]) -> Outcome:
    transport = FastTransport()
    transport._pools[(b"http", b"engine", None)] = Wired(list(pieces))
    return asyncio.run(outcome(transport))


def stock(pieces: list[bytes]) -> Outcome:
    transport = httpx.AsyncHTTPTransport(verify=False)
    backend = httpcore.AsyncMockBackend([*pieces, b""])
    transport._pool = httpcore.AsyncConnectionPool(network_backend=cast(Any, backend))
    return asyncio.run(outcome(transport))


BODY = st.binary(max_size=80)
INTERIM = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    """A whole reply, framed in one of the three ways."""
    status = draw(st.sampled_from([b"200 OK", b"404 Not Found", b"503 ", b"307 X"]))
    lead = draw(st.sampled_from([b"", b"", INTERIM, INTERIM * 2]))
    close = draw(st.sampled_from([b"", b"connection: close\r\n", b"Connection: keep-alive\r\n"]))
    head = lead + b"HTTP/1.1 " + status + b"\r\nserver: t\r\nx-a: 1\r\nx-a: 2\r\n" + close
    kind = draw(st.sampled_from(["length", "chunked", "end", "none"]))
    if kind == "length":
        body = draw(BODY)
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    if kind == "chunked":
        parts = draw(st.lists(BODY.filter(bool), max_size=4))
        trailer = draw(st.sampled_from([b"", b"x-t: 1\r\n"]))
        chunks = b"".join(b"%X\r\n%b\r\n" % (len(part), part) for part in parts)
        return head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n"
    if kind == "end":
        return head + b"\r\n" + draw(BODY)
    return lead + b"HTTP/1.1 204 No Content\r\n\r\n"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(at)]


CUTS = st.lists(st.integers(0, 10_000), max_size=8)


@given(replies(), CUTS)
@example(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", list(range(60)))
def test_a_whole_reply_in_any_pieces_is_the_same(reply: bytes, places: list[int]) -> None:
    pieces = cut(reply, places)
    told = ours(pieces)
    assert told == stock(pieces)
    assert isinstance(told, tuple)


@given(replies(), st.integers(0, 10_000), CUTS)
def test_a_torn_reply_fails_in_the_same_way(reply: bytes, end: int, places: list[int]) -> None:
    pieces = cut(reply[: end % len(reply)], places)
    assert ours(pieces) == stock(pieces)


@given(st.binary(min_size=1, max_size=60), CUTS)
@example(b"SSH-2.0-OpenSSH\r\n", [])
@example(b"HTTP/1.1 2000 OK\r\n\r\n", [])
@example(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", [])
def test_what_is_no_http_is_a_fault_and_never_a_reply(noise: bytes, places: list[int]) -> None:
    told = ours(cut(noise, places))
    assert isinstance(told, type)
    assert issubclass(told, httpx.TransportError)
