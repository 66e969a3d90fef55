"""One connection to the engine, and the replies that come over it, one at a time.

The engine's bytes are parsed in the event loop's callback and, for a stream, go on to the client
from there: no task is woken, no timeout is made for a chunk. What goes wrong is told in httpx's
exceptions, which the rest of the appliance knows.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import cast

import httptools
import httpx

HEAD_LIMIT = 100 * 1024  # bytes of a reply's head: a peer that sends more is no engine
HELD_LIMIT = 256 * 1024  # bytes of a body that nobody takes yet; then the engine must wait
TOO_LARGE = f"the head is larger than {HEAD_LIMIT} bytes"
JOIN_LIMIT = 64 * 1024  # a body up to this size is copied behind its head: one write
WRITE_BYTES = 256 * 1024  # of a long body in one turn: the kernel copies it while others wait

Sink = Callable[[bytes], None]


class Connection(asyncio.Protocol):
    """One connection. ``on_idle`` gets it back when it may be asked again."""

    def __init__(
        self,
        on_idle: Callable[["Connection"], None],
        on_lost: Callable[["Connection"], None],
    ) -> None:
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reply: Reply | None = None
        self._unwritten = memoryview(b"")
        self.idle_since = 0.0
        self.is_lost = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are so by behaviour alone

    def data_received(self, data: bytes) -> None:
        """Hand the engine's bytes to the reply that they belong to."""
        if self._reply is None:
            self.abort()  # it speaks unasked: whatever it says belongs to nobody
        else:
            self._reply.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the reply that no more will come."""
        self.is_lost = True
        if self._reply is not None:
            self._reply.lose(exc)
        self._on_lost(self)

    # for the pool and for Reply

    @property
    def is_usable(self) -> bool:
        """Whether another request may go over it, as far as one can know."""
        transport = self._transport
        return not self.is_lost and transport is not None and not transport.is_closing()

    def begin(self, head: bytes, body: bytes = b"", *, is_head: bool = False) -> "Reply":
        """Send a request, and return the reply that is to come."""
        reply = self._reply = Reply(self, self._loop, is_head=is_head)
        if not self.is_usable or self._transport is None:
            reply.lose(None)
        elif len(body) <= JOIN_LIMIT:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._unwritten = memoryview(body)
            self._write_on()
        return reply

    def _write_on(self) -> None:
        """Write the next piece of a long body, and leave the rest to the loop's next turn."""
        if not self.is_usable or self._transport is None:
            self._unwritten = memoryview(b"")
            return
        self._transport.write(self._unwritten[:WRITE_BYTES])
        self._unwritten = self._unwritten[WRITE_BYTES:]
        if self._unwritten:
            self._loop.call_soon(self._write_on)

    def pause(self) -> None:
        """Read no more for now."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def release(self, reply: "Reply") -> None:
        """Take the end of an exchange: be free for another one, or close at once."""
        if self._reply is not reply:
            return
        self._reply = None
        transport = self._transport
        is_sent = not (self._unwritten or transport is None or transport.get_write_buffer_size())
        if reply.may_follow and is_sent and self.is_usable and not reply.is_paused:
            self._on_idle(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close without a word: this is how the engine learns that nobody waits any more."""
        if self._transport is not None:
            self._transport.abort()


