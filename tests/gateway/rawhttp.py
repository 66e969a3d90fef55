"""Requests as bytes: a few good ones, and every known way to be a bad HTTP client. Pure."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from appliance.probes import GREETING, user
from tests.engines import MODEL

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": MODEL, "messages": [user(GREETING)], "max_tokens": 5}).encode()
STREAM = json.dumps({"model": MODEL, "messages": [user(GREETING)], "stream": True}).encode()
PATHS = (CHAT, "/v1/messages", "/v1/models", "/health", "/metrics", "/appliance/v1/status", "/x")


@dataclass(frozen=True)
class Case:
    """Pieces to send one after the other, and how to leave.

    ``leave``: ``read`` until the server says no more, ``half`` closes the sending side first,
    ``drop`` closes at once, ``reset`` so that the server meets an error.
    ``replies`` is how many 200s must come, None where any refusal will do.
    """

    name: str
    pieces: tuple[bytes, ...]
    leave: str = "read"
    replies: int | None = None

    def __str__(self) -> str:
        shown = b"".join(self.pieces)[:200]
        return f"{self.name} ({len(self.pieces)} pieces, then {self.leave}): {shown!r}"


@dataclass(frozen=True)
class Maker:
    """Makes cases, all from one seed."""

    key: str
    random: random.Random

    def head(self, *lines: str, method: str = "POST", path: str = CHAT, host: str = "box") -> bytes:
        """Return a request's head with the key."""
        first = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {self.key}"]
        return ("\r\n".join([*first, *lines]) + "\r\n\r\n").encode("latin-1")

    def good(self, body: bytes = BODY) -> bytes:
        """Return a request that is answered with 200."""
        return self.head("Content-Type: application/json", f"Content-Length: {len(body)}") + body

    def chunked(self, *chunks: bytes) -> bytes:
        """Return a request whose body's framing is as given."""
        return self.head("Content-Type: application/json", "Transfer-Encoding: chunked") + b"".join(
            chunks
        )

    def cut(self, data: bytes, pieces: int) -> tuple[bytes, ...]:
        """Cut bytes into so many pieces, at random."""
        at = sorted(self.random.sample(range(1, len(data)), min(pieces - 1, len(data) - 1)))
        return tuple(data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True))

    def next(self) -> Case:
        """Return the next case."""
        return self.random.choice(KINDS)(self)


def _frame(chunk: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(chunk), chunk)


def good_chunking(m: Maker) -> Case:
    """A body in chunks of any size, with an extension and a trailer: all allowed."""
    chunks = [_frame(piece) for piece in m.cut(BODY, m.random.randint(2, 9))]
    first = chunks[0].replace(b"\r\n", b';name="value"\r\n', 1)
    last = m.random.choice([b"0\r\n\r\n", b"0\r\nX-Trailer: 1\r\n\r\n"])
    return Case("chunked", (m.chunked(first, *chunks[1:], last),), replies=1)


def bad_chunking(m: Maker) -> Case:
    """A chunk whose framing is wrong."""
    wrong = [
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"zz\r\nhello\r\n",
        b"5\r\nhello world\r\n0\r\n\r\n",
        b"FFFFFFFFFFFFFFFFFF\r\nx",
        b"7fffffffffffffff\r\nx",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"\r\n\r\n\r\n",
        b"5;" + b"e" * m.random.choice([100, 70_000]) + b"\r\nhello\r\n0\r\n\r\n",
        _frame(BODY),
        _frame(BODY) + b"0\r\n",
        _frame(BODY) + b"0\r\nTrailer\r\n\r\n",
        _frame(BODY[:9]) + b"0\r\n\r\n",
    ]
    data = m.chunked(m.random.choice(wrong))
    return Case("bad chunking", (data,), m.random.choice(["read", "half", "drop"]))


def bad_lengths(m: Maker) -> Case:
    """Lengths that contradict each other, or the body."""
    size = len(BODY)
    lines = m.random.choice(
        [
            ("Content-Length: -1",),
            ("Content-Length: +5",),
            ("Content-Length: 99999999999999999999",),
            ("Content-Length: 1e3",),
            ("Content-Length: ",),
            (f"Content-Length: {size}, {size}",),
            (f"Content-Length: {size}", f"Content-Length: {size + 1}"),
            (f"Content-Length: {size}", "Transfer-Encoding: chunked"),
            ("Transfer-Encoding: chunked", f"Content-Length: {size}"),
            ("Transfer-Encoding: gzip, chunked",),
            ("Transfer-Encoding: chunked, identity",),
            ("Transfer-Encoding: xchunked",),
            (f"Content-Length: {size + 50}",),
            (f"Content-Length: {size - 5}",),
            ("Content-Length : 5",),
            (f"Content-Length:\t{size}\t",),
        ]
    )
    data = m.head("Content-Type: application/json", *lines) + BODY
    return Case("bad lengths", (data,), m.random.choice(["read", "half", "drop"]))


