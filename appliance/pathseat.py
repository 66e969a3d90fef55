"""The seat of the path guard in the relay: reads the ledger while others have their turn."""

import asyncio
import time
from collections.abc import Callable, Mapping

import msgspec

from appliance.errors import RequestError
from appliance.openai import NO_JSON
from appliance.pathguard import Judged, PathGuard
from appliance.pathhistory import Reader
from appliance.pathrepair import Mode
from appliance.pathstream import PathFilter, opens_call
from appliance.pathtools import read_tools
from appliance.pathwire import MARKS

HEADER = "x-unglitched-path-guard"

Give = Callable[[], None]


class _Offered(msgspec.Struct):
    tools: msgspec.Raw = msgspec.Raw(b"null")


def mode_of(headers: Mapping[str, str], default: Mode) -> Mode:
    """Return the mode that a request asks for. Raises RequestError for a word we do not know."""
    value = headers.get(HEADER, default.value).strip().lower()
    try:
        return Mode(value)
    except ValueError:
        words = ", ".join(mode.value for mode in Mode)
        raise RequestError(
            400,
            "bad_header",
            f"{HEADER}: {value!r} is no mode of the guard",
            f"send one of {words}",
        ) from None


class PathSeat:
    """Makes a guard for each reply; all share what has been read of conversations.

    ``tell`` is called for each glitch, with the paths: what it tells on is its own decision.
    """

    def __init__(self, tell: Callable[[Judged], None]) -> None:
        self._tell = tell
        self._reader = Reader(time.perf_counter)

    def guard(self, route: str, mode: Mode, body: bytes) -> "ReplyGuard | None":
        """Return the guard of the reply to ``body``, as it was sent to the engine; None for off."""
        if mode is Mode.OFF or route not in MARKS:
            return None
        return ReplyGuard(self._reader, route, mode, body, self._tell)


class ReplyGuard:
    """Guards one reply. ``apply`` is a filter of its stream; what it holds back comes by ``give``.

    ``give`` is called when events that waited for the ledger may pass: it is to call ``released``
    and pass on what that returns, before anything else passes.
    """

    def __init__(
        self, reader: Reader, route: str, mode: Mode, body: bytes, tell: Callable[[Judged], None]
    ) -> None:
        self._reader = reader
        self._route = route
        self._mode = mode
        self._body = body
        self._filter = PathFilter(route, mode, self._open, tell)
        self._reading: asyncio.Task[None] | None = None
        self._known: PathGuard | None = None
        self.give: Give = lambda: None
        self.apply = self._filter.apply

    @property
    def mended(self) -> int:
        """How many paths of this reply were mended."""
        return self._filter.mended

    def released(self) -> bytes:
        """Return the events that waited for the ledger; nothing as long as it is not read."""
        return b"" if self._known is None else self._filter.know(self._known)

    async def rest(self) -> bytes:
        """Return what is held back when the stream has ended; its last glitches are told too."""
        if self._reading is not None:
            await self._reading
        return self.released() + self._filter.rest()

    def close(self) -> None:
        """Stop reading: nobody waits for it any more."""
        if self._reading is not None:
            self._reading.cancel()

    async def whole(self, body: bytes) -> bytes:
        """Return a reply that is no stream, mended as far as may be."""
        if not opens_call(self._route, body):
            return body
        return self._filter.mend_whole(body, await self._read())

    def _open(self) -> None:
        self._reading = asyncio.ensure_future(self._learn())

    async def _learn(self) -> None:
        self._known = await self._read()
        self.give()

    async def _read(self) -> PathGuard:
        steps = self._reader.read(self._body)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return PathGuard(self._mode, read_tools(_tools(self._body)), end.value)
            await asyncio.sleep(0)


def _tools(body: bytes) -> object:
    try:
        return msgspec.json.decode(msgspec.json.decode(body, type=_Offered).tools)
    except (*NO_JSON, msgspec.ValidationError):
        return None
