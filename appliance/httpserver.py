"""uvicorn's HTTP protocol, and what a box on a network needs of it.

Who is slow loses the connection: a head must be whole in ``head_s``, and of a body something must
come every ``body_s``. Nobody opens more connections than there is room for. A second request that
comes before the first one's answer does not hide that the client leaves. And a body wakes its
reader once or twice, not for each piece: that cost more than to read it.
"""

import asyncio
import resource
from typing import Any, cast

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MOST_CONNECTIONS = 2000
OTHER_FILES = 200  # that we open besides: towards the engine, the log, the state
UNASKED_BYTES = 64 * 2**10  # of a body that nobody has asked for: its sender may have no key
PIECE_BYTES = 2**20  # of a body that somebody reads
TURN_BYTES = 64 * 2**10  # at once: the loop would read on to the end, and others wait meanwhile
MOST_FOLLOWING = 16  # requests on one connection behind the one that is answered
_STATUS = b"HTTP/1.1 "

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\n"
    b"content-type: text/plain\r\ncontent-length: 26\r\n\r\ntoo many open connections\n"
)
_LATE = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n"
    b"content-type: text/plain\r\ncontent-length: 29\r\n\r\nthe request came too slowly.\n"
)


def most_connections() -> int:
    """Return how many connections may be open: each is a file to the kernel."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(min(MOST_CONNECTIONS, soft - OTHER_FILES), 1)


class _HeadFirst:
    """A transport that holds a reply's head back until its first piece, or the loop's next turn.

    Where both are here already they leave in one write, which is one wake-up of the client less.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(_STATUS):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():  # a client may leave in between
            self._transport.write(head)


class _Flow(FlowControl):
    """Knows whether the body that is being read has been asked for."""

    is_wanted = False

    def resume_reading(self) -> None:
        self.is_wanted = True
        super().resume_reading()

    def read_on(self) -> None:
        """Read on, though nobody asked."""
        super().resume_reading()


class ClientProtocol(HttpToolsProtocol):
    """One client's connection; its two lengths are seconds."""

    head_s = 30.0
    body_s = 60.0

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._allowed_s = self.head_s  # 0: nothing is awaited of the client
        self._heard_at = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._answered: RequestResponseCycle | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or send it away."""
        transport = cast(asyncio.Transport, _HeadFirst(transport, self.loop))
        super().connection_made(transport)
        self.flow = self._flow = _Flow(transport)
        if len(self.connections) > most_connections():
            transport.write(_BUSY)
            transport.close()
            return
        self._arm(self.head_s)

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        super().data_received(data)
        if self._allowed_s == self.body_s:
            self._heard_at = self.loop.time()
        if self._allowed_s and self._timer is None:
            self._arm(self._allowed_s)
        if len(data) >= TURN_BYTES and not (self.flow.read_paused or self.transport.is_closing()):
            self.transport.pause_reading()
            self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        """Read again, in another turn of the loop."""
        if not (self.flow.read_paused or self.transport.is_closing()):
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request of this connection: uvicorn tells the last one alone."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()
        for cycle in (self._answered, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    # httptools

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._flow.is_wanted = False
        self._allowed_s, self._heard_at = self.head_s, self.loop.time()

    def on_headers_complete(self) -> None:
        """Take a head; one that comes too early waits, while we look for the client's leaving."""
        super().on_headers_complete()
        self._allowed_s = self.body_s
        if len(self.pipeline) > MOST_FOLLOWING:
            self.transport.abort()
        elif self.pipeline:
            self._flow.read_on()

    def on_body(self, body: bytes) -> None:
        """Keep a piece of a body; its reader wakes when there is enough, or no more."""
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > (PIECE_BYTES if self._flow.is_wanted else UNASKED_BYTES):
            self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """End a request."""
        super().on_message_complete()
        self._allowed_s = 0

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    # the clock

    def _arm(self, after_s: float) -> None:
        self._timer = self.loop.call_later(after_s, self._look)

    def _look(self) -> None:
        """Look whether the client is late; it is not while it is we who do not read."""
        self._timer = None
        if not self._allowed_s or self.transport.is_closing():
            return
        if self.flow.read_paused:
            self._heard_at = self.loop.time()
        left_s = self._heard_at + self._allowed_s - self.loop.time()
        if left_s > 0:
            self._arm(left_s)
            return
        if self._answered is None or self._answered.response_complete:
            self.transport.write(_LATE)
        self.transport.close()
