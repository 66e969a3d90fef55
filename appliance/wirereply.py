"""Replies on the wire: reasoning under both names, and signs of life. Pure."""

import re

import msgspec

from appliance.faults import has_engine_fault
from appliance.openai import NO_JSON
from appliance.sse import event_data, split_events, with_data


def alias_reasoning(body: bytes) -> bytes:
    """Return a chat reply (or one chunk's data) with the reasoning under both names.

    vLLM says ``reasoning``; older clients, and Kilo's own echo, say ``reasoning_content``.
    Bytes without the word pass untouched.
    """
    if b'"reasoning"' not in body:
        return body
    try:
        reply = msgspec.json.decode(body)
    except NO_JSON:
        return body
    if not isinstance(reply, dict) or not isinstance(reply.get("choices"), list):
        return body
    changed = False
    for choice in reply["choices"]:
        for name in ("delta", "message"):
            part = choice.get(name) if isinstance(choice, dict) else None
            if isinstance(part, dict) and "reasoning" in part:
                part.setdefault("reasoning_content", part["reasoning"])
                changed = True
    return msgspec.json.encode(reply) if changed else body


def alias_event(event: bytes) -> bytes:
    """Apply ``alias_reasoning`` to one whole event."""
    if b'"reasoning"' not in event:
        return event
    data = event_data(event)
    aliased = alias_reasoning(data)
    return event if aliased is data else with_data(event, aliased)


_OF_THE_STREAM = ("id", "object", "created", "model")

# One chat chunk whose delta holds one text alone, proved from its first byte to its last: only
# simple fields beside it, so that the delta is a choice's own and not one within something else,
# and no finish_reason but null. The head ends, and the tail begins, with the text's own quotes.
_PLAIN = rb'[^"\\\x00-\x1f]*'
_TEXT = rb'%b(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})%b)*' % (_PLAIN, _PLAIN)
_SIMPLE = rb'"(?!choices"|delta"|message"|finish_reason":")%b":(?:null|-?(?:0|[1-9]\d*)|"%b")' % (
    _PLAIN,
    _PLAIN,
)
_CHUNK = re.compile(
    rb'(data: \{(?:%(simple)b,)*"choices":\[\{(?:%(simple)b,)*"delta":\{"(reasoning|content)":")'
    rb"%(text)b"
    rb'("\}(?:,%(simple)b)*\}\](?:,%(simple)b)*\}\n\n)' % {b"simple": _SIMPLE, b"text": _TEXT}
)
_ONE_TEXT = re.compile(_TEXT)
_ALSO = b'","reasoning_content":"'
QUOTE, BACKSLASH = b'"\\'
_NO_HEAD = b"\0"  # no event begins so


class ChatFilter:
    """``has_engine_fault`` and ``alias_event`` over one chat stream, for next to nothing a chunk.

    The chunks of a stream differ in their text alone. Once one of them is proved, its head and
    tail prove the others, as long as what stands between is the text of one JSON string.
    """

    def __init__(self) -> None:
        self._head = _NO_HEAD
        self._tail = b""
        self._begin = self._end = 0
        self._is_reasoning = False

    def apply(self, events: bytes) -> bytes | None:
        """Return whole events with the reasoning under both names; None if the engine failed."""
        head, tail = self._head, self._tail
        if events.startswith(head) and events.endswith(tail):
            text = events[self._begin : self._end]
            # by number: bytes in bytes raises and clears an error first, ten times the cost
            if text and QUOTE not in text and (BACKSLASH not in text or _ONE_TEXT.fullmatch(text)):
                if self._is_reasoning:
                    return b"".join((head, text, _ALSO, text, tail))
                return events
        if has_engine_fault(events):
            return None
        if b'"reasoning"' in events:
            return b"".join(map(self._one, split_events(events)))
        self._learn(events)
        return events

    def _learn(self, event: bytes) -> bool:
        """Take a chunk for what the next ones look like, if it can be proved."""
        proved = _CHUNK.fullmatch(event)
        if proved is None:
            return False
        self._head, name, self._tail = proved.groups()
        self._begin, self._end = len(self._head), -len(self._tail)
        self._is_reasoning = name == b"reasoning"
        return True

    def _one(self, event: bytes) -> bytes:
        if b'"reasoning"' not in event:
            return event
        if not (self._learn(event) and self._is_reasoning):
            return alias_event(event)
        text = event[self._begin : self._end]
        return b"".join((self._head, text, _ALSO, text, self._tail))


def without_faults(events: bytes) -> bytes | None:
    """Return whole events as they are; None if one of them tells that the engine failed."""
    return None if has_engine_fault(events) else events


def empty_chunk(events: bytes) -> bytes:
    """Return a chunk that says nothing more, of the stream that began with ``events``.

    Clients that time the data they read, and skip comments, take it for a sign of life. Returns
    nothing where the stream's own id cannot be learned.
    """
    for event in split_events(events):
        try:
            chunk = msgspec.json.decode(event_data(event))
        except NO_JSON:
            continue
        if isinstance(chunk, dict) and "id" in chunk and "choices" in chunk:
            told = {name: chunk[name] for name in _OF_THE_STREAM if name in chunk}
            return b"data: " + msgspec.json.encode({**told, "choices": []}) + b"\n\n"
    return b""