def slow_head(m: Maker) -> Case:
    """A head in single strokes; then it goes on, or it does not."""
    data = m.good()
    pieces = m.cut(data, m.random.randint(10, 60))
    if m.random.random() < 0.5:
        return Case("slow", pieces, replies=1)
    return Case("slow, given up", pieces[: len(pieces) // 2], "drop")


def slow_body(m: Maker) -> Case:
    """A body in single strokes behind a head at once."""
    data = m.good(m.random.choice([BODY, STREAM]))
    head, _, body = data.partition(b"\r\n\r\n")
    pieces = (head + b"\r\n\r\n", *m.cut(body, m.random.randint(5, 30)))
    if m.random.random() < 0.5:
        return Case("slow body", pieces, replies=1)
    return Case("slow body, given up", pieces[:-1], m.random.choice(["half", "drop", "reset"]))


def huge_head(m: Maker) -> Case:
    """One header, or the path, or their number, beyond all reason."""
    size = m.random.choice([9_000, 70_000, 400_000])
    many = [f"X-{n}: {n}" for n in range(m.random.choice([150, 5_000]))]
    data = m.random.choice(
        [
            m.head("X-Large: " + "a" * size, method="GET", path="/health"),
            m.head("X" * size + ": 1", method="GET", path="/health"),
            m.head(*many, method="GET", path="/health"),
            m.head(method="GET", path="/health?" + "q" * size),
            m.head(method="GET", path="/" + "p" * size),
            m.head(f"Cookie: {'c=d; ' * (size // 6)}", f"Content-Length: {len(BODY)}") + BODY,
            m.head(method="M" * size),
        ]
    )
    return Case("huge head", (data,), m.random.choice(["read", "drop"]))


def pipelined(m: Maker) -> Case:
    """Several requests in one write: each is answered, in order."""
    count = m.random.randint(2, 6)
    data = b"".join(m.good() for _ in range(count))
    return Case("pipelined", m.cut(data, m.random.choice([1, 1, 3])), replies=count)


def pipelined_behind_a_bad_one(m: Maker) -> Case:
    """Requests behind one that is wrong."""
    bad = m.random.choice([b"NONSENSE\r\n\r\n", m.head("Content-Length: x"), b"\x16\x03\x01\x02"])
    return Case("behind a bad one", (m.good() + bad + m.good(),))


def half_closed(m: Maker) -> Case:
    """A client that says it will send no more, somewhere in or behind its request."""
    data = m.good(m.random.choice([BODY, STREAM]))
    end = m.random.choice([len(data), m.random.randrange(1, len(data))])
    return Case("half-closed", (data[:end],), "half")


def truncated(m: Maker) -> Case:
    """A good request that ends early."""
    data = m.good()
    return Case(
        "truncated", (data[: m.random.randrange(len(data))],), m.random.choice(["drop", "reset"])
    )


def left(m: Maker) -> Case:
    """A good request whose client does not wait for the answer."""
    return Case("left", (m.good(STREAM),), m.random.choice(["drop", "reset"]))


def noise(m: Maker) -> Case:
    """Bytes that are no HTTP."""
    size = m.random.choice([1, 20, 3_000])
    data = m.random.choice(
        [
            m.random.randbytes(size),
            b"\x00" * size,
            b"\r\n" * size,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + m.random.randbytes(64),
        ]
    )
    return Case("noise", (data,), m.random.choice(["read", "half", "drop"]))


def mutated(m: Maker) -> Case:
    """A good request in which some bytes are others."""
    data = bytearray(m.good())
    for _ in range(m.random.randint(1, 6)):
        at = m.random.randrange(len(data))
        data[at] = m.random.choice([0, 10, 13, 32, 58, 255, m.random.randrange(256)])
    return Case("mutated", (bytes(data),), m.random.choice(["read", "half"]))


def odd_words(m: Maker) -> Case:
    """Methods, targets and headers that are legal, or nearly, and rare."""
    path = m.random.choice(PATHS)
    lines = m.random.choice(
        [
            ("Expect: 100-continue", f"Content-Length: {len(BODY)}"),
            ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
            ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"),
            ("Host: other",),
            ("X-Request-Id: \xff\x80",),
            ("X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "Forwarded: for=x"),
            ("Range: bytes=0-1",),
            ("Accept-Encoding: gzip, br", "TE: trailers"),
            (" folded: 1",),
            ("Empty:",),
            ("Connection: close",),
        ]
    )
    method = m.random.choice(["GET", "POST", "HEAD", "OPTIONS", "DELETE", "CONNECT", "TRACE"])
    target = m.random.choice([path, f"http://box{path}", "*", f"{path}?a=%zz&b", f"//{path}", "%"])
    return Case("odd", (m.head(*lines, method=method, path=target),), "half")


KINDS: tuple[Callable[[Maker], Case], ...] = (
    good_chunking,
    bad_chunking,
    bad_lengths,
    slow_head,
    slow_body,
    huge_head,
    pipelined,
    pipelined_behind_a_bad_one,
    half_closed,
    truncated,
    left,
    noise,
    mutated,
    odd_words,
)
