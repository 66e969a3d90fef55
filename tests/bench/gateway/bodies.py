"""The requests that the benchmark sends: small, large, and of a coding agent's shape.

Each holds ``NAME`` once, where the load program writes the stream's number. Pure.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

MODEL = "bench"
NAME = "gwb:00000000:"
KIB, MIB = 2**10, 2**20
_LINE = 'def step_{n}(state: "State", event: Event) -> list[str]:  # line {n} of a long file\n'


def text(size: int) -> str:
    """Return about ``size`` characters of something like source text, quotes and newlines in it."""
    lines = []
    length = 0
    n = 0
    while length < size:
        lines.append(_LINE.format(n=n))
        length += len(lines[-1])
        n += 1
    return "".join(lines)[:size]


def plain(size: int) -> bytes:
    """Return a streamed chat request of ``size`` bytes: one user message, before all options."""
    body = {"messages": [{"role": "user", "content": NAME}], "model": MODEL, "stream": True}
    empty = len(json.dumps(body))
    content = text(max(size - empty, 0))
    while True:
        body["messages"] = [{"role": "user", "content": f"{NAME} {content}"}]
        encoded = json.dumps(body).encode()
        if len(encoded) <= size or not content:
            return encoded
        content = content[: len(content) - max((len(encoded) - size) // 2, 1)]


def agent(size: int, *, seen: bool) -> bytes:
    """Return a request of about ``size`` bytes as a coding agent sends it.

    A system message, tools of 43 kB, then turns: the model thinks, calls a tool, gets a file.
    With ``seen`` requests differ in their last message alone, as those of one conversation do;
    else in their first.
    """
    first, last = ("", NAME) if seen else (NAME, "")
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": f"{first} {text(13600)}"},
        {"role": "user", "content": [{"type": "text", "text": "Refactor the state machine."}]},
    ]
    tools = [_tool(n) for n in range(22)]
    turn = 0
    length = 0
    while length < size - len(json.dumps(tools)) - 14 * KIB:
        messages += _turn(turn)
        turn += 1
        length += sum(len(json.dumps(message)) for message in messages[-2:])
    messages.append({"role": "user", "content": [{"type": "text", "text": f"{last} Go on."}]})
    body = {
        "model": MODEL,
        "max_tokens": 8192,
        "messages": messages,
        "tools": tools,
        "tool_choice": "auto",
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return json.dumps(body).encode()


def _tool(n: int) -> dict[str, Any]:
    path = {"type": "string", "description": "The absolute path of the file"}
    parameters = {"type": "object", "properties": {"filePath": path}, "required": ["filePath"]}
    function = {"name": f"tool_{n}", "description": text(1600), "parameters": parameters}
    return {"type": "function", "function": function}


def _turn(n: int) -> list[dict[str, Any]]:
    call = {
        "id": f"chatcmpl-tool-{n:08x}",
        "type": "function",
        "function": {"name": "tool_1", "arguments": json.dumps({"filePath": f"/src/File{n}.py"})},
    }
    said = {"role": "assistant", "content": "", "reasoning_content": text(600)}
    result = {"role": "tool", "tool_call_id": call["id"], "content": text(7400)}
    return [{**said, "tool_calls": [call]}, result]


BODIES: Mapping[str, Callable[[], bytes]] = {
    "2k": lambda: plain(2 * KIB),
    "300k": lambda: plain(300 * KIB),
    "1m": lambda: plain(MIB),
    "agent1m": lambda: agent(MIB, seen=False),
    "again1m": lambda: agent(MIB, seen=True),
    "5m": lambda: plain(5 * MIB),
}
