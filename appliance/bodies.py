"""A request's body, from the client's bytes to those that the engine gets."""

import asyncio
import re

from starlette.types import Receive

from appliance.context import (
    Counter,
    Density,
    Room,
    counter,
    does_not_fit,
    fit,
    is_fitted,
    without_large_limit,
)
from appliance.conversation import Reading, beginning, by_pieces, go_on, read
from appliance.draft import Draft
from appliance.engine import Engine
from appliance.errors import RequestError, UpstreamError
from appliance.exchange import Exchange, read_body
from appliance.intake import TIMES_LARGEST, Intake
from appliance.media import MediaPolicy
from appliance.metrics import Metrics
from appliance.openai import GUARD_HEADER, header_choice, injection_switch
from appliance.pathrepair import Mode
from appliance.pathwire import MARKS as GUARDED
from appliance.prompt import PromptPolicy
from appliance.seen import LEAST_BYTES, Seen
from appliance.turns import in_turns
from appliance.wirebody import check_model, check_text, parse_fields

NO_PROMPT = PromptPolicy("")
NO_MEDIA = MediaPolicy()
COUNT_S = 60.0  # counting 5 MB takes a small box some seconds
_REASONING = re.compile(rb'(?<!\\)"reasoning_content"(?=[ \t\r\n]*:)')


class Bodies:
    """Reads, checks and changes bodies, as the settings ask."""

    def __init__(
        self,
        policy: PromptPolicy,
        metrics: Metrics,
        *,
        served_model: str,
        max_body_bytes: int,
        media: MediaPolicy = NO_MEDIA,
        fit_output: bool = True,
        path_mode: Mode = Mode.OFF,
    ) -> None:
        self._policy = policy
        self._metrics = metrics
        self._served_model = served_model
        self._max_body_bytes = max_body_bytes
        self._media = media
        self._fit_output = fit_output
        self._path_mode = path_mode
        self._intake = Intake(TIMES_LARGEST * max_body_bytes)
        self._seen = Seen()
        self._density = Density()

    async def take(self, exchange: Exchange, receive: Receive) -> Draft:
        """Return what will be sent upstream: read, checked, the prompt in it."""
        if exchange.route.method == "GET":
            return Draft({})
        encoding = exchange.headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity":
            raise RequestError(
                415,
                "unsupported_encoding",
                f"content-encoding {encoding} is not read here",
                "send the body as it is",
            )
        body = await read_body(exchange, receive, self._max_body_bytes, self._intake)
        wanted = injection_switch(exchange.headers) and bool(self._policy.text)
        mode = Mode(header_choice(exchange.headers, GUARD_HEADER, tuple(Mode), self._path_mode))
        reading = Reading(exchange.route, self._policy if wanted else NO_PROMPT, self._media)
        is_long = len(body) >= LEAST_BYTES
        if is_long:
            await asyncio.sleep(0)  # its last bytes have just been copied
        try:
            draft = await self._read(body, reading)
        except RequestError as cause:
            if cause.code in ("unsupported_content", "media_not_allowed"):
                self._metrics.media_refusals.inc()
            raise
        if is_long:
            await asyncio.sleep(0)
        check_model(draft, self._served_model)
        exchange.streaming = exchange.route.may_stream and draft.value("stream") is True
        self._note(exchange, draft, is_injected=wanted)
        if mode is not Mode.OFF and exchange.route.path in GUARDED:
            exchange.path_mode, exchange.body, exchange.tools = mode, body, draft.raw("tools")
        return draft

    def let_go(self, exchange: Exchange) -> None:
        """Forget the bytes of a request that has ended."""
        self._intake.let_go(exchange.body_bytes)
        exchange.body, exchange.tools = b"", None

    async def _read(self, body: bytes, reading: Reading) -> Draft:
        """Read a body; a long one in steps, between which others have their turn."""
        known = self._seen.find(reading.kind, body)
        if known is not None and (went := go_on(body, known, reading)) is not None:
            draft, grown = went
            if grown is not known:
                self._seen.keep(grown)
            return draft
        is_long = len(body) >= LEAST_BYTES
        if is_long and (whole := await self._by_pieces(body, reading)) is not None:
            return whole
        for _ in check_text(body):
            await asyncio.sleep(0)
        fields = parse_fields(body)
        if is_long:
            await asyncio.sleep(0)
        draft, start = read(fields, reading)
        if is_long and start is not None:
            await asyncio.sleep(0)
            new = beginning(body, fields[reading.name], start, reading)
            if new is not None:
                self._seen.keep(new)
        return draft

    async def _by_pieces(self, body: bytes, reading: Reading) -> Draft | None:
        read_so = await in_turns(by_pieces(body, reading))
        if read_so is None:
            return None
        draft, found = read_so
        if found is not None:
            self._seen.keep(found)
        return draft

    def _note(self, exchange: Exchange, draft: Draft, *, is_injected: bool) -> None:
        route = exchange.route
        # /tokenize takes a bare prompt too, which has no place for ours
        has_place = route.prompt != "" and (route.prompt != "messages" or "messages" in draft)
        if is_injected and has_place:
            self._metrics.injected.labels(route.path).inc()
        for kind in draft.repairs:
            self._metrics.history_repairs.labels(kind).inc()

    async def fit(self, exchange: Exchange, draft: Draft, engine: Engine) -> bytes:
        """Return the body to send, its limit of output one that the served context has room for.

        The engine is asked to count where a prompt may be too long; where it cannot tell, it
        decides for itself later. Raises RequestError 400 ``context_length_exceeded``.
        """
        route, served = exchange.route, engine.snapshot.max_model_len
        if route.method == "GET":
            return b""
        if not (self._fit_output and served and is_fitted(route, draft)):
            return draft.encode()
        room, is_removed = without_large_limit(route, draft, served)
        if is_removed:
            self._metrics.clamps.labels("removed").inc()
        body = draft.encode()
        if len(body) >= LEAST_BYTES:
            await asyncio.sleep(0)  # it was copied, and will be written
        counted_by = counter(route)
        if counted_by is None or not room.may_lack(self._density.most_tokens(draft.size)):
            return body
        count = await self._count(counted_by, body, draft, engine)
        return body if count is None else self._fitted(exchange, draft, room, count, body)

    async def _count(
        self, counted_by: Counter, body: bytes, draft: Draft, engine: Engine
    ) -> int | None:
        # The engine renames it for a chat, but not when it counts.
        counted = _REASONING.sub(b'"reasoning"', body)
        try:
            tokens = await engine.upstream.count_tokens(counted_by, counted, COUNT_S)
        except UpstreamError:
            return None
        self._density.note(draft.size, tokens)
        return tokens

    def _fitted(
        self, exchange: Exchange, draft: Draft, room: Room, tokens: int, body: bytes
    ) -> bytes:
        route = exchange.route
        if tokens >= room.served:
            self._metrics.context_refusals.labels(route.path).inc()
            raise does_not_fit(route, tokens, room.served)
        if not fit(room, draft, tokens):
            return body
        self._metrics.clamps.labels("lowered").inc()
        return draft.encode()
