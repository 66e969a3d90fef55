"""One stream on its way to a client, driven by the engine's bytes as they come.

What is done for a chunk is done in the event loop's callback: no task is woken for it and no
timeout made. One timer looks after the whole stream. The contract-bound changes to its events
are a chain of filters over whole events, in this order: the reasoning's alias, the seat of the
path repair, and the keep-alives between them.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

from starlette.types import Message, Send

from appliance.connection import Reply
from appliance.deadlines import Deadlines
from appliance.exchange import Broken, Exchange
from appliance.keepalive import keep_alive
from appliance.metrics import Metrics
from appliance.sse import Framer
from appliance.wirereply import empty_chunk

LAST_EVENTS = 3  # pieces kept of a stream's end: where its usage stands
DONE = b"[DONE]\n\n"
CHUNKED = ("/v1/chat/completions", "/v1/completions")  # whose streams are chunks with choices

# Takes whole events; None says that the engine failed in them.
Filter = Callable[[bytes], bytes | None]


class Watch(Protocol):
    """What may end a stream before the engine does."""

    def feed(self, events: bytes) -> bytes | None:
        """Take whole events. Return what to send in their place, and end; None to go on."""


class Guard(Protocol):
    """What may hold events back for a while; ``release`` gets them when they may pass."""

    release: Callable[[bytes], None]

    @property
    def holds(self) -> bool:
        """Whether something is held back."""

    def apply(self, events: bytes) -> bytes:
        """Take whole events; return those that may pass now."""

    def flush(self) -> bytes:
        """Return at once what is held back."""

    async def rest(self) -> bytes:
        """Return what is held back at the stream's end."""

    def close(self) -> None:
        """Leave: the stream is over."""


class Enough(Exception):
    """A watch has ended the stream. Not an error."""


@dataclass(frozen=True)
class Care:
    """How streams are looked after; ``keepalive`` is the setting of that name."""

    keepalive: str = "auto"
    keepalive_s: float = 15.0
    deadlines: Deadlines = Deadlines()  # noqa: RUF009  (frozen, and never changed)


