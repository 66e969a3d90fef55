"""The fake engine's HTTP: a small HTTP/1.1 server with a hand on every socket.

A framework would not let a handler stop in the middle of a chunk, close without the terminal
chunk, or say when the peer left. What goes over the wire otherwise is what uvicorn sends.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

import httptools

NO_BODY = b""


@dataclass
class Request:
    """One request, its body complete. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """A whole answer."""

    status: int = 200
    body: bytes = NO_BODY
    content_type: str | None = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Stream:
    """An answer in pieces: each one becomes one HTTP chunk."""

    events: AsyncIterator[bytes]


def json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    """Return a JSON answer in the compact form of Starlette."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Reply(status, text.encode(), headers=headers or {})


class Exchange:
    """The answering side of one request: write the head, then pieces, then the end."""

    def __init__(self, connection: "Connection", request: Request) -> None:
        self.connection = connection
        self.request = request
        self.chunks_sent = 0

    async def send(self, reply: Reply) -> None:
        """Send a whole answer."""
        self.connection.write(_head(reply) + reply.body)
        await self.connection.drained()

    async def send_half(self, reply: Reply) -> None:
        """Promise the whole answer, send half of its body."""
        self.connection.write(_head(reply) + reply.body[: len(reply.body) // 2])
        await self.connection.drained()

    async def start_stream(self) -> None:
        """Send the head of a stream of server-sent events."""
        kind = "text/event-stream; charset=utf-8"
        head = {"content-type": kind, "transfer-encoding": "chunked"}
        self.connection.write(_status_and_headers(200, head))
        await self.connection.drained()

    async def send_chunk(self, data: bytes) -> None:
        """Send one HTTP chunk."""
        self.connection.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.chunks_sent += 1
        await self.connection.drained()

    async def end_stream(self) -> None:
        """Send the terminal chunk."""
        self.connection.write(b"0\r\n\r\n")
        await self.connection.drained()

    def gibber(self) -> None:
        """Answer with bytes that are no HTTP, and close."""
        self.connection.write(b"\x00\xff no HTTP \x15\x03\x01\r\n\r\n")
        self.connection.close()

    def tear(self) -> None:
        """Close the connection in the middle of the answer; what was written still arrives."""
        self.connection.close()


Handler = Callable[[Exchange], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One client connection: requests are answered one after the other.

    When the client leaves, the task that answers is cancelled at once.
    """

    def __init__(self, handler: Handler, on_abort: Callable[[Exchange], None]) -> None:
        self._handler = handler
        self._on_abort = on_abort
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._writable = asyncio.Event()
        self._writable.set()
        self._pending: list[tuple[Request, bool]] = []
        self._task: asyncio.Task[None] | None = None
        self._url = NO_BODY
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Feed the parser; nonsense gets 400 and the door."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            bad = Reply(400, b"Invalid HTTP request received.", "text/plain; charset=utf-8")
            self.write(_head(bad, keep_alive=False))
            self.write(bad.body)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop answering a client that has left."""
        self._writable.set()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """The client reads slower than we write."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client caught up."""
        self._writable.set()

    # httptools callbacks

    def on_message_begin(self) -> None:
        """A request starts."""
        self._url, self._headers, self._body = NO_BODY, {}, []

    def on_url(self, url: bytes) -> None:
        """Collect the target (it may come in pieces)."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect one header."""
        key = name.decode("latin-1").lower()
        self._headers[key] = value.decode("latin-1")
        if key == "expect" and value.lower() == b"100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Collect a piece of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer the request, or queue it behind the one being answered."""
        method = self._parser.get_method().decode("ascii")
        path = httptools.parse_url(self._url).path.decode("latin-1")
        request = Request(method, path, self._headers, b"".join(self._body))
        self._pending.append((request, self._parser.should_keep_alive()))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._answer())

    # for Exchange

    def write(self, data: bytes) -> None:
        """Write, unless the connection is already closing."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def drained(self) -> None:
        """Wait until the client's buffers have room."""
        await self._writable.wait()

    def close(self) -> None:
        """Close after what was written has been sent."""
        if self._transport is not None:
            self._transport.close()

    async def _answer(self) -> None:
        while self._pending:
            request, keep_alive = self._pending.pop(0)
            exchange = Exchange(self, request)
            try:
                await self._handler(exchange)
            except asyncio.CancelledError:
                self._on_abort(exchange)
                raise
            except Exception:
                self.close()  # a bug in the fake must not look like a stalled engine
                raise
            if not keep_alive:
                self.close()
        self._task = None


def _head(reply: Reply, keep_alive: bool = True) -> bytes:
    headers = {"content-length": str(len(reply.body))}
    if reply.content_type is not None and reply.body:
        headers["content-type"] = reply.content_type
    if not keep_alive:
        headers["connection"] = "close"
    return _status_and_headers(reply.status, headers | reply.headers)


def _status_and_headers(status: int, headers: dict[str, str]) -> bytes:
    phrase = HTTPStatus(status).phrase
    lines = [f"HTTP/1.1 {status} {phrase}", f"date: {formatdate(usegmt=True)}", "server: uvicorn"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if status != 401:
        lines.append("vary: Origin")  # the key is checked outside of vLLM's CORS layer
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
