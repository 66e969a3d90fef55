"""Replies on the wire: reasoning under both names, and an engine that failed in them. Pure."""

import re

import msgspec

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

# One chat chunk whose delta holds reasoning alone, proved from its first byte to its last: only
# simple fields beside it, so that the delta is a choice's own and not one within something else.
_STRING = rb'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"'
_SIMPLE = (
    rb'"(?!choices"|delta"|message")[^"\\\x00-\x1f]*":(?:null|-?(?:0|[1-9]\d*)|"[^"\\\x00-\x1f]*")'
)
_CHUNK = re.compile(
    rb'(data: \{(?:%(simple)b,)*"choices":\[\{(?:%(simple)b,)*"delta":\{"reasoning":)'
    rb"(%(string)b)"
    rb"(\}(?:,%(simple)b)*\}\](?:,%(simple)b)*\}\n\n)" % {b"simple": _SIMPLE, b"string": _STRING}
)
_ONE_STRING = re.compile(_STRING)


class ReasoningAlias:
    """``alias_event`` over one stream's events, without reading each of them anew.

    The chunks of a stream differ in their delta alone. Once one of them is proved, its head and
    tail prove the others: what stands between must be one JSON string, and is said twice.
    """

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""

    def apply(self, events: bytes) -> bytes:
        """Return whole events with the reasoning under both names."""
        if b'"reasoning"' not in events:
            return events
        return self._by_bytes(events) or b"".join(map(self._one, split_events(events)))

    def _one(self, event: bytes) -> bytes:
        if b'"reasoning"' not in event:
            return event
        if aliased := self._by_bytes(event):
            return aliased
        if proved := _CHUNK.fullmatch(event):
            self._head, _, self._tail = proved.groups()
            return self._by_bytes(event)
        return alias_event(event)

    def _by_bytes(self, event: bytes) -> bytes:
        head, tail = self._head, self._tail
        if not (head and event.startswith(head) and event.endswith(tail)):
            return b""
        value = event[len(head) : -len(tail)]
        if not _ONE_STRING.fullmatch(value):
            return b""
        return b'%b%b,"reasoning_content":%b%b' % (head, value, value, tail)


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


def has_engine_fault(events: bytes) -> bool:
    """Tell whether ``is_engine_fault`` is true of one of these whole events."""
    if b'"finish_reason":"abort"' not in events and b'data: {"error"' not in events:
        return False
    return any(map(is_engine_fault, split_events(events)))


def is_engine_fault(event: bytes) -> bool:
    """Tell whether an event reports that the engine failed, or was stopped, in mid-stream.

    Clients retry a broken connection; they do not retry an error event, and take a stream that
    ends with ``abort`` and ``[DONE]`` for a whole answer.
    """
    if b'"finish_reason":"abort"' in event:
        return True
    if not event.startswith(b'data: {"error"'):
        return False
    try:
        error = msgspec.json.decode(event_data(event))["error"]
    except (*NO_JSON, KeyError, TypeError):
        return False
    code = error.get("code") if isinstance(error, dict) else None
    return isinstance(code, int) and code >= 500
