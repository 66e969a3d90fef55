"""One reply, from the engine's head to the client's last byte."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx
from starlette.types import Send

from appliance.connection import Reply
from appliance.errors import UpstreamError, UpstreamTimeout
from appliance.exchange import Broken, Exchange, start, start_stream
from appliance.faults import is_cut_off
from appliance.keepalive import retry_after_s
from appliance.metrics import Metrics
from appliance.openai import forward_headers, return_headers
from appliance.pathconstraint import Constraint
from appliance.pathwatch import PathWatch
from appliance.stream import Care, Filter, Stream, Traffic, Watch
from appliance.upstream import Upstream
from appliance.usage import find_usage
from appliance.wireerror import normalise_error
from appliance.wirereply import ChatFilter, alias_reasoning, without_faults

NO_WATCH: Callable[[Exchange], Watch | None] = lambda _exchange: None  # noqa: E731
NO_GUARD: Callable[[Exchange], PathWatch | None] = lambda _exchange: None  # noqa: E731


async def no_constraint(_exchange: Exchange) -> Constraint | None:
    """Constrain nothing."""
    return None


class Replies:
    """Asks the engine, and passes its replies on.

    ``watch`` makes what may end a stream early, ``guard`` what watches a reply's paths,
    ``constrain`` what is added to a request to keep them right.
    """

    def __init__(
        self,
        metrics: Metrics,
        care: Care | None = None,
        watch: Callable[[Exchange], Watch | None] = NO_WATCH,
        guard: Callable[[Exchange], PathWatch | None] = NO_GUARD,
        constrain: Callable[[Exchange], Awaitable[Constraint | None]] = no_constraint,
    ) -> None:
        self._metrics = metrics
        self._care = care or Care()
        self._watch = watch
        self._guard = guard
        self._constrain = constrain
        self._traffic = Traffic()

    @property
    def chunks_received(self) -> int:
        """How many chunks have come from the engine."""
        return self._traffic.chunks

    @property
    def sending(self) -> int:
        """How many replies wait for a client to take what is there."""
        return self._traffic.sending

    async def ask(self, exchange: Exchange, upstream: Upstream, body: bytes, send: Send) -> None:
        """Send a request that has its place, and pass the reply.

        Raises Broken once a head is out, UpstreamError or UpstreamTimeout before that.
        """
        exchange.window = "head"
        constraint, began = await self._constrain(exchange), time.monotonic()
        reply = await self._ask(exchange, upstream, body, constraint)
        try:
            exchange.answered = True
            if reply.status_code in (401, 403):
                # its key is ours to send: the client can do nothing about it
                what = f"the engine refused the appliance's key ({reply.status_code})"
                raise UpstreamError(what, "set APPLIANCE_ENGINE_KEY to the engine's API key")
            await self._pass(exchange, reply, send, began)
        finally:
            reply.close()
            if constraint is not None:
                constraint.note(exchange)

    async def _ask(
        self, exchange: Exchange, upstream: Upstream, body: bytes, constraint: Constraint | None
    ) -> Reply:
        """Ask; where the engine refuses a request that was constrained, again as it came."""
        route, within_s = exchange.route, self._care.deadlines.head_s
        headers = forward_headers(exchange.headers, exchange.request_id)
        if constraint is not None and constraint.is_added:
            added = constraint.added(body)
            exchange.bytes_in = len(added)
            reply = await upstream.ask(route.method, route.path, headers, added, within_s=within_s)
            if reply.status_code != 400:
                return reply
            reply.close()
            constraint.refused()
        exchange.bytes_in = len(body)  # one that is sent again counts once
        return await upstream.ask(route.method, route.path, headers, body, within_s=within_s)

    async def _pass(self, exchange: Exchange, reply: Reply, send: Send, began: float) -> None:
        headers = reply.headers
        kind = headers.get("content-type", "")
        if reply.status_code == 200 and kind.startswith("text/event-stream"):
            exchange.window = "prefill"
            if not exchange.started:
                with self._traffic.waiting():
                    await start_stream(exchange, headers, send)
            await self._stream(exchange, reply, send, began)
        elif exchange.started:
            # Its 200 was given while the engine was away. A client does not ask again after an
            # error event; after a torn stream it does, and then meets the true status.
            raise Broken(f"the engine answered {reply.status_code} where a stream was begun")
        else:
            exchange.status = reply.status_code
            await self._whole(exchange, reply, headers, send, began)

    async def _stream(self, exchange: Exchange, reply: Reply, send: Send, began: float) -> None:
        is_chat = exchange.route.path == "/v1/chat/completions"
        filters: tuple[Filter, ...] = (ChatFilter().apply if is_chat else without_faults,)
        stream = Stream(
            exchange,
            reply,
            send,
            self._care,
            self._metrics,
            began=began,
            filters=filters,
            watch=self._watch(exchange),
            guard=self._guard(exchange),
            traffic=self._traffic,
        )
        try:
            last = await stream.run()
        except httpx.HTTPError as cause:
            raise Broken(f"the engine broke off: {type(cause).__name__}") from cause
        self._count_tokens(last)

    async def _whole(
        self, exchange: Exchange, reply: Reply, head: dict[str, str], send: Send, began: float
    ) -> None:
        """Pass a reply that is no stream: read whole, aliased or its error shape made one."""
        body = await self._read(reply, began)
        self._traffic.chunks += 1
        if reply.status_code >= 400:
            anthropic = exchange.route.is_anthropic
            body = normalise_error(reply.status_code, body, anthropic=anthropic)
        elif exchange.route.gated:
            if is_cut_off(body):
                raise UpstreamError("the engine was stopped in its reply", "retry the request")
            self._count_tokens(body)
            if exchange.route.path == "/v1/chat/completions":
                body = alias_reasoning(body)
            if (guard := self._guard(exchange)) is not None:
                try:
                    body = await guard.whole(body)
                finally:
                    guard.close()
        exchange.ttft_s = exchange.elapsed_s
        exchange.bytes_out = len(body)
        headers = return_headers(head, exchange.request_id)
        headers |= {"content-type": "application/json", "content-length": str(len(body))}
        if reply.status_code in (429, 503):  # clients ask again by themselves if told when
            headers.setdefault("retry-after", str(retry_after_s(0)))
        exchange.started = True
        with self._traffic.waiting():
            await start(send, reply.status_code, headers)
            await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _read(self, reply: Reply, began: float) -> bytes:
        deadlines = self._care.deadlines
        left_s = deadlines.total_s - (time.monotonic() - began)
        try:
            async with asyncio.timeout(max(left_s, 0) if left_s < 1e9 else None):
                return await reply.read(deadlines.part_s)
        except (TimeoutError, httpx.TimeoutException) as cause:
            raise UpstreamTimeout(
                "the engine did not end its reply in time", "retry, or ask for less"
            ) from cause
        except httpx.HTTPError as cause:
            raise UpstreamError(
                f"the engine broke off its reply: {type(cause).__name__}", "retry the request"
            ) from cause

    def _count_tokens(self, reply: bytes) -> None:
        usage = find_usage(reply)
        if usage is None:
            return
        counted = (("prompt", usage.prompt), ("completion", usage.completion))
        for kind, count in (*counted, ("cached", usage.cached)):
            self._metrics.tokens.labels(kind).inc(count)
