"""What is known of one request while it is carried, and the client's side of its wire."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Send

from appliance.errors import ApplianceError, RequestError
from appliance.intake import Intake
from appliance.keys import NOBODY, Caller
from appliance.openai import RelayRoute, stream_headers
from appliance.pathrepair import Mode
from appliance.sizes import format_size

CALLER_KEY = "appliance.caller"  # where the door leaves who asks, in the ASGI scope
DRAIN_S = 5.0  # how long an oversized body is read on, so that its sender can read the 413


class HangUp(Exception):
    """The client left before its request was whole. Not an error."""


class Broken(Exception):
    """The engine failed after the head: the reply cannot be mended, only broken off."""


@dataclass
class Exchange:
    """What is known of one request while it is carried; times are monotonic seconds.

    ``started``: a head is out, the engine's or ours; ``answered``: the engine's has come.
    """

    route: RelayRoute
    headers: Mapping[str, str]
    request_id: str
    arrived: float = field(default_factory=time.monotonic)
    window: str = "body"
    streaming: bool = False
    body_bytes: int = 0
    queued_at: float = 0.0
    beat_at: float = math.inf
    status: int = 0
    started: bool = False
    answered: bool = False
    is_over: bool = False  # the client has been sent its last byte
    chunks: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    queued_s: float = 0.0
    ttft_s: float | None = None
    caller: Caller = NOBODY
    # For the guard of paths, where one is wanted: what the client sent, and the tools in it.
    path_mode: Mode = Mode.OFF
    body: bytes = b""
    tools: bytes | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request arrived."""
        return time.monotonic() - self.arrived

    def log_keys(self, outcome: str, error: ApplianceError | None) -> dict[str, Any]:
        """Return what the log tells of it: never what it said."""
        keys: dict[str, Any] = {
            "id": self.request_id,
            "route": self.route.path,
            "key": self.caller.share.key,
            "outcome": outcome,
            "status": self.status,
            "seconds": round(self.elapsed_s, 3),
            "queued_s": round(self.queued_s, 3),
            "chunks": self.chunks,
            "bytes": self.bytes_out,
        }
        if self.ttft_s is not None:
            keys["ttft_s"] = round(self.ttft_s, 3)
        if outcome == "hang_up":
            keys["window"] = self.window
        if error is not None:
            keys["error"] = error.code
        return keys


async def read_body(exchange: Exchange, receive: Receive, limit: int, intake: Intake) -> bytes:
    """Return the body as it came, its bytes counted in ``intake`` and ``exchange.body_bytes``.

    Raises RequestError 413 for more than ``limit`` bytes, 429 where all bodies are too many.

    Of a body that is too large some more is read, and thrown away: its sender would meet a
    reset, and not our answer.
    """
    announced = int(exchange.headers.get("content-length", "0"))
    is_large = announced > limit
    if not is_large:
        _count(exchange, intake, announced)
    first = await _part(receive) if not is_large else (b"", True)
    if announced and not first[1] and not is_large:
        return first[0]  # most bodies come in one piece
    parts: list[bytes] = []
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S if is_large else None) as clock:
            async for part in _parts(first, receive):
                size += len(part)
                if not announced and size <= limit:
                    _count(exchange, intake, len(part))
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


def _count(exchange: Exchange, intake: Intake, size: int) -> None:
    intake.take(size)
    exchange.body_bytes += size


async def _parts(first: tuple[bytes, bool], receive: Receive) -> AsyncIterator[bytes]:
    """Yield the body as it arrives, of which ``first`` is here."""
    part, more = first
    yield part
    while more:
        part, more = await _part(receive)
        yield part


async def _part(receive: Receive) -> tuple[bytes, bool]:
    """Return the next piece, and whether there is more. Raises HangUp if the client leaves."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise HangUp
    return message.get("body", b""), message.get("more_body", False)


def header_texts(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by name, in lower case as the server gives them; of two, the first."""
    texts: dict[str, str] = {}
    for name, value in raw:
        texts.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    return texts


@contextlib.contextmanager
def hang_up_watch(exchange: Exchange, receive: Receive) -> Iterator[None]:
    """Cancel the ``with`` body when the client leaves: it ends with HangUp then.

    From here on ``receive`` belongs to the watch. It also ends when the reply does, which is told
    before the ``with`` body has had its turn where the last byte was sent beside it.
    """
    carrying = asyncio.current_task()
    assert carrying is not None  # noqa: S101  (a coroutine runs in one)
    has_left = False

    async def watch() -> None:
        nonlocal has_left
        while (await receive())["type"] != "http.disconnect":
            pass
        if not exchange.is_over:
            has_left = True
            carrying.cancel()

    watching = asyncio.get_running_loop().create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if has_left and not carrying.uncancel():
            raise HangUp from None
        raise  # the server ends
    finally:
        watching.cancel()


async def start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    """Send the head."""
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def start_stream(exchange: Exchange, headers: Mapping[str, str], send: Send) -> None:
    """Send a stream's head: the engine's ``headers``, or none of its own where it has not come."""
    exchange.started, exchange.status = True, 200
    await start(send, 200, stream_headers(headers, exchange.request_id))
