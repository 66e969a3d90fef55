"""Streams that would not end: a text that repeats itself, or a thought without an end. Pure.

A watch holds what passes and looks at it now and then: the cost of a look is shared by many
chunks. Replies that are no streams are not watched: of them there is nothing to see before
their end, and only the request's own limit of tokens bounds them.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from appliance.openai import NO_JSON
from appliance.sse import event_data, split_events

LOOK_EACH = 64  # pieces of a stream between two looks,
LOOK_BYTES = 2**15  # or so many bytes, where a piece holds many events
LONGEST = 256  # bytes of what is repeated: a sentence or two
LEAST_CHARACTERS = 2_000  # of repetition: a long rule of dashes is none
BYTES_A_TOKEN = 4  # as tokenizers go, for pieces that hold several

_CHAT, _MESSAGES, _RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
# Before each bit of text, by route; within a JSON string these quotes would be escaped.
_TEXTS: Mapping[str, tuple[bytes, ...]] = {
    _CHAT: (b'"content":"', b'"reasoning":"', b'"arguments":"'),
    "/v1/completions": (b'"text":"',),
    _MESSAGES: (b'"text":"', b'"thinking":"', b'"partial_json":"'),
    _RESPONSES: (b'"delta":"',),
}
_THOUGHTS: Mapping[str, bytes] = {
    _CHAT: b'"reasoning":"',
    _MESSAGES: b'"thinking":"',
    _RESPONSES: b'"type":"response.reasoning_text.delta"',
}
_SECOND_NAME = b'","reasoning_content":"'  # of the same text, which is to be read once
_ENDS = (b'"finish_reason":"', b'"stop_reason":"', b"event: response.completed", b"data: [DONE]\n")
_STRING_END = re.compile(rb'(?:[^"\\]|\\.)*')
_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{4}|.)")
_CHOICE = re.compile(rb'"choices":\s*\[\{"index":\s*(\d+)')
_INDEX = re.compile(rb'"index":\s*(\d+)')
_SEQUENCE = re.compile(rb'"sequence_number":\s*(\d+)')


@dataclass(frozen=True)
class RunawayPolicy:
    """When a stream has run away.

    ``repeats``: how often in a row it says the same, 0 for never; ``thinking_budget``: about how
    many tokens of reasoning it may take, None for as many as it likes.
    """

    repeats: int = 0
    thinking_budget: int | None = None

    def watch(self, path: str, on_stop: Callable[[str], None]) -> "RunawayWatch | None":
        """Return a watch over one stream of a route; None where there is nothing to watch for.

        ``on_stop`` is told what it was ended for: ``loop`` or ``thinking``.
        """
        if path not in _TEXTS or not (self.repeats or self.thinking_budget):
            return None
        return RunawayWatch(self, path, on_stop)


class RunawayWatch:
    """Watches one stream."""

    def __init__(self, policy: RunawayPolicy, path: str, on_stop: Callable[[str], None]) -> None:
        self._policy = policy
        self._path = path
        self._on_stop = on_stop
        self._held: list[bytes] = []
        self._size = 0
        self._first = b""
        self._text = StreamText(_TEXTS[path])
        self._loop = Repetition(policy.repeats)
        self._thought = 0
        self._pieces = 0

    def feed(self, events: bytes) -> bytes | None:
        """Take whole events. Return what to send in their place, and end; None to go on."""
        held = self._held
        held.append(events)
        self._size += len(events)
        if len(held) < LOOK_EACH and self._size < LOOK_BYTES:
            return None
        self._first = self._first or held[0]
        self._pieces += len(held)
        self._held, self._size = [], 0
        kind = self._look(held)
        if not kind:
            return None
        joined = b"".join(held)
        if any(mark in joined for mark in _ENDS):
            return None
        self._on_stop(kind)
        return events + self._end(joined)

    def _look(self, held: list[bytes]) -> str:
        text = self._text.of(held)
        if self._policy.repeats:
            self._loop.add(text)
            if self._loop.is_one:
                return "loop"
        budget, mark = self._policy.thinking_budget, _THOUGHTS.get(self._path)
        if budget and mark and mark in held[-1]:
            self._thought += max(len(held), len(text) // BYTES_A_TOKEN)
            return "thinking" if self._thought > budget else ""
        return ""

    def _end(self, joined: bytes) -> bytes:
        last = last_event(joined)
        if self._path == _MESSAGES:
            return _end_message(last, self._pieces)
        if self._path == _RESPONSES:
            return _end_response(self._first, last)
        return _end_chunks(joined, last, is_chat=self._path == _CHAT)


class StreamText:
    """Reads the text out of a stream's events, as JSON spells it.

    The events of a stream differ in their text alone: its head and tail are learned of one, and
    cut off the others.
    """

    def __init__(self, marks: tuple[bytes, ...]) -> None:
        self._marks = marks
        self._head = self._tail = self._twice = b""

    def of(self, pieces: Sequence[bytes]) -> bytes:
        """Return the text of pieces that hold whole events, mostly one each."""
        head, tail = self._head, self._tail
        if head:
            alike = [p for p in pieces if p.startswith(head) and p.endswith(tail)]
            if len(alike) == len(pieces):
                text = self._cut(alike)
                if b"\n" not in text:  # of a JSON string it is no part
                    return text
        joined = b"".join(pieces)
        mark = max(self._marks, key=joined.count)
        self._learn(last_event(joined), mark)
        return b"".join(_texts_after(joined, mark))

    def _cut(self, pieces: list[bytes]) -> bytes:
        begin, end = len(self._head), len(self._tail)
        if not self._twice:
            return b"".join([p[begin:-end] for p in pieces])
        around = begin + len(self._twice) + end
        return b"".join([p[begin : begin + (len(p) - around >> 1)] for p in pieces])

    def _learn(self, event: bytes, mark: bytes) -> None:
        begin = event.find(mark)
        self._head = self._tail = self._twice = b""
        if begin < 0 or not (found := _STRING_END.match(event, begin + len(mark))):
            return
        self._head, self._tail = event[: found.start()], event[found.end() :]
        if self._tail.startswith(_SECOND_NAME + found[0]):
            self._twice = _SECOND_NAME
            self._tail = self._tail[len(_SECOND_NAME) + len(found[0]) :]


def _texts_after(joined: bytes, mark: bytes) -> Iterator[bytes]:
    parts = iter(joined.split(mark))
    next(parts)
    for part in parts:
        found = _STRING_END.match(part)
        yield found[0] if found else b""


def last_event(joined: bytes) -> bytes:
    """Return the last of whole events."""
    return joined[joined.rfind(b"\n\n", 0, -2) + 2 :] if b"\n\n" in joined[:-2] else joined


class Repetition:
    """Tells whether a growing text ends in the same piece, again and again."""

    def __init__(self, repeats: int) -> None:
        self._repeats = repeats
        self._keep = max(repeats * LONGEST, 4 * LEAST_CHARACTERS)
        self._tail = bytearray()

    def add(self, text: bytes) -> None:
        """Take the text that comes next."""
        self._tail += text
        del self._tail[: -self._keep]

    @property
    def is_one(self) -> bool:
        """Whether what came last is one piece, so often in a row, and long enough."""
        tail = self._tail
        period = _period(tail)
        if not period:
            return False
        if period % 2 and not tail[-period:].strip(b"\\"):
            period *= 2  # a backslash is spelled as two: one alone is half a piece
        characters = characters_of(bytes(tail[-period:]))
        times = max(self._repeats, -(-LEAST_CHARACTERS // characters))
        size = times * period
        return len(tail) >= size and tail[-size:-period] == tail[period - size :]


def characters_of(piece: bytes) -> int:
    """Return how many characters a repeated piece of a JSON string stands for, 1 at least.

    It may begin within a character, or within its spelling; it holds the rest of that at its end.
    """
    whole = _ESCAPE.sub(b"x", piece)
    return max(1, sum(byte & 0xC0 != 0x80 for byte in whole))


def _period(tail: bytearray) -> int:
    """Return the length of what the last bytes repeat, 0 for nothing.

    The last LONGEST bytes are sought before the end. Where they are found first, that far back
    is the length: a shorter one would have been found earlier.
    """
    size = len(tail)
    found = tail.rfind(tail[-LONGEST:], max(0, size - 2 * LONGEST), size - 1)
    return size - LONGEST - found if found >= 0 and size > LONGEST else 0


# ---- the ends, as each route's clients read them


def _event(value: dict[str, Any], *, named: bool = True) -> bytes:
    name = b"event: " + value["type"].encode() + b"\n" if named else b""
    return name + b"data: " + msgspec.json.encode(value) + b"\n\n"


def _decoded(event: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(event_data(event))
    except NO_JSON:
        return {}
    return value if isinstance(value, dict) else {}


def _end_chunks(joined: bytes, last: bytes, *, is_chat: bool) -> bytes:
    told = _decoded(last)
    names = ("id", "object", "created", "model")
    chunk: dict[str, Any] = {name: told[name] for name in names if name in told}
    said: dict[str, Any] = {"delta": {}} if is_chat else {"text": "", "logprobs": None}
    indexes = sorted({int(index) for index in _CHOICE.findall(joined)}) or [0]
    choices = [{"index": index, **said, "finish_reason": "length"} for index in indexes]
    return _event({**chunk, "choices": choices}, named=False) + b"data: [DONE]\n\n"


def _end_message(last: bytes, pieces: int) -> bytes:
    found = _INDEX.search(last)
    delta = {"stop_reason": "max_tokens", "stop_sequence": None}
    # its clients want a number of tokens: each piece was one at least
    usage = {"output_tokens": pieces}
    return (
        (_event({"type": "content_block_stop", "index": int(found[1])}) if found else b"")
        + _event({"type": "message_delta", "delta": delta, "usage": usage})
        + _event({"type": "message_stop"})
    )


def _end_response(first: bytes, last: bytes) -> bytes:
    begun = next((_decoded(event) for event in split_events(first)), {}).get("response")
    response = dict(begun) if isinstance(begun, dict) else {}
    response |= {
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
    }
    found = _SEQUENCE.search(last)
    number = int(found[1]) + 1 if found else 0
    return _event({"type": "response.incomplete", "response": response, "sequence_number": number})
