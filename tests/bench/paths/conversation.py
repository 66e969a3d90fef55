"""The conversation whose ledger is read: an agent's, of any size, with paths in all it returns.

Pure. Each turn is new text: nothing in it was read in an earlier one.
"""

import json
from collections.abc import Sequence
from typing import Any

from tests.bench.gateway.bodies import agent

TOKEN = 4  # characters
ROOM = 13_600  # characters of a long conversation's system prompt
RESULT = 7_400  # characters of what a tool returns

_FOLDERS = ("core", "widgets", "http-client", "storage.v2", "Release Notes")
_KINDS = ("read_file", "list_files", "search_files", "execute_command")


def body(turns: Sequence[dict[str, Any]]) -> bytes:
    """Return a request of these messages, with an agent's tools and options around them."""
    told = json.loads(agent(0, seen=True))
    told["messages"] = list(turns)
    return json.dumps(told).encode()


def messages(tokens: int) -> list[dict[str, Any]]:
    """Return a conversation of about so many tokens, without the tools around it."""
    size = tokens * TOKEN
    system = f"Workspace root: /srv/build\n{_source(0, min(ROOM, size // 4))}"
    said: list[dict[str, Any]] = [
        {"role": "system", "content": system},
        {"role": "user", "content": "Move src/core/state.py to src/core/machine.py, and test it."},
    ]
    length, n = sum(len(one["content"]) for one in said), 0
    while length < size:
        added = turn(n, min(RESULT, size // 4))
        said += added
        length += sum(len(json.dumps(one)) for one in added)
        n += 1
    return said


def turn(n: int, size: int = RESULT) -> list[dict[str, Any]]:
    """Return the nth turn: the model thinks and calls a tool, which returns about ``size``."""
    kind = _KINDS[n % len(_KINDS)]
    path = f"/srv/build/src/{_FOLDERS[n % 5]}/part_{n}"
    arguments = {"path": path} if kind != "execute_command" else {"command": f"pytest -q {path}"}
    call = {
        "id": f"chatcmpl-tool-{n:08x}",
        "type": "function",
        "function": {"name": kind, "arguments": json.dumps(arguments)},
    }
    thought = _source(n, size // 12)
    said = {"role": "assistant", "content": "", "reasoning_content": thought, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": call["id"], "content": _returned(kind, n, size)}
    return [said, result]


def _returned(kind: str, n: int, size: int) -> str:
    if kind == "list_files":
        rows = (f"src/{_FOLDERS[k % 5]}/part_{n}/module_{k}.py" for k in range(size // 20))
    elif kind == "search_files":
        rows = (f"src/core/part_{n}/found_{k // 8}.py:{k}: if state:" for k in range(size // 20))
    else:
        return _source(n, size)
    return "\n".join(rows)[:size]


def _source(n: int, size: int) -> str:
    """Return something like source text: a path in about every eighth line."""
    lines = []
    length = k = 0
    while length < size:
        line = f'    def step_{k}(self, state: "State") -> list[str]:  # in turn {n}'
        if k % 8 == 0:
            line = f'    path = open("./part_{n}/data-{k}/input.json")  # see docs/part_{n}.md'
        lines.append(line)
        length += len(line) + 1
        k += 1
    return "\n".join(lines)[:size]
