"""One request, from admission to last byte.

Pure ASGI: a framework's response classes learn of a hang-up too late, and each middleware of
its kind costs more per chunk than the relay itself. One task owns ``receive()`` from the moment
the body is complete, and cancels the exchange when the client leaves, in whatever window it is.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
import structlog
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from appliance.admission import Gate
from appliance.engine import Engine
from appliance.errors import (
    ApplianceError,
    EngineError,
    EngineNotReady,
    RequestError,
    UpstreamError,
    http_status,
)
from appliance.metrics import Metrics
from appliance.openai import (
    RelayRoute,
    alias_event,
    alias_reasoning,
    check_model,
    engine_body,
    error_body,
    forward_headers,
    injection_switch,
    is_engine_fault,
    normalise_error,
    parse_body,
    return_headers,
    sane_request_id,
)
from appliance.prompt import PromptPolicy
from appliance.sizes import format_size
from appliance.sse import EventSplitter

log = structlog.get_logger()

NO_PROMPT = PromptPolicy("")
DRAIN_S = 5.0  # how long an oversized body is read on, so that its sender can read the 413


class HangUp(Exception):
    """The client left before its request was whole. Not an error."""


class Broken(Exception):
    """The engine failed after the head: the reply cannot be mended, only broken off."""


@dataclass
class Exchange:
    """What is known of one request while it is carried; times are monotonic seconds."""

    route: RelayRoute
    headers: Headers
    request_id: str
    arrived: float = field(default_factory=time.monotonic)
    window: str = "body"
    status: int = 0
    started: bool = False
    chunks: int = 0
    bytes_out: int = 0
    queued_s: float = 0.0
    ttft_s: float | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request arrived."""
        return time.monotonic() - self.arrived