@dataclass
class Traffic:
    """What all streams count together: pieces from the engine, and clients that are waited for."""

    chunks: int = 0
    sending: int = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count one client that is waited for: its engine is silent, and not hung."""
        self.sending += 1
        try:
            yield
        finally:
            self.sending -= 1


class Stream:
    """Passes one stream from the engine to the client."""

    def __init__(
        self,
        exchange: Exchange,
        reply: Reply,
        send: Send,
        care: Care,
        metrics: Metrics,
        *,
        began: float,
        filters: Sequence[Filter],
        watch: Watch | None,
        guard: Guard | None,
        traffic: Traffic,
    ) -> None:
        self._exchange = exchange
        self._reply = reply
        # a coroutine function, as every server's is: it is begun here without a task
        self._send = cast("Callable[[Message], Coroutine[Any, Any, None]]", send)
        self._care = care
        self._observe = metrics.chunk_gap_s.labels().observe
        self._count_keepalive = metrics.keepalives.inc
        self._began = began
        self._filters = filters
        self._watch = watch.feed if watch is not None else None
        self._guard = guard
        if guard is not None:
            guard.release = self._release
        self._traffic = traffic
        self._framer = Framer()
        self._first = b""
        self._last: deque[bytes] = deque(maxlen=LAST_EVENTS)
        self._heard: float | None = None
        self._spoke = self._chunk_at = time.monotonic()
        self._sending: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._late = b""  # released while the client was slow

    async def run(self) -> bytes:
        """Pass the stream; return its last events. Raises Broken, or httpx.TransportError."""
        self._arm(time.monotonic())
        try:
            await self._reply.push(self._take)
        except Enough:
            await self._sent_all()  # a slow client gets its end too
        else:
            held = await self._guard.rest() if self._guard is not None else b""
            await self._sent_all()
            if rest := held + self._framer.rest():
                await self._say(rest, more=True)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if self._sending is not None:
                self._sending.cancel()
            if self._guard is not None:
                self._guard.close()
        if not self._exchange.is_over:
            await self._say(b"", more=False)
        return b"".join(self._last)

    async def _sent_all(self) -> None:
        while self._sending is not None:
            await self._in_time(self._sending)

    async def _say(self, data: bytes, *, more: bool) -> None:
        """Send what comes after the engine's last word; the client may be slow to take it."""
        sending = self._send({"type": "http.response.body", "body": data, "more_body": more})
        try:
            awaited = sending.send(None)
        except StopIteration:
            return
        with self._traffic.waiting():
            await self._in_time(_Begun(sending, awaited))

    async def _in_time(self, sending: Awaitable[None]) -> None:
        """Wait for a client, as long as the whole may take. Raises Broken after that."""
        left_s = self._began + self._care.deadlines.total_s - time.monotonic()
        try:
            async with asyncio.timeout(None if math.isinf(left_s) else max(left_s, 0)):
                await sending
        except TimeoutError as cause:
            raise Broken("the client did not take its answer in time") from cause

    def _take(self, data: bytes) -> None:
        """Take what came of the engine: pass on what is whole of it."""
        self._traffic.chunks += 1
        now = time.monotonic()
        events = self._framer.feed(data)
        if not events:
            self._heard = now
            return
        for apply in self._filters:
            passed = apply(events)
            if passed is None:
                self._reply.fail(Broken("the engine failed in mid-stream"))
                return
            events = passed
        if self._first:
            self._observe(now - self._chunk_at)
        else:
            self._begin(events, now)
        self._heard = self._chunk_at = now
        self._exchange.chunks += 1
        self._last.append(events)
        if self._watch is not None and (end := self._watch(events)) is not None:
            self._pass(self._guard.flush() + end if self._guard is not None else end, now)
            self._reply.fail(Enough())
            return
        if self._guard is not None:
            events = self._guard.apply(events)
            if not events:
                return
        self._pass(events, now)

    def _release(self, events: bytes) -> None:
        """Send what the guard has held back."""
        if self._sending is not None:
            self._late += events
        elif events:
            self._pass(events, time.monotonic())

    def _begin(self, events: bytes, now: float) -> None:
        self._first = events
        self._exchange.window = "stream"
        self._exchange.ttft_s = now - self._exchange.arrived

    def _pass(self, data: bytes, now: float) -> None:
        """Send ``data`` at once; if the client is slow, hold the engine until it has taken it.

        With the engine's last word goes the end: it would be another write, and a wake-up.
        """
        self._exchange.bytes_out += len(data)
        self._spoke = now
        more = not self._reply.is_whole or self._framer.holds
        more = more or (self._guard is not None and self._guard.holds)
        self._exchange.is_over = not more
        sending = self._send({"type": "http.response.body", "body": data, "more_body": more})
        try:
            awaited = sending.send(None)
        except StopIteration:
            return
        self._reply.pause()
        self._traffic.sending += 1
        self._sending = asyncio.ensure_future(_finish(sending, awaited))
        self._sending.add_done_callback(self._sent)

    def _sent(self, sending: asyncio.Task[None]) -> None:
        """Go on: the client has taken what it had to, or has left."""
        self._traffic.sending -= 1
        self._sending = None
        if sending.cancelled():
            return
        if (cause := sending.exception()) is not None:
            self._reply.fail(Broken(f"the client could not be reached: {type(cause).__name__}"))
            return
        self._spoke = time.monotonic()
        if self._heard is not None:
            self._heard = self._spoke  # the silence was not the engine's
        if self._late:
            late, self._late = self._late, b""
            self._pass(late, self._spoke)
        if self._sending is None:
            self._reply.resume()

    def _tick(self) -> None:
        """Look at the clock: break off what takes too long, and speak in a silence."""
        now = time.monotonic()
        if self._sending is not None and self._heard is not None:
            self._heard = now
        deadlines, heard = self._care.deadlines, self._heard
        if now >= deadlines.end(self._began, heard):
            self._reply.fail(Broken(deadlines.why(self._began, heard, now)))
            return
        if now >= self._spoke + self._care.keepalive_s:
            if self._sending is None and (data := self._keep_alive()):
                self._count_keepalive()
                self._pass(data, now)
            self._spoke = now
        self._arm(now)

    def _arm(self, now: float) -> None:
        end = self._care.deadlines.end(self._began, self._heard)
        next_at = min(end, self._spoke + self._care.keepalive_s)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(next_at - now, 0.001), self._tick)

    def _keep_alive(self) -> bytes:
        """Return what to say in a silence, nothing where nothing may be said."""
        style, route = self._care.keepalive, self._exchange.route
        if style == "off" or (self._last and self._last[-1].endswith(DONE)):
            return b""
        if self._first and style != "comment" and route.path in CHUNKED:
            return empty_chunk(self._first) or keep_alive(style=style)
        return keep_alive(anthropic=route.is_anthropic, style=style)


async def _finish(sending: Coroutine[Any, Any, None], awaited: Any) -> None:
    """Finish what was begun outside of a task, and waits for ``awaited``."""
    await _Begun(sending, awaited)


class _Begun(Awaitable[None]):
    def __init__(self, sending: Coroutine[Any, Any, None], awaited: Any) -> None:
        self._sending = sending
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, None]:
        awaited = self._awaited
        try:
            while True:
                try:
                    yield awaited
                except BaseException as cause:
                    awaited = self._sending.throw(cause)
                else:
                    awaited = self._sending.send(None)
        except StopIteration:
            return
