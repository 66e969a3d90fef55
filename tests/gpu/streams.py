"""Streams of a chat endpoint, timed at the socket: when each chunk came, and how many there were.

One small HTTP/1.1 client over asyncio, the same for both ways, so that what differs is the way. A
read that brings events is one arrival; several events in one read came at the same moment.
"""

import asyncio
import gc
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from appliance.openai import INJECTION_HEADER
from tests.gpu.box import MODEL, Program

CHAT = "/v1/chat/completions"
EVENT = b"data: {"  # begins each event but the last one, [DONE]
LAST_CHUNK = b"\r\n0\r\n\r\n"  # of an answer on a connection that is kept


@dataclass
class Moments:
    """When each event of a stream came, as its bytes come in pieces of any size."""

    each: list[float] = field(default_factory=list)
    _tail: bytes = b""

    def see(self, data: bytes, now: float) -> None:
        """Note the events that begin with these bytes."""
        text = self._tail + data
        self.each += [now] * text.count(EVENT)
        self._tail = text[-(len(EVENT) - 1) :]


@dataclass
class Stream:
    """One streamed answer; moments are seconds of the monotonic clock."""

    asked: float
    moments: list[float] = field(default_factory=list)  # of each event
    seed: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    text: str = ""

    @property
    def arrivals(self) -> list[float]:
        """When something of the answer came.

        The first event names the role alone, and comes before the model has done anything.
        """
        return sorted(set(self.moments[1:]))

    @property
    def ttft_s(self) -> float:
        """From the question to the first event that holds something of the answer."""
        return self.arrivals[0] - self.asked

    @property
    def gaps_s(self) -> list[float]:
        """Between one arrival and the next."""
        return [b - a for a, b in zip(self.arrivals, self.arrivals[1:], strict=False)]

    @property
    def tokens(self) -> int:
        """What the engine counted."""
        return int(self.usage.get("completion_tokens", 0))


@dataclass(frozen=True)
class Way:
    """One way to an engine: direct, or through the appliance."""

    name: str
    host: str
    port: int
    key: str

    @classmethod
    def to(cls, program: Program, name: str) -> "Way":
        """Return the way to a program's address."""
        host, _, port = program.base_url.removeprefix("http://").partition(":")
        return cls(name, host, int(port), program.key)

    def request(self, body: dict[str, Any], path: str = CHAT) -> bytes:
        """Return the bytes of one request. The path prompt is off: both ways send the same."""
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {self.host}:{self.port}\r\n"
            f"authorization: Bearer {self.key}\r\ncontent-type: application/json\r\n"
            f"{INJECTION_HEADER}: off\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data


def question(words: str, max_tokens: int, **more: Any) -> dict[str, Any]:
    """Return the body of a streamed chat request that goes on to ``max_tokens``."""
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": words}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": max_tokens,
        "ignore_eos": True,
        **more,
    }


async def read_stream(
    way: Way, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Stream:
    """Ask once, and return what came when. Raises RuntimeError for anything but a whole stream."""
    request = way.request(body)
    stream = Stream(time.monotonic(), seed=body.get("seed", 0))
    writer.write(request)
    seen, moments = b"", Moments(stream.moments)
    while not seen.endswith(LAST_CHUNK) and (data := await reader.read(1 << 16)):
        moments.see(data, time.monotonic())
        seen += data
    _finish(stream, seen)
    return stream


def _finish(stream: Stream, seen: bytes) -> None:
    head, _, rest = seen.partition(b"\r\n\r\n")
    if b" 200 " not in head[:20] or b"data: [DONE]" not in rest:
        raise RuntimeError(f"no whole stream: {seen[:300]!r} ... {seen[-200:]!r}")
    for line in rest.split(b"\n"):
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            stream.usage = event.get("usage") or stream.usage
            for choice in event.get("choices", ()):
                delta = choice["delta"]
                stream.text += (delta.get("reasoning") or "") + (delta.get("content") or "")


def ask_at_once(way: Way, bodies: Sequence[dict[str, Any]]) -> list[Stream]:
    """Ask all at the same time; return all streams."""
    return ask_in_turn(way, [[body] for body in bodies])


def ask_in_turn(
    way: Way, clients: Sequence[Sequence[dict[str, Any]]], apart_s: float = 0.0
) -> list[Stream]:
    """Let clients ask at the same time, each one thing after the other; return all streams.

    Each keeps its connection, as agents do, and begins ``apart_s`` seconds after the one before.
    """

    async def client(number: int, bodies: Sequence[dict[str, Any]]) -> list[Stream]:
        await asyncio.sleep(number * apart_s)
        reader, writer = await asyncio.open_connection(way.host, way.port)
        try:
            return [await read_stream(way, body, reader, writer) for body in bodies]
        finally:
            writer.close()

    async def all_of_them() -> list[Stream]:
        told = await asyncio.gather(*(client(*each) for each in enumerate(clients)))
        return [stream for streams in told for stream in streams]

    gc.collect()
    gc.disable()  # a collection would be counted as a gap
    try:
        return asyncio.run(all_of_them())
    finally:
        gc.enable()


def leave_after(way: Way, body: dict[str, Any], seconds: float) -> float:
    """Ask, and hang up after so many seconds; return the moment of leaving."""

    async def leave() -> float:
        _, writer = await asyncio.open_connection(way.host, way.port)
        writer.write(way.request(body))
        await writer.drain()
        await asyncio.sleep(seconds)
        writer.transport.abort()
        return time.monotonic()

    return asyncio.run(leave())
