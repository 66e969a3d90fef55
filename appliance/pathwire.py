"""Tool calls on the wire: where their names and arguments stand in an event or a reply. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from appliance.openai import NO_JSON
from appliance.splice import value_end

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"

# What an event holds that has to do with a tool call, by route; others are not looked at.
MARKS = {
    CHAT: (b'"tool_calls"',),
    MESSAGES: (b'"tool_use"', b'"input_json_delta"'),
    RESPONSES: (b"function_call",),
}
_FINISH = {
    CHAT: re.compile(rb'"finish_reason":\s*"'),
    MESSAGES: re.compile(rb'"type":\s*"message_delta"'),
    RESPONSES: re.compile(rb'"type":\s*"response\.(?:completed|incomplete|failed)"'),
}
# Possessive: a megabyte of arguments would else be remembered character by character.
_STRING = rb'(?<!\\)"%b"\s*:\s*"((?:[^"\\]++|\\.)*+)"'
_STRINGS = {
    name: re.compile(_STRING % name.encode(), re.DOTALL)
    for name in ("arguments", "partial_json", "delta")
}
_INPUT = re.compile(rb'(?<!\\)"input"\s*:\s*(?=\{)')

CallKey = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Fragment:
    """A piece of one call's arguments: its text, and where that stands in the bytes.

    ``name`` is the tool's, where it is told; ``is_whole``: these are all of the arguments.
    ``is_text``: they stand there as a JSON string, and not as JSON.
    """

    call: CallKey
    name: str = ""
    text: str = ""
    start: int = 0
    end: int = 0
    is_whole: bool = False
    is_text: bool = True


class Unreadable(Exception):
    """Bytes that should hold a tool call, and cannot be read."""


def has_mark(route: str, events: bytes) -> bool:
    """Tell whether events may have to do with a tool call."""
    return any(events.find(mark) >= 0 for mark in MARKS[route])


def is_finish(route: str, event: bytes) -> bool:
    """Tell whether an event says how a reply ended."""
    return _FINISH[route].search(event) is not None


def fragments(route: str, event: bytes) -> list[Fragment]:
    """Return the pieces of tool calls in one event. Raises Unreadable."""
    start = event.find(b"{")
    if start < 0:
        return []
    end = event.rfind(b"}") + 1
    value = _decoded(event[start:end])
    if route == CHAT:
        found, name = list(_of_chunk(value)), "arguments"
    elif route == MESSAGES:
        found, name = list(_of_message_event(value)), "partial_json"
    else:
        found = list(_of_response_event(value))
        name = "arguments" if value.get("type") != _DELTA else "delta"
    return _placed(event, found, name)


def whole(route: str, body: bytes) -> list[Fragment]:
    """Return the tool calls in a reply that is no stream. Raises Unreadable."""
    value = _decoded(body)
    if route == MESSAGES:
        return _placed_inputs(body, value)
    found = list(_of_chunk(value, "message") if route == CHAT else _of_response(value))
    return _placed(body, found, "arguments")


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(data)
    except NO_JSON as cause:
        raise Unreadable from cause
    if not isinstance(value, dict):
        raise Unreadable
    return value


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (one for one in value if isinstance(one, dict))


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _of_chunk(chunk: dict[str, Any], part: str = "delta") -> Iterator[Fragment]:
    for choice in _dicts(chunk.get("choices")):
        index = _number(choice.get("index"))
        for at, call in enumerate(_dicts(_dict(choice.get(part)).get("tool_calls"))):
            function = _dict(call.get("function"))
            key = (index, str(call.get("index", at)))
            name, text = _text(function.get("name")), _text(function.get("arguments"))
            yield Fragment(key, name, text, is_whole=part == "message")


def _of_message_event(event: dict[str, Any]) -> Iterator[Fragment]:
    key = (0, str(event.get("index")))
    block, delta = _dict(event.get("content_block")), _dict(event.get("delta"))
    if block.get("type") == "tool_use":
        yield Fragment(key, _text(block.get("name")))
    elif delta.get("type") == "input_json_delta":
        yield Fragment(key, "", _text(delta.get("partial_json")))


_DELTA = "response.function_call_arguments.delta"
_DONE = "response.function_call_arguments.done"


def _of_response_event(event: dict[str, Any]) -> Iterator[Fragment]:
    kind, key = event.get("type"), (0, str(event.get("item_id")))
    if kind == _DELTA:
        yield Fragment(key, "", _text(event.get("delta")))
    elif kind == _DONE:
        text = _text(event.get("arguments"))
        yield Fragment(key, _text(event.get("name")), text, is_whole=True)
    else:
        yield from _of_items([event.get("item")])
        yield from _of_response(_dict(event.get("response")))


def _of_response(response: dict[str, Any]) -> Iterator[Fragment]:
    yield from _of_items(response.get("output"))


def _of_items(items: Any) -> Iterator[Fragment]:
    for item in _dicts(items):
        if item.get("type") == "function_call":
            key, text = (0, str(item.get("id"))), _text(item.get("arguments"))
            yield Fragment(key, _text(item.get("name")), text, is_whole=bool(text))


def _placed(data: bytes, found: list[Fragment], name: str) -> list[Fragment]:
    """Return the pieces with their places, found by the key before them, in order."""
    placed: list[Fragment] = []
    strings = _STRINGS[name].finditer(data)
    for one in found:
        if not one.text:
            placed.append(one)
            continue
        at = next((s for s in strings if _unquoted(s[1]) == one.text), None)
        if at is None:
            raise Unreadable
        start, end = at.span(1)
        placed.append(Fragment(one.call, one.name, one.text, start, end, is_whole=one.is_whole))
    return placed


def _unquoted(raw: bytes) -> str | None:
    try:
        return msgspec.json.decode(b'"%b"' % raw, type=str)
    except NO_JSON:
        return None


def _placed_inputs(body: bytes, message: dict[str, Any]) -> list[Fragment]:
    placed: list[Fragment] = []
    at = 0
    for index, block in enumerate(_dicts(message.get("content"))):
        if block.get("type") != "tool_use":
            continue
        while (found := _INPUT.search(body, at)) is not None:
            at, end = found.end(), value_end(body, found.end())
            if end is None:
                raise Unreadable
            if _decoded(body[at:end]) == block.get("input"):
                break
        else:
            raise Unreadable
        text = body[at:end].decode()
        key, name = (0, str(index)), _text(block.get("name"))
        placed.append(Fragment(key, name, text, at, end, is_whole=True, is_text=False))
        at = end
    return placed