class Relay:
    """Carries requests to the engine and its replies back."""

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
    ) -> None:
        self._engine = engine
        self._gate = gate
        self._policy = policy
        self._metrics = metrics
        self._served_model = served_model
        self._max_body_bytes = max_body_bytes
        self._queue_timeout_s = queue_timeout_s
        metrics.running.set_function(lambda: gate.running)
        metrics.waiting.set_function(lambda: gate.waiting)

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
                exchange.status = http_status(error)
                await _send_error(send, error, exchange)
        except ApplianceError as cause:
            outcome, error = ("refused" if http_status(cause) < 500 else "failed"), cause
            exchange.status = http_status(cause)
            await _send_error(send, cause, exchange)
        finally:
            self._account(exchange, outcome, error)

    async def _serve(self, exchange: Exchange, receive: Receive, send: Send) -> str:
        body = await self._body(exchange, receive)
        work = asyncio.ensure_future(self._exchange(exchange, body, send))
        gone = asyncio.ensure_future(_until_gone(receive))
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
        fields = parse_body(await self._read(exchange, receive))
        check_model(fields, self._served_model)
        return self._prompted(exchange, fields)

    async def _read(self, exchange: Exchange, receive: Receive) -> bytes:
        """Return the body as it came. Raises RequestError 413 when it is larger than the limit.

        Of a body that is too large some more is read, and thrown away: its sender would meet a
        reset, and not our answer.
        """
        limit = self._max_body_bytes
        is_large = int(exchange.headers.get("content-length", "0")) > limit
        parts: list[bytes] = []
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S if is_large else None) as clock:
                async for part in _parts(receive):
                    size += len(part)
                    if not is_large and size > limit:
                        is_large = True
                        clock.reschedule(asyncio.get_running_loop().time() + DRAIN_S)
                    if not is_large:
                        parts.append(part)
                    elif size > 2 * limit:
                        break
        if is_large:
            raise RequestError(
                413,
                "body_too_large",
                f"the body is larger than {format_size(limit)}",
                "send less, or raise APPLIANCE_MAX_BODY_BYTES",
            )
        return b"".join(parts)

    def _prompted(self, exchange: Exchange, fields: dict[str, msgspec.Raw]) -> bytes:
        route = exchange.route
        wanted = injection_switch(exchange.headers) and bool(self._policy.text)
        # /tokenize takes a bare prompt too, which has no place for ours
        has_place = route.prompt != "" and (route.prompt != "messages" or "messages" in fields)
        if wanted and has_place:
            self._metrics.injected.labels(route.path).inc()
        return engine_body(fields, route, self._policy if wanted else NO_PROMPT)

    async def _exchange(self, exchange: Exchange, body: bytes, send: Send) -> str:
        exchange.window = "queue"
        if not exchange.route.gated:
            return await self._pass(exchange, body, send)
        async with self._gate.admit(self._queue_timeout_s):
            exchange.queued_s = exchange.elapsed_s
            return await self._pass(exchange, body, send)

    async def _pass(self, exchange: Exchange, body: bytes, send: Send) -> str:
        exchange.window = "head"
        route = exchange.route
        headers = forward_headers(exchange.headers, exchange.request_id)
        upstream = self._engine.upstream
        async with upstream.exchange(route.method, route.path, headers, body) as response:
            if response.status_code in (401, 403):
                # its key is ours to send: the client can do nothing about it
                what = f"the engine refused the appliance's key ({response.status_code})"
                raise UpstreamError(what, "set APPLIANCE_ENGINE_KEY to the engine's API key")
            exchange.status = response.status_code
            kind = response.headers.get("content-type", "")
            if response.status_code == 200 and kind.startswith("text/event-stream"):
                exchange.window = "prefill"
                await self._stream(exchange, response, send)
            else:
                await _whole(exchange, response, send)
        return "ok" if exchange.status < 400 else "refused" if exchange.status < 500 else "failed"

    async def _stream(self, exchange: Exchange, response: httpx.Response, send: Send) -> None:
        headers = return_headers(response.headers, exchange.request_id)
        headers["x-accel-buffering"] = "no"  # a proxy in front must not hold the stream back
        exchange.started = True
        await _start(send, 200, headers)
        last = 0.0
        async for data in _events(response, exchange.route):
            now = time.monotonic()
            if exchange.chunks == 0:
                exchange.window = "stream"
                exchange.ttft_s = exchange.elapsed_s
            else:
                self._metrics.chunk_gap_s.observe(now - last)
            last = now
            exchange.chunks += 1
            exchange.bytes_out += len(data)
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _account(self, exchange: Exchange, outcome: str, error: ApplianceError | None) -> None:
        path = exchange.route.path
        self._metrics.requests.labels(path, outcome).inc()
        self._metrics.request_s.labels(path).observe(exchange.elapsed_s)
        if exchange.ttft_s is not None:
            self._metrics.ttft_s.labels(path).observe(exchange.ttft_s)
        keys: MutableMapping[str, Any] = {
            "id": exchange.request_id,
            "route": path,
            "outcome": outcome,
            "status": exchange.status,
            "seconds": round(exchange.elapsed_s, 3),
            "queued_s": round(exchange.queued_s, 3),
            "chunks": exchange.chunks,
            "bytes": exchange.bytes_out,
        }
        if exchange.ttft_s is not None:
            keys["ttft_s"] = round(exchange.ttft_s, 3)
        if outcome == "hang_up":
            keys["window"] = exchange.window
        if error is not None:
            keys["error"] = error.code
        (log.warning if outcome in ("failed", "broken") else log.info)("request", **keys)


# ---- the client's side


async def _parts(receive: Receive) -> AsyncIterator[bytes]:
    """Yield the body as it arrives. Raises HangUp if the client leaves within it."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HangUp
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _start(send: Send, status: int, headers: dict[str, str]) -> None:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def _send_error(send: Send, error: ApplianceError, exchange: Exchange) -> None:
    body = error_body(error, anthropic=exchange.route.is_anthropic)
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-request-id": exchange.request_id,
    }
    if isinstance(error, EngineError):
        headers["retry-after"] = str(error.retry_after_s)
    if http_status(error) == 429:
        headers["retry-after"] = "2"
    await _start(send, http_status(error), headers)
    await send({"type": "http.response.body", "body": body, "more_body": False})


# ---- the engine's side


async def _events(response: httpx.Response, route: RelayRoute) -> AsyncIterator[bytes]:
    """Yield what passes to the client: whole events, as many as came together.

    Raises Broken when the engine breaks off, or reports its own failure.
    """
    splitter = EventSplitter()
    aliased = route.path == "/v1/chat/completions"
    try:
        async for data in response.aiter_raw():
            events = splitter.feed(data)
            if any(is_engine_fault(event) for event in events):
                raise Broken("the engine failed in mid-stream")
            if events:
                yield b"".join(map(alias_event, events) if aliased else events)
    except httpx.HTTPError as cause:
        raise Broken(f"the engine broke off: {type(cause).__name__}") from cause
    if rest := splitter.rest():
        yield rest


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
    await _start(send, response.status_code, headers)
    await send({"type": "http.response.body", "body": body, "more_body": False})
