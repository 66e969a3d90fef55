"""Replies on the wire: reasoning under both names, and an engine that failed in them. Pure."""

import msgspec

from appliance.openai import NO_JSON
from appliance.sse import event_data, with_data


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
