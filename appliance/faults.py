"""An engine that failed, or was stopped, in the middle of a reply: how each API tells it. Pure.

Clients retry a broken connection. They do not retry an error event, and take an answer that was
cut off for a whole one. A failure that another try would meet again passes as it is told.
"""

import re
from typing import Any

import msgspec

from appliance.openai import NO_JSON
from appliance.sse import event_data, split_events

# One of them is in each event that tells a failure: what has none is not decoded. They are few,
# for each is sought in each chunk.
_MARKS = (
    b'"finish_reason":"abort"',  # a chat, a completion
    b'data: {"error"',
    b"event: error\n",  # messages, responses
    b'"delta":{"stop_reason":null',  # messages
    b'"incomplete_details":',  # responses: with the whole of it, at the end
)
_PASSING = re.compile(r"internal|server|api_error|overloaded|timeout|unavailable|rate_limit", re.I)
_CUT_BY_REQUEST = ("max_output_tokens", "content_filter")
_ENDED_BADLY = ("cancelled", "failed")


def has_engine_fault(events: bytes) -> bool:
    """Tell whether ``is_engine_fault`` is true of one of these whole events."""
    if all(events.find(mark) < 0 for mark in _MARKS):
        return False
    return any(map(is_engine_fault, split_events(events)))


def is_engine_fault(event: bytes) -> bool:
    """Tell whether an event reports that the engine failed, or was stopped, in mid-stream."""
    try:
        told = msgspec.json.decode(event_data(event))
    except NO_JSON:
        return False
    if not isinstance(told, dict):
        return False
    match told.get("type"):
        case None:
            return _is_passing(told.get("error")) or _is_aborted(told)
        case "error":  # a response's says itself what a message's says of an error
            return _is_passing(told.get("error", told))
        case "message_delta":
            delta = told.get("delta")
            return isinstance(delta, dict) and delta.get("stop_reason") is None
        case "response.failed" | "response.incomplete" | "response.completed":
            return _is_lost(told.get("response"))
    return False


def is_cut_off(reply: bytes) -> bool:
    """Tell whether a whole reply of status 200 is that of an engine which was stopped in it."""
    try:
        told = msgspec.json.decode(reply)
    except NO_JSON:
        return False
    if not isinstance(told, dict):
        return False
    if told.get("type") == "message":
        return told.get("stop_reason") is None
    return _is_lost(told) if told.get("object") == "response" else _is_aborted(told)


def _is_passing(error: Any) -> bool:
    """Tell whether another try may meet no such error; what is not known to be so is not."""
    if not isinstance(error, dict):
        return False
    code = error.get("code")
    if isinstance(code, int):
        return code >= 500 or code == 429
    names = (code, error.get("type"))
    return any(isinstance(name, str) and _PASSING.search(name) for name in names)


def _is_aborted(told: dict[str, Any]) -> bool:
    choices = told.get("choices")
    return isinstance(choices, list) and any(
        isinstance(choice, dict) and choice.get("finish_reason") == "abort" for choice in choices
    )


def _is_lost(response: Any) -> bool:
    """Tell whether a response ended because of the engine, and not as its request has it."""
    if not isinstance(response, dict):
        return False
    error = response.get("error")
    if isinstance(error, dict):
        return _is_passing(error)
    status, details = response.get("status"), response.get("incomplete_details")
    if status != "incomplete":
        return status in _ENDED_BADLY
    reason = details.get("reason") if isinstance(details, dict) else None
    return reason not in _CUT_BY_REQUEST
