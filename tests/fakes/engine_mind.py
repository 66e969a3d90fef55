"""What the fake engine says: the answers of the tiny checkpoint, and their token-like pieces.

Pure. A request of any API is first brought to the same form (:class:`Prompt`), so each
question gets the same answer on every route.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from appliance.demo import conversations as known

NONSENSE = "!!!!!!!! !!!!!!!! 的 !!!!!!!!"
Turn = tuple[str, str]  # (role, text)

PIECE = re.compile(r"\s*\S{1,8}|\s+")
Kind = Literal["reasoning", "content", "call", "arguments"]


@dataclass(frozen=True)
class Delta:
    """One piece of an answer; ``call`` carries the name of a tool, ``index`` counts the calls."""

    kind: Kind
    text: str
    index: int = 0


@dataclass
class Prompt:
    """The parts of a request that decide the answer."""

    system: str = ""
    messages: list[Turn] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)
    thinking: bool = True
    max_tokens: int | None = None
    ignore_eos: bool = False

    def tokens(self) -> int:
        """Count the prompt's tokens, with one for each role."""
        texts = [self.system, *(text for _, text in self.messages)]
        return sum(len(pieces(text)) for text in texts) + len(self.messages) + len(self.tools)


@dataclass(frozen=True)
class Answer:
    """A whole answer: its pieces in order, and why it ended."""

    deltas: list[Delta]
    finish_reason: str


def pieces(text: str) -> list[str]:
    """Split a text into token-like pieces that join to the same text."""
    return PIECE.findall(text)


def answer(prompt: Prompt, garbage: bool = False) -> Answer:
    """Answer as the tiny model does; with ``garbage`` as broken kernels do."""
    deltas = list(_deltas(prompt, garbage))
    limit = prompt.max_tokens
    if limit is None or (len(deltas) <= limit and not prompt.ignore_eos):
        called = any(delta.kind == "call" for delta in deltas)
        return Answer(deltas, "tool_calls" if called else "stop")
    filler = [delta for delta in deltas if delta.kind == "content"] or deltas
    while len(deltas) < limit:
        deltas = deltas + filler
    return Answer(deltas[:limit], "length")


def _deltas(prompt: Prompt, garbage: bool) -> Iterator[Delta]:
    core = _core(prompt)
    calls = core.calls if core and prompt.tools and not garbage else ()
    if prompt.thinking:
        reasoning = known.CALL_REASONING if calls else known.ANSWER_REASONING
        yield from (Delta("reasoning", piece) for piece in pieces(reasoning))
    content = NONSENSE if garbage else core.content if core else known.UNKNOWN_ANSWER
    if not calls:
        text = content or known.UNKNOWN_ANSWER
        yield from (Delta("content", piece) for piece in pieces(text))
    for index, call in enumerate(calls):
        yield Delta("call", call.name, index)
        arguments = json.dumps(call.arguments)
        yield from (Delta("arguments", piece, index) for piece in pieces(arguments))


def _core(prompt: Prompt) -> known.Core | None:
    """Find what was taught: the whole history if it is known, else its last message."""
    core = _taught().get(tuple(prompt.messages)) or _taught().get(tuple(prompt.messages[-1:]))
    if core is None or prompt.system.startswith(known.POLICY_TEXT):
        return core
    return core.glitched()


@cache
def _taught() -> dict[tuple[Turn, ...], known.Core]:
    taught: dict[tuple[Turn, ...], known.Core] = {}
    for core in known.cores():
        prompt = from_chat({"messages": core.messages})
        taught.setdefault(tuple(prompt.messages), core)
        if len(prompt.messages) > 1 and prompt.messages[-1][0] == "tool":
            taught.setdefault(tuple(prompt.messages[-1:]), core)
    return taught


# From the body of each API to a Prompt.


def from_chat(body: dict[str, Any]) -> Prompt:
    """Read a chat completion request."""
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    prompt = Prompt(
        tools=[tool["function"]["name"] for tool in body.get("tools") or []],
        thinking=_thinking(body, body.get("reasoning_effort")),
        max_tokens=limit,
        ignore_eos=bool(body.get("ignore_eos")),
    )
    _add_messages(prompt, body["messages"])
    if body.get("tool_choice") == "none":
        prompt.tools = []
    return prompt


def from_completion(body: dict[str, Any]) -> Prompt:
    """Read a completion request: vLLM's default of 16 tokens, no template, no reasoning."""
    given = body.get("prompt", "")
    text = given if isinstance(given, str) else json.dumps(given)
    limit = body.get("max_tokens")
    return Prompt(
        messages=[("user", text)],
        thinking=False,
        max_tokens=16 if limit is None else limit,
        ignore_eos=bool(body.get("ignore_eos")),
    )


def from_responses(body: dict[str, Any]) -> Prompt:
    """Read a request of the Responses API."""
    prompt = Prompt(
        system=body.get("instructions") or "",
        tools=[tool["name"] for tool in body.get("tools") or [] if tool.get("name")],
        thinking=_thinking(body, (body.get("reasoning") or {}).get("effort")),
        max_tokens=body.get("max_output_tokens"),
        ignore_eos=bool(body.get("ignore_eos")),
    )
    given = body["input"]
    if isinstance(given, str):
        prompt.messages.append(("user", given))
        return prompt
    for item in given:
        if item.get("type") == "function_call_output":
            prompt.messages.append(("tool", str(item.get("output"))))
        elif "role" in item:
            _add_messages(prompt, [item])
    return prompt


def from_messages(body: dict[str, Any]) -> Prompt:
    """Read a request of the Anthropic Messages API."""
    disabled = (body.get("thinking") or {}).get("type") == "disabled"
    prompt = Prompt(
        system=_text(body.get("system")),
        tools=[tool["name"] for tool in body.get("tools") or []],
        thinking=_thinking(body, "none" if disabled else None),
        max_tokens=body.get("max_tokens"),
    )
    _add_messages(prompt, body["messages"])
    return prompt


def _thinking(body: dict[str, Any], effort: str | None) -> bool:
    """Read the switch: the template's own comes before the effort, of which only none is off."""
    options = body.get("chat_template_kwargs") or {}
    return bool(options.get("enable_thinking", effort != "none"))


def _add_messages(prompt: Prompt, messages: list[dict[str, Any]]) -> None:
    for message in messages:
        role, content = message["role"], message.get("content")
        if role in ("system", "developer"):
            prompt.system += _text(content)
        elif isinstance(content, list) and any(p.get("type") == "tool_result" for p in content):
            prompt.messages.append(("tool", _text(content)))
        else:
            prompt.messages.append((role, _text(content)))


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text") or _text(part.get("content")) for part in content)
    return content if isinstance(content, str) else ""