class Reply:
    """One reply: its head first, then its body, read whole, part by part, or pushed to a sink.

    Parsed by httptools, which calls the methods named on_*.
    """

    def __init__(
        self, connection: Connection, loop: asyncio.AbstractEventLoop, *, is_head: bool = False
    ) -> None:
        self.status_code = 0
        self.raw_headers: list[tuple[bytes, bytes]] = []
        self.received = 0  # bytes, of the head; past it, more than none
        self.may_follow = False
        self._connection = connection
        self._loop = loop
        self._is_head = is_head
        self._parts: list[bytes] = []
        self.on_body = self._parts.append
        self._parser = httptools.HttpResponseParser(self)
        self._head: asyncio.Future[None] = loop.create_future()
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        self._fault: Exception | None = None
        self._has_head = False
        self._is_interim = False
        self._ends_with_connection = False
        self._is_complete = False
        self._is_paused = False
        self._is_closed = False
        self._flows = False  # pushed as it comes: somebody takes it, and does not pause

    @property
    def headers(self) -> dict[str, str]:
        """The headers by lower-case name; of one that came twice, the last."""
        return {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in self.raw_headers
        }

    @property
    def is_paused(self) -> bool:
        """Whether the engine is held back, for want of a taker."""
        return self._is_paused

    @property
    def is_whole(self) -> bool:
        """Whether its last byte has come, and been handed on."""
        return self._is_complete and not self._parts

    # httptools

    def on_message_begin(self) -> None:
        """Refuse a second message: it belongs to nobody, and neither must its body."""
        if self._is_complete:
            raise httpx.RemoteProtocolError("a reply that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what comes after the body is no header."""
        if not self._has_head:
            self.raw_headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is here, unless it is an interim one (1xx)."""
        status = self._parser.get_status_code()
        if status == 101:
            self._break(httpx.RemoteProtocolError("it would speak another protocol (101)"))
            return
        if status < 200:
            self._is_interim = True
            self.raw_headers.clear()
            return
        self.status_code = status
        self._has_head = True
        self._ends_with_connection = not _is_framed(status, self.raw_headers)
        if sum(len(name) + len(value) for name, value in self.raw_headers) > HEAD_LIMIT:
            self._break(httpx.RemoteProtocolError(TOO_LARGE))
            return
        if self._is_head:
            self._is_complete = True  # its length is that of a body which does not come
        if not self._head.done():
            self._head.set_result(None)

    def on_message_complete(self) -> None:
        """The body is whole."""
        if self._is_interim:
            self._is_interim = False
        elif not self._is_complete:
            self._is_complete = True
            self.may_follow = bool(self._parser.should_keep_alive())

    # Connection

    def feed(self, data: bytes) -> None:
        """Parse what came, and pass it on."""
        if self._fault is not None:
            return
        if not self._has_head:
            self.received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as cause:
            self.may_follow = False
            if not self._is_complete:  # what follows a whole reply makes it no less whole
                self._break(httpx.RemoteProtocolError(str(cause) or type(cause).__name__))
                return
        if self._flows and not self._is_complete and len(self._parts) == 1:
            self._push(self._parts.pop())
        elif self._has_head:
            self._deliver()
        elif self.received > HEAD_LIMIT:
            self._break(httpx.RemoteProtocolError(TOO_LARGE))

    def lose(self, cause: Exception | None) -> None:
        """Take the connection's end: of the body, where it says so, or of our hopes."""
        self.may_follow = False
        if self._is_complete or self._fault is not None:
            return
        if cause is not None:
            self._break(httpx.ReadError(str(cause)))
        elif not self._has_head:
            self._break(httpx.RemoteProtocolError("the connection ended before the head"))
        elif self._ends_with_connection:
            self._is_complete = True
            self._deliver()
        else:
            self._break(httpx.RemoteProtocolError("the connection ended before the body"))

    # who reads

    async def wait_for_head(self, within_s: float | None) -> None:
        """Return once the head is here. Raises httpx.TransportError; then the connection is shut.

        ``within_s`` is the longest wait, None for one without an end.
        """
        timer = self._loop.call_later(within_s, self._be_late, within_s) if within_s else None
        try:
            await self._head
        except BaseException:
            self.close()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    async def parts(self, within_s: float | None = None) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Raises httpx.TransportError.

        ``within_s`` is the longest wait for a part.
        """
        while True:
            if self._parts:
                data = self._take()
                if self._is_paused:
                    self._is_paused = False
                    self._connection.resume()
                yield data
            elif self._fault is not None:
                raise self._fault
            elif self._is_complete:
                return
            else:
                await self._more(within_s)

    async def read(self, within_s: float | None = None) -> bytes:
        """Return the whole body. Raises httpx.TransportError."""
        return b"".join([part async for part in self.parts(within_s)])

    async def push(self, sink: Sink) -> None:
        """Call ``sink`` with each piece of the body as it comes; return at its end.

        ``sink`` runs in the event loop's own callback: it must not wait. It may ``pause``, or
        ``fail``. Raises httpx.TransportError, or what it was failed with.
        """
        self._sink = sink
        self._flows = True
        if self._is_paused:  # more was held than may be
            self.resume()
        else:
            self._deliver()
        if not self._is_over:
            self._waiter = self._loop.create_future()
            await self._waiter
        if self._fault is not None:
            raise self._fault

    def pause(self) -> None:
        """Push nothing until ``resume``; the engine is held back meanwhile."""
        self._is_paused = True
        self._flows = False
        self._connection.pause()

    def resume(self) -> None:
        """Push again."""
        self._is_paused = False
        self._flows = self._sink is not None
        self._connection.resume()
        self._deliver()

    def fail(self, cause: Exception) -> None:
        """End this reply with ``cause``, whatever of it is still on the way."""
        self._parts.clear()
        self._is_paused = self._flows = False
        self._break(cause)

    def close(self) -> None:
        """Leave: the connection is free for others if the reply is whole, and shut otherwise."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._head.done() and not self._head.cancelled():
            self._head.exception()  # told or not, nobody asks any more
        self._connection.release(self)
        del self._parser  # it holds us, as we hold it; and so does who takes the body
        self._sink, self._flows = None, False

    # ours

    @property
    def _is_over(self) -> bool:
        ended = self._is_complete or self._fault is not None
        return ended and not self._parts and not self._is_paused

    def _deliver(self) -> None:
        """Pass on what has come, to whoever reads."""
        if self._sink is None:
            if not self._is_paused and sum(map(len, self._parts)) > HELD_LIMIT:
                self.pause()
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)
            return
        if self._parts and not self._is_paused:
            self._push(self._take())
        if self._waiter is not None and self._is_over and not self._waiter.done():
            self._waiter.set_result(None)

    def _push(self, data: bytes) -> None:
        try:
            self._sink(data)  # type: ignore[misc]  # _flows tells that there is one
        except BaseException:
            self.fail(httpx.ReadError("what came could not be passed on"))
            raise

    def _take(self) -> bytes:
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        return data

    async def _more(self, within_s: float | None) -> None:
        self._waiter = self._loop.create_future()
        try:
            async with asyncio.timeout(within_s):
                await self._waiter
        except TimeoutError as cause:
            raise httpx.ReadTimeout(f"nothing more within {within_s:g} s") from cause

    def _be_late(self, within_s: float) -> None:
        self.fail(httpx.ReadTimeout(f"no head within {within_s:g} s"))

    def _break(self, cause: Exception) -> None:
        if self._fault is None:
            self._fault = cause
        self.may_follow = False
        if not self._head.done():
            self._head.set_exception(cause)
        self._deliver()


def _is_framed(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a reply says itself where its body ends."""
    if status in (204, 304):
        return True
    for name, value in headers:
        key = name.lower()
        if key == b"content-length":
            return True
        if key == b"transfer-encoding":
            return value.lower().rpartition(b",")[2].strip() == b"chunked"
    return False
