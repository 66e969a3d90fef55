"""One reply, from the engine's head to the client's last byte."""

import time
from collections.abc import AsyncIterator

import httpx
from starlette.types import Send

from appliance.errors import UpstreamError
from appliance.exchange import Broken, Exchange, start, start_stream
from appliance.metrics import Metrics
from appliance.openai import RelayRoute, return_headers
from appliance.sse import EventSplitter
from appliance.wireerror import error_event, is_permanent, normalise_error
from appliance.wirereply import alias_event, alias_reasoning, is_engine_fault


class Replies:
    """Passes the engine's replies on.

    ``chunks_received`` counts what came from the engine, ``sending`` who waits for a client to
    take it.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.chunks_received = 0
        self.sending = 0

    async def carry(self, exchange: Exchange, response: httpx.Response, send: Send) -> None:
        """Pass one reply whose head is here. Raises Broken, or UpstreamError before our head."""
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
