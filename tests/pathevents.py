"""Tool calls as an engine streams them, on each of the three APIs."""

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from appliance.sse import event_data, split_events

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
ROUTES = (CHAT, MESSAGES, RESPONSES)


def dumped(value: Any, *, ascii_only: bool = False) -> bytes:
    text = json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def data(value: Any, *, ascii_only: bool = False) -> bytes:
    return b"data: " + dumped(value, ascii_only=ascii_only) + b"\n\n"


def named(value: dict[str, Any], *, ascii_only: bool = False) -> bytes:
    head = f"event: {value['type']}\n".encode()
    return head + data(value, ascii_only=ascii_only)


def chunk(delta: dict[str, Any], reason: str | None = None, *, ascii_only: bool = False) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 7, "model": "Nikola"}
    return data({**head, "choices": [choice]}, ascii_only=ascii_only)


def stream(
    route: str, calls: Sequence[tuple[str, Sequence[str]]], *, ascii_only: bool = False
) -> list[bytes]:
    """Return the events of a reply that says a word and makes calls: names, and their pieces."""
    make = {CHAT: _chat, MESSAGES: _messages, RESPONSES: _responses}[route]
    return make(calls, ascii_only)


def _chat(calls: Sequence[tuple[str, Sequence[str]]], ascii_only: bool) -> list[bytes]:
    events = [chunk({"role": "assistant", "content": ""}), chunk({"content": "I look."})]
    for index, (name, pieces) in enumerate(calls):
        call = {"index": index, "id": f"call-{index}", "type": "function"}
        events.append(chunk({"tool_calls": [{**call, "function": {"name": name}}]}))
        for piece in pieces:
            part = {"index": index, "function": {"arguments": piece}}
            events.append(chunk({"tool_calls": [part]}, ascii_only=ascii_only))
    return [*events, chunk({}, "tool_calls"), b"data: [DONE]\n\n"]


def _messages(calls: Sequence[tuple[str, Sequence[str]]], ascii_only: bool) -> list[bytes]:
    events = [named({"type": "message_start", "message": {"id": "m-1", "content": []}})]
    for index, (name, pieces) in enumerate(calls):
        block = {"type": "tool_use", "id": f"toolu-{index}", "name": name, "input": {}}
        begin = {"type": "content_block_start", "index": index, "content_block": block}
        events.append(named(begin))
        for piece in pieces:
            delta = {"type": "input_json_delta", "partial_json": piece}
            event = {"type": "content_block_delta", "index": index, "delta": delta}
            events.append(named(event, ascii_only=ascii_only))
        events.append(named({"type": "content_block_stop", "index": index}))
    end = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {}}
    return [*events, named(end), named({"type": "message_stop"})]


def _responses(calls: Sequence[tuple[str, Sequence[str]]], ascii_only: bool) -> list[bytes]:
    events = [named({"type": "response.created", "response": {"id": "r-1", "output": []}})]
    output = []
    for index, (name, pieces) in enumerate(calls):
        item = {"type": "function_call", "id": f"fc-{index}", "name": name, "arguments": ""}
        events.append(named({"type": "response.output_item.added", "item": item}))
        kind = "response.function_call_arguments"
        for piece in pieces:
            event = {"type": f"{kind}.delta", "item_id": f"fc-{index}", "delta": piece}
            events.append(named(event, ascii_only=ascii_only))
        whole = {"name": name, "arguments": "".join(pieces)}
        done = {"type": f"{kind}.done", "item_id": f"fc-{index}", **whole}
        events.append(named(done, ascii_only=ascii_only))
        output.append({**item, **whole})
        events.append(named({"type": "response.output_item.done", "item": output[-1]}))
    response = {"id": "r-1", "status": "completed", "output": output}
    return [*events, named({"type": "response.completed", "response": response})]


def reply(route: str, calls: Sequence[tuple[str, dict[str, Any]]]) -> bytes:
    """Return the same reply when it is no stream."""
    if route == CHAT:
        made = [
            {"id": f"call-{at}", "type": "function", "function": _function(name, told)}
            for at, (name, told) in enumerate(calls)
        ]
        message = {"role": "assistant", "content": None, "tool_calls": made}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        return dumped({"id": "c-1", "choices": [choice], "usage": {"total_tokens": 3}})
    if route == MESSAGES:
        blocks = [
            {"type": "tool_use", "id": f"toolu-{at}", "name": name, "input": told}
            for at, (name, told) in enumerate(calls)
        ]
        return dumped({"id": "m-1", "content": blocks, "stop_reason": "tool_use"})
    items = [
        {"type": "function_call", "id": f"fc-{at}", **_function(name, told)}
        for at, (name, told) in enumerate(calls)
    ]
    return dumped({"id": "r-1", "output": items})


def _function(name: str, told: dict[str, Any]) -> dict[str, str]:
    return {"name": name, "arguments": dumped(told).decode("utf-8", "surrogatepass")}


def arguments(route: str, events: Iterable[bytes]) -> list[str]:
    """Return what the calls of a stream say to a client that puts their pieces together."""
    told: dict[str, str] = {}
    for event in split_events(b"".join(events)):
        text = event_data(event)
        if text == b"[DONE]":
            continue
        value = json.loads(text)
        for choice in value.get("choices", ()):
            for call in choice["delta"].get("tool_calls", ()):
                piece = call["function"].get("arguments", "")
                told[str(call["index"])] = told.get(str(call["index"]), "") + piece
        if "partial_json" in value.get("delta", ()):
            at = str(value["index"])
            told[at] = told.get(at, "") + value["delta"]["partial_json"]
        if value.get("type") == "response.function_call_arguments.delta":
            at = value["item_id"]
            told[at] = told.get(at, "") + value["delta"]
    return list(told.values())


def whole_arguments(events: Iterable[bytes]) -> list[str]:
    """Return what the closing events of a responses stream say the arguments were."""
    told = []
    for event in split_events(b"".join(events)):
        value = json.loads(event_data(event))
        if value["type"].endswith("arguments.done"):
            told.append(value["arguments"])
        elif value["type"] == "response.output_item.done":
            told.append(value["item"]["arguments"])
        elif value["type"] == "response.completed":
            told += [item["arguments"] for item in value["response"]["output"]]
    return told


def cut(text: str, at: Iterable[int]) -> list[str]:
    """Return a text cut at the given places."""
    places = sorted({min(max(one, 0), len(text)) for one in at} | {0, len(text)})
    return [text[a:b] for a, b in pairwise(places)] or [text]
