"""One request, from admission to last byte.

Pure ASGI: a framework's response classes learn of a hang-up too late, and each middleware of
its kind costs more per chunk than the relay itself. One task owns ``receive()`` from the moment
the body is complete, and cancels the exchange when the client leaves, in whatever window it is.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable

import httpx
import msgspec
import structlog
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from appliance.admission import Gate, Ticket
from appliance.engine import Engine
from appliance.errors import (
    ApplianceError,
    EngineNotReady,
    RequestError,
    UpstreamError,
    http_status,
)
from appliance.exchange import (
    Broken,
    Exchange,
    HangUp,
    read_body,
    start,
    start_stream,
    until_gone,
)
from appliance.keepalive import Waits, keep_alive, retry_after_s
from appliance.metrics import Metrics
from appliance.openai import (
    RelayRoute,
    alias_event,
    alias_reasoning,
    check_model,
    engine_body,
    error_body,
    error_event,
    error_headers,
    field_value,
    forward_headers,
    injection_switch,
    is_engine_fault,
    is_permanent,
    normalise_error,
    parse_body,
    return_headers,
    sane_request_id,
)
from appliance.prompt import PromptPolicy
from appliance.sse import EventSplitter

log = structlog.get_logger()

NO_PROMPT = PromptPolicy("")
DYING_S = 10.0  # from an engine's first refused connection to its seen end: vLLM takes up to 5


class Relay:
    """Carries requests to the engine and its replies back.

    The waits are those of ``keepalive.Waits``, in seconds; ``admit_wait_s`` is
    ``queue_timeout_s`` where none is given. ``expected_s`` tells in how many seconds the engine
    is expected, as far as known. ``chunks_received`` counts what came from the engine,
    ``sending`` who waits for a client to take it.
    """

    def __init__(
        self,
        engine: Engine,
        gate: Gate,
        policy: PromptPolicy,
        metrics: Metrics,
        *,
        served_model: str,
        max_body_bytes: int,
        queue_timeout_s: float,
        admit_wait_s: float | None = None,
        whole_wait_s: float = Waits.whole_wait_s,
        head_after_s: float = Waits.head_after_s,
        keepalive_s: float = Waits.keepalive_s,
        expected_s: Callable[[], float] = lambda: 0.0,
        on_keepalive: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._gate = gate
        self._policy = policy
        self._metrics = metrics
        self._served_model = served_model
        self._max_body_bytes = max_body_bytes
        self._waits = Waits(
            queue_timeout_s,
            queue_timeout_s if admit_wait_s is None else admit_wait_s,
            whole_wait_s,
            head_after_s,
            keepalive_s,
        )
        self._expected_s = expected_s
        self._on_keepalive = on_keepalive
        self._bodies: list[int] = []
        self.chunks_received = 0
        self.sending = 0
        metrics.running.set_function(lambda: gate.running)
        metrics.waiting.set_function(lambda: gate.waiting)

    def largest_in_flight(self) -> int:
        """Return the bytes of the largest body that holds a place now, 0 where none does."""
        return max(self._bodies, default=0)

    async def carry(self, route: RelayRoute, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, whatever happens to it; raises nothing but cancellation."""
        headers = Headers(scope=scope)
        request_id = sane_request_id(headers.get("x-request-id")) or f"req-{uuid.uuid4().hex}"
        exchange = Exchange(route, headers, request_id)
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
            self._account(exchange, outcome, error)

    async def _serve(self, exchange: Exchange, receive: Receive, send: Send) -> str:
        body = await self._body(exchange, receive)
        work = asyncio.ensure_future(self._exchange(exchange, body, send))
        gone = asyncio.ensure_future(until_gone(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
        if work.cancelled():
            raise HangUp
        return work.result()

    async def _body(self, exchange: Exchange, receive: Receive) -> bytes:
        """Return the body to send upstream: read, checked, the prompt in it."""
        if exchange.route.method == "GET":
            return b""
        encoding = exchange.headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity":
            raise RequestError(
                415,
                "unsupported_encoding",
                f"content-encoding {encoding} is not read here",
                "send the body as it is",
            )
        fields = parse_body(await read_body(exchange, receive, self._max_body_bytes))
        check_model(fields, self._served_model)
        may_stream = exchange.route.may_stream
        exchange.streaming = may_stream and field_value(fields, "stream") is True
        return self._prompted(exchange, fields)

    def _prompted(self, exchange: Exchange, fields: dict[str, msgspec.Raw]) -> bytes:
        route = exchange.route
        wanted = injection_switch(exchange.headers) and bool(self._policy.text)
        # /tokenize takes a bare prompt too, which has no place for ours
        has_place = route.prompt != "" and (route.prompt != "messages" or "messages" in fields)
        if wanted and has_place:
            self._metrics.injected.labels(route.path).inc()
        return engine_body(fields, route, self._policy if wanted else NO_PROMPT)

    async def _exchange(self, exchange: Exchange, body: bytes, send: Send) -> str:
        """Carry a request whose body is there; one that generates takes a place for it.

        A stream whose engine dies before its head takes a place again, once. That is safe:
        what the dead engine had begun is lost with it, and the client has seen none of it.
        """
        if not exchange.route.gated:
            return await self._pass(exchange, body, send)
        exchange.queued_at = time.monotonic()
        if exchange.streaming:
            exchange.beat_at = exchange.queued_at + self._waits.head_after_s
        with self._gate.enter() as ticket:
            await self._place(exchange, ticket, send)
            try:
                return await self._hold(exchange, body, send)
            except UpstreamError as cause:
                if exchange.answered:
                    raise
                if not exchange.streaming and isinstance(cause.__cause__, httpx.ConnectError):
                    raise self._not_ready(cause.what, EngineNotReady.code) from cause
                if not (exchange.streaming and await self._is_dying(exchange, send)):
                    raise
            ticket.back()
            await self._place(exchange, ticket, send)
            return await self._hold(exchange, body, send)

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
        data = keep_alive(anthropic=exchange.route.is_anthropic)
        await send({"type": "http.response.body", "body": data, "more_body": True})
        exchange.bytes_out += len(data)
        exchange.beat_at = time.monotonic() + self._waits.keepalive_s
        self._on_keepalive()

    async def _hold(self, exchange: Exchange, body: bytes, send: Send) -> str:
        self._bodies.append(len(body))
        try:
            return await self._pass(exchange, body, send)
        finally:
            self._bodies.remove(len(body))

    async def _pass(self, exchange: Exchange, body: bytes, send: Send) -> str:
        exchange.window = "head"
        route = exchange.route
        headers = forward_headers(exchange.headers, exchange.request_id)
        upstream = self._engine.upstream
        async with upstream.exchange(route.method, route.path, headers, body) as response:
            exchange.answered = True
            if response.status_code in (401, 403):
                # its key is ours to send: the client can do nothing about it
                what = f"the engine refused the appliance's key ({response.status_code})"
                raise UpstreamError(what, "set APPLIANCE_ENGINE_KEY to the engine's API key")
            exchange.status = response.status_code
            kind = response.headers.get("content-type", "")
            if response.status_code == 200 and kind.startswith("text/event-stream"):
                exchange.window = "prefill"
                await self._stream(exchange, response, send)
            elif exchange.started:
                await _late_refusal(exchange, response, send)
            else:
                await _whole(exchange, response, send)
                self.chunks_received += 1
        return "ok" if exchange.status < 400 else "refused" if exchange.status < 500 else "failed"

    async def _stream(self, exchange: Exchange, response: httpx.Response, send: Send) -> None:
        if not exchange.started:
            await start_stream(exchange, response.headers, send)
        last = 0.0
        async for data in self._events(response, exchange.route):
            now = time.monotonic()
            if exchange.chunks == 0:
                exchange.window = "stream"
                exchange.ttft_s = exchange.elapsed_s
            else:
                self._metrics.chunk_gap_s.observe(now - last)
            last = now
            exchange.chunks += 1
            exchange.bytes_out += len(data)
            self.sending += 1
            try:
                await send({"type": "http.response.body", "body": data, "more_body": True})
            finally:
                self.sending -= 1
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self, response: httpx.Response, route: RelayRoute) -> AsyncIterator[bytes]:
        """Yield what passes to the client: whole events, as many as came together.

        Raises Broken when the engine breaks off, or reports its own failure.
        """
        splitter = EventSplitter()
        aliased = route.path == "/v1/chat/completions"
        try:
            async for data in response.aiter_raw():
                self.chunks_received += 1
                events = splitter.feed(data)
                if any(is_engine_fault(event) for event in events):
                    raise Broken("the engine failed in mid-stream")
                if events:
                    yield b"".join(map(alias_event, events) if aliased else events)
        except httpx.HTTPError as cause:
            raise Broken(f"the engine broke off: {type(cause).__name__}") from cause
        if rest := splitter.rest():
            yield rest

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
        self._metrics.request_s.labels(path).observe(exchange.elapsed_s)
        if exchange.ttft_s is not None:
            self._metrics.ttft_s.labels(path).observe(exchange.ttft_s)
        keys = exchange.log_keys(outcome, error)
        (log.warning if outcome in ("failed", "broken") else log.info)("request", **keys)


async def _whole(exchange: Exchange, response: httpx.Response, send: Send) -> None:
    """Pass a reply that is no stream: read whole, aliased or its error shape made one."""
    try:
        body = await response.aread()
    except httpx.HTTPError as cause:
        raise UpstreamError(
            f"the engine broke off its reply: {type(cause).__name__}", "retry the request"
        ) from cause
    if response.status_code >= 400:
        anthropic = exchange.route.is_anthropic
        body = normalise_error(response.status_code, body, anthropic=anthropic)
    elif exchange.route.path == "/v1/chat/completions":
        body = alias_reasoning(body)
    exchange.ttft_s = exchange.elapsed_s
    exchange.bytes_out = len(body)
    headers = return_headers(response.headers, exchange.request_id)
    headers |= {"content-type": "application/json", "content-length": str(len(body))}
    exchange.started = True
    await start(send, response.status_code, headers)
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _late_refusal(exchange: Exchange, response: httpx.Response, send: Send) -> None:
    """Pass a reply that is no stream into the one that we began: as its last event.

    Raises Broken for one that a second try may not meet.
    """
    status, anthropic = response.status_code, exchange.route.is_anthropic
    if not is_permanent(status):
        raise Broken(f"the engine answered {status} where a stream was begun")
    try:
        body = await response.aread()
    except httpx.HTTPError as cause:
        raise Broken(f"the engine broke off: {type(cause).__name__}") from cause
    data = error_event(normalise_error(status, body, anthropic=anthropic), anthropic=anthropic)
    exchange.bytes_out += len(data)
    await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
