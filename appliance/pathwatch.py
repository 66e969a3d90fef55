"""The guard of paths beside the replies: when ledgers are read, and what is told of glitches.

A ledger is read once a reply opens a tool call, and never before: most replies have none. It is
read in short steps, between which others have their turn. Where replies may be mended, the call's
events wait for it; where glitches are only counted, nothing does.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import structlog

from appliance.exchange import Exchange
from appliance.metrics import Metrics
from appliance.openai import NO_JSON
from appliance.pathguard import Judged, PathGuard
from appliance.pathhistory import Reader
from appliance.pathrepair import Mode
from appliance.pathstream import PathFilter, opens_call
from appliance.pathtools import read_tools
from appliance.pathwire import MARKS
from appliance.turns import in_turns

log = structlog.get_logger()


class PathGuards:
    """Makes the watches of all replies. What they have read of a conversation, they share.

    With ``shows_paths`` the log names the paths that were glitched; else it never does.
    """

    def __init__(self, metrics: Metrics, *, shows_paths: bool = False) -> None:
        self._metrics = metrics
        self._shows_paths = shows_paths
        self.reader = Reader(time.perf_counter)

    def watch(self, exchange: Exchange) -> "PathWatch | None":
        """Return what watches one reply's paths, None where nothing is to be watched."""
        if exchange.path_mode is Mode.OFF or exchange.route.path not in MARKS:
            return None
        return PathWatch(exchange, self.reader, lambda judged: self._tell(exchange, judged))

    def _tell(self, exchange: Exchange, judged: Judged) -> None:
        found = judged.finding
        self._metrics.path_glitches.labels(found.kind.value, found.action.value).inc()
        keys = {"id": exchange.request_id, "kind": found.kind.value, "action": found.action.value}
        if found.why is not None:
            keys["why"] = found.why.value
        if self._shows_paths:
            keys |= {"emitted": judged.emitted, "meant": judged.meant}
        log.info("path.glitch", **keys)


class PathWatch:
    """Watches the paths of one reply. ``release`` gets what was held back and may pass now."""

    def __init__(self, exchange: Exchange, reader: Reader, tell: Callable[[Judged], None]) -> None:
        self._exchange = exchange
        self._mode = exchange.path_mode
        self._reader = reader
        self._route = exchange.route.path
        self._filter = PathFilter(self._route, self._mode, self._open, tell)
        self._reading: asyncio.Task[None] | None = None
        self.release: Callable[[bytes], None] = _nobody

    @property
    def holds(self) -> bool:
        """Whether something is held back, so that the reply has not ended with its last byte."""
        return self._mode.mends and (self._is_reading or self._filter.holds)

    def apply(self, events: bytes) -> bytes:
        """Take whole events; return those that may pass now."""
        return self._filter.apply(events)

    def flush(self) -> bytes:
        """Return what is held back, as it came: the stream ends here."""
        return self._filter.rest()

    async def rest(self) -> bytes:
        """Return what is held back still at the stream's end."""
        if self._mode.mends and self._reading is not None:
            await asyncio.wait({self._reading})
        return b"" if self._is_reading else self._filter.rest()

    async def whole(self, body: bytes) -> bytes:
        """Return a reply that is no stream, its paths mended as far as may be."""
        if not opens_call(self._route, body):
            return body
        exchange = self._exchange
        if not self._mode.mends:
            self._begin(self._look(body, exchange.body, exchange.tools))
            return body
        guard = await self._guard(exchange.body, exchange.tools)
        return self._filter.mend_whole(body, guard)

    def close(self) -> None:
        """Let go of all; leave the reading, if a reply that waits for it was broken off."""
        if self._reading is not None and self._mode.mends:
            self._reading.cancel()
        self.release = _nobody
        self._filter.close()

    @property
    def _is_reading(self) -> bool:
        return self._reading is not None and not self._reading.done()

    def _open(self) -> None:
        # the exchange forgets both at its end, which may be before the reading's first step
        self._begin(self._know(self._exchange.body, self._exchange.tools))

    def _begin(self, reading: Coroutine[Any, Any, None]) -> None:
        self._reading = asyncio.ensure_future(reading)
        self._reading.add_done_callback(self._read)

    def _read(self, reading: asyncio.Task[None]) -> None:
        """Let everything pass as it came, if the guard itself has failed."""
        if not reading.cancelled() and (fault := reading.exception()) is not None:
            log.error("path.guard_failed", id=self._exchange.request_id, error=type(fault).__name__)
            self.release(self._filter.rest())

    async def _know(self, request: bytes, tools: bytes | None) -> None:
        self.release(self._filter.know(await self._guard(request, tools)))

    async def _look(self, reply: bytes, request: bytes, tools: bytes | None) -> None:
        self._filter.mend_whole(reply, await self._guard(request, tools))

    async def _guard(self, request: bytes, tools: bytes | None) -> PathGuard:
        ledger = await in_turns(self._reader.read(request))
        return PathGuard(self._mode, read_tools(_decoded(tools)), ledger)


def _decoded(tools: bytes | None) -> object:
    try:
        return msgspec.json.decode(tools or b"null")
    except NO_JSON:  # nested too deep
        return None


def _nobody(_events: bytes) -> None:
    """Release events to nobody."""
