"""One request, from admission to last byte.

Pure ASGI: a framework's response classes learn of a hang-up too late, and each middleware of
its kind costs more per chunk than the relay itself. One task owns ``receive()`` from the moment
the body is complete, and cancels the exchange when the client leaves, in whatever window it is.
"""

import asyncio
import time
import uuid
from collections.abc import Callable

import httpx
import structlog
from starlette.types import Receive, Scope, Send

from appliance.admission import Gate, Ticket
from appliance.bodies import Bodies
from appliance.draft import Draft
from appliance.engine import Engine
from appliance.errors import (
    ApplianceError,
    EngineNotReady,
    UpstreamError,
    http_status,
)
from appliance.exchange import (
    CALLER_KEY,
    Broken,
    Exchange,
    HangUp,
    hang_up_watch,
    header_texts,
    start,
    start_stream,
)
from appliance.keepalive import Waits, keep_alive, retry_after_s
from appliance.keys import NOBODY
from appliance.metrics import Metrics
from appliance.openai import RelayRoute, sane_request_id
from appliance.reply import Replies
from appliance.sequences import sequences
from appliance.wireerror import error_body, error_headers

log = structlog.get_logger()

DYING_S = 10.0  # from an engine's first refused connection to its seen end: vLLM takes up to 5


class Relay:
    """Carries requests to the engine and its replies back.

    ``expected_s`` tells in how many seconds the engine is expected, as far as known;
    ``on_keepalive`` is called for each keep-alive.
    """

    def __init__(
        self,
        engine: Engine,
        gate: Gate,
        bodies: Bodies,
        replies: Replies,
        waits: Waits,
        metrics: Metrics,
        *,
        expected_s: Callable[[], float] = lambda: 0.0,
        on_keepalive: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._gate = gate
        self._bodies = bodies
        self._replies = replies
        self._waits = waits
        self._metrics = metrics
        self._expected_s = expected_s
        self._on_keepalive = on_keepalive
        self._in_flight: list[int] = []
        metrics.running.set_function(lambda: gate.running)
        metrics.waiting.set_function(lambda: gate.waiting)

    @property
    def chunks_received(self) -> int:
        """How many chunks have come from the engine."""
        return self._replies.chunks_received

    @property
    def sending(self) -> int:
        """How many replies wait for a client to take what is there."""
        return self._replies.sending

    def largest_in_flight(self) -> int:
        """Return the bytes of the largest body that holds a place now, 0 where none does."""
        return max(self._in_flight, default=0)

    async def carry(self, route: RelayRoute, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, whatever happens to it; raises nothing but cancellation."""
        headers = header_texts(scope["headers"])
        request_id = sane_request_id(headers.get("x-request-id")) or f"req-{uuid.uuid4().hex}"
        exchange = Exchange(route, headers, request_id, caller=scope.get(CALLER_KEY, NOBODY))
        outcome = "failed"
        error: ApplianceError | None = None
        try:
            outcome = await self._serve(exchange, receive, send)
        except HangUp:
            outcome = "hang_up"
            self._metrics.hang_ups.labels(exchange.window).inc()
        except Broken as cause:
            # No [DONE] and no end of the body: uvicorn closes the connection, which a client
            # retries; an error event it would not.
            outcome, error = "broken", UpstreamError(str(cause))
        except asyncio.CancelledError:
            # The server ends and waits no longer: a reply that has begun is broken off.
            outcome, error = "broken", EngineNotReady("the appliance is stopping", "retry later")
            if not exchange.started:
                await self._send_error(send, error, exchange)
        except ApplianceError as cause:
            if exchange.started:  # our own head, while it waited: as Broken
                outcome, error = "broken", cause
            else:
                outcome, error = ("refused" if http_status(cause) < 500 else "failed"), cause
                await self._send_error(send, cause, exchange)
        finally:
            self._bodies.let_go(exchange)
            self._account(exchange, outcome, error)

    async def _serve(self, exchange: Exchange, receive: Receive, send: Send) -> str:
        draft = await self._bodies.take(exchange, receive)
        with hang_up_watch(exchange, receive):
            return await self._exchange(exchange, draft, send)

    async def _exchange(self, exchange: Exchange, draft: Draft, send: Send) -> str:
        """Carry a request whose body is there; one that generates takes a place for it.

        While the engine is ready, what does not fit it is refused before the queue: before a 200.

        A stream whose engine dies before its head takes a place again, once. That is safe:
        what the dead engine had begun is lost with it, and the client has seen none of it.
        """
        if not exchange.route.gated:
            return await self._pass(exchange, await self._fit(exchange, draft), send)
        is_ready = self._engine.snapshot.is_ready
        body = await self._fit(exchange, draft) if is_ready else None
        exchange.queued_at = time.monotonic()
        if exchange.streaming:
            exchange.beat_at = exchange.queued_at + self._waits.head_after_s
        with self._gate.enter(exchange.caller.share, sequences(exchange.route, draft)) as ticket:
            await self._place(exchange, ticket, send)
            body = body or await self._fit(exchange, draft)
            draft.let_go()
            try:
                return await self._hold(exchange, body, send)
            except UpstreamError as cause:
                # one that let its time go by is not asked again: it had its whole time
                if exchange.answered or isinstance(cause.__cause__, httpx.ReadTimeout):
                    raise
                if not exchange.streaming and isinstance(cause.__cause__, httpx.ConnectError):
                    raise self._not_ready(cause.what, EngineNotReady.code) from cause
                if not (exchange.streaming and await self._is_dying(exchange, send)):
                    raise
            ticket.back()
            await self._place(exchange, ticket, send)
            return await self._hold(exchange, body, send)

    async def _fit(self, exchange: Exchange, draft: Draft) -> bytes:
        return await self._bodies.fit(exchange, draft, self._engine)

    async def _place(self, exchange: Exchange, ticket: Ticket, send: Send) -> None:
        """Wait for the place; a stream's client hears a keep-alive now and then.

        Raises the gate's refusal, or EngineNotReady after the longest wait.
        """
        exchange.window = "queue"
        held_since: float | None = None
        while not ticket.has_place:
            now = time.monotonic()
            held_since = None if self._gate.is_open else held_since or now
            end = self._waits.end(exchange.streaming, exchange.queued_at, held_since)
            if now >= end:
                lacking = "no place was free" if self._gate.is_open else "the engine was not ready"
                what = f"{lacking} within {now - exchange.queued_at:.0f} s"
                raise self._not_ready(what, "queue_timeout")
            await self._beat(exchange, send)
            await ticket.wait(min(end, exchange.beat_at) - time.monotonic())
        exchange.queued_s = exchange.elapsed_s

    def _not_ready(self, what: str, code: str) -> EngineNotReady:
        hint = "retry; appliance status tells what the engine is doing"
        after_s = retry_after_s(self._expected_s())
        return EngineNotReady(what, hint, code=code, retry_after_s=after_s)

    async def _is_dying(self, exchange: Exchange, send: Send) -> bool:
        """Tell whether the engine that gave no head is on its way out: the gate is shut, or will.

        The place is kept until then: who stands behind would only meet the same.
        """
        if self._gate.is_open and await self._engine.upstream.is_healthy():
            return False
        end = time.monotonic() + DYING_S
        while (now := time.monotonic()) < end and self._gate.is_open:
            await self._beat(exchange, send)
            await self._gate.shut(min(end, exchange.beat_at) - now)
        return not self._gate.is_open

    async def _beat(self, exchange: Exchange, send: Send) -> None:
        """Send a keep-alive if it is due; the head before the first."""
        if time.monotonic() < exchange.beat_at:
            return
        if not exchange.started:
            await start_stream(exchange, {}, send)
        data = keep_alive(anthropic=exchange.route.is_anthropic, style=self._waits.style)
        await send({"type": "http.response.body", "body": data, "more_body": True})
        exchange.bytes_out += len(data)
        exchange.beat_at = time.monotonic() + self._waits.keepalive_s
        self._on_keepalive()

    async def _hold(self, exchange: Exchange, body: bytes, send: Send) -> str:
        self._in_flight.append(len(body))
        try:
            return await self._pass(exchange, body, send)
        finally:
            self._in_flight.remove(len(body))

    async def _pass(self, exchange: Exchange, body: bytes, send: Send) -> str:
        await self._replies.ask(exchange, self._engine.upstream, body, send)
        return "ok" if exchange.status < 400 else "refused" if exchange.status < 500 else "failed"

    async def _send_error(self, send: Send, error: ApplianceError, exchange: Exchange) -> None:
        exchange.status = http_status(error)
        body = error_body(error, anthropic=exchange.route.is_anthropic)
        after_s = retry_after_s(self._expected_s())
        headers = error_headers(error, body, exchange.request_id, after_s)
        await start(send, exchange.status, headers)
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def _account(self, exchange: Exchange, outcome: str, error: ApplianceError | None) -> None:
        path = exchange.route.path
        self._metrics.requests.labels(path, outcome).inc()
        self._metrics.responses.labels(path, str(exchange.status)).inc()
        self._metrics.bytes_in.inc(exchange.bytes_in)
        self._metrics.bytes_out.inc(exchange.bytes_out)
        self._metrics.requests_by_key.labels(exchange.caller.share.key, outcome).inc()
        self._metrics.request_s.labels(path).observe(exchange.elapsed_s)
        if exchange.ttft_s is not None:
            self._metrics.ttft_s.labels(path).observe(exchange.ttft_s)
        keys = exchange.log_keys(outcome, error)
        (log.warning if outcome in ("failed", "broken") else log.info)("request", **keys)
