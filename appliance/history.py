"""What clients send back of a conversation, in the shapes that the engine's template reads. Pure.

``look`` tells in one pass, without unpacking a text, whether there is anything to do; only then
are the messages decoded and ``mend`` changes them. What has one meaning is written so that the
engine takes it. What has none is refused, by its place.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, defstruct

from appliance.errors import RequestError
from appliance.media import MEDIA_NAMES, MEDIA_TYPES
from appliance.prompt import INSTRUCTION_ROLES

_NULL, _ARRAY, _OBJECT, _STRING = b'n[{"'


@dataclass(frozen=True)
class Look:
    """What a list of messages is like.

    ``is_plain``: it can pass as it is. ``has_instructions``: a system or developer message is
    among them; ``begins_with_them``: it is the first.
    """

    is_plain: bool
    has_instructions: bool = False
    begins_with_them: bool = False


class _Part(Struct, gc=False):
    type: str | None = None
    text: Raw | UnsetType = UNSET
    content: Raw | UnsetType = UNSET
    output: Raw | UnsetType = UNSET


# A part that no medium's name is in: no client can know the one value that such a field may have.
_NEVER = Literal[secrets.token_hex(16)]  # type: ignore[valid-type]
_PlainPart = defstruct(
    "_PlainPart",
    [(name, _NEVER | UnsetType, UNSET) for name in sorted(MEDIA_NAMES)],
    bases=(_Part,),
    gc=False,
)


class _Function(Struct, gc=False):
    name: str
    arguments: Raw


class _Call(Struct, gc=False):
    id: str
    type: str
    function: _Function


class _Message(Struct, gc=False):
    role: str
    content: Raw | UnsetType = UNSET
    tool_calls: list[_Call] | UnsetType = UNSET
    tool_call_id: str | UnsetType = UNSET


_MESSAGES = msgspec.json.Decoder(list[_Message])
_PARTS: msgspec.json.Decoder[list[_Part]] = msgspec.json.Decoder(
    list[_PlainPart]  # type: ignore[valid-type]
)
_NOT_SO = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
ODD = Look(is_plain=False)


def look(messages: Raw | bytes) -> Look:
    """Return what the messages of a chat are like; they are a JSON text, known to be whole."""
    try:
        found = _MESSAGES.decode(messages)
    except _NOT_SO:
        return ODD
    has = False
    for message in found:
        role, content = message.role, message.content
        has = has or role in INSTRUCTION_ROLES
        if not role:
            return ODD
        if message.tool_calls and not all(map(_is_plain_call, message.tool_calls)):
            return ODD
        if role == "tool" and not message.tool_call_id:
            return ODD
        if isinstance(content, Raw):
            first = memoryview(content)[0]
            if first == _STRING:
                continue
            if first == _NULL and role == "assistant":
                continue
            if first != _ARRAY or not are_plain_parts(content):
                return ODD
    return Look(True, has, bool(found) and found[0].role in INSTRUCTION_ROLES)


def are_plain_parts(content: Raw | bytes, depth: int = 0) -> bool:
    """Tell whether a list of parts, blocks or items holds text alone, each by its type.

    What another route's parts hold in turn (a tool's result, an output) is looked into.
    """
    try:
        parts = _PARTS.decode(content)
    except _NOT_SO:
        return False
    if depth >= 4:
        return False
    for part in parts:
        if part.type in MEDIA_TYPES or (part.type is None and part.text is not UNSET):
            return False
        if part.content is not UNSET and not _holds_plain_parts(part.content, depth):
            return False
        if part.output is not UNSET and not _holds_plain_parts(part.output, depth):
            return False
    return True


def _holds_plain_parts(inner: Raw, depth: int) -> bool:
    first = memoryview(inner)[0]
    if first == _ARRAY:
        return are_plain_parts(inner, depth + 1)
    return first != _OBJECT


def _is_plain_call(call: _Call) -> bool:
    return bool(call.id) and memoryview(call.function.arguments)[0] == _STRING


# ---- what is mended


class Mended:
    """Messages in the engine's shapes, and which ``kinds`` of change that took."""

    def __init__(self, messages: list[Any]) -> None:
        self.kinds: set[str] = set()
        # How often each id was called without a result yet, in order. Not a list: looking
        # through it for each result would take minutes for a body made of nothing else.
        self._open: dict[str, int] = {}
        self.messages = [self._message(m, f"messages[{n}]") for n, m in enumerate(messages)]

    def _message(self, message: Any, where: str) -> Any:
        if not isinstance(message, dict):
            raise _refused(f"{where} is no object", 'send {"role": …, "content": …}')
        role = message.get("role")
        if not isinstance(role, str) or not role:
            raise _refused(f"{where} has no role", "send system, user, assistant or tool")
        changed = dict(message)
        self._content(changed, role, where)
        if role == "assistant":
            self._calls(changed, where)
        elif role == "tool":
            self._result(changed)
        return changed

    def _content(self, message: dict[str, Any], role: str, where: str) -> None:
        if "content" not in message:
            return
        content = message["content"]
        if content is None:
            if role != "assistant":
                self._change("content", message, "content", "")
        elif isinstance(content, dict):
            self._change("content", message, "content", [content])
        elif not isinstance(content, str | list):
            shown = msgspec.json.encode(content)[:40].decode()
            raise _refused(f"{where}.content is {shown}", "send a text, or a list of parts")
        if isinstance(message["content"], list):
            message["content"] = [
                self._part(part, f"{where}.content[{n}]")
                for n, part in enumerate(message["content"])
            ]

    def _part(self, part: Any, where: str) -> Any:
        if isinstance(part, dict):
            if part.get("type") is None and isinstance(part.get("text"), str):
                self.kinds.add("content")
                return {**part, "type": "text"}
        elif not isinstance(part, str):
            raise _refused(f"{where} is no part", 'send {"type": "text", "text": …}')
        return part

    def _calls(self, message: dict[str, Any], where: str) -> None:
        if "tool_calls" not in message:
            return
        calls = message["tool_calls"]
        if calls is None:  # the engine refuses it beside a content that is null too
            self.kinds.add("tool_calls")
            del message["tool_calls"]
            return
        if not isinstance(calls, list):
            raise _refused(f"{where}.tool_calls is no list", "send a list of calls")
        message["tool_calls"] = [
            self._call(call, f"{where}.tool_calls[{n}]") for n, call in enumerate(calls)
        ]

    def _call(self, call: Any, where: str) -> dict[str, Any]:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _refused(f"{where} names no function", 'send {"function": {"name": …}}')
        changed, inner = dict(call), dict(function)
        arguments = inner.get("arguments")
        if not isinstance(arguments, str):
            text = "{}" if arguments is None else msgspec.json.encode(arguments).decode()
            self._change("arguments", inner, "arguments", text)
        if changed.get("type") is None:
            self._change("tool_type", changed, "type", "function")
        self._id(changed, "id", where.replace("messages", "call").translate(_PLAIN))
        changed["function"] = inner
        self._open[changed["id"]] = self._open.get(changed["id"], 0) + 1
        return changed

    def _result(self, message: dict[str, Any]) -> None:
        # A result without an id answers the oldest call that has none.
        self._id(message, "tool_call_id", next(iter(self._open), "call_unknown"))
        answered = message["tool_call_id"]
        left = self._open.pop(answered, 0) - 1
        if left > 0:
            self._open[answered] = left

    def _id(self, holder: dict[str, Any], name: str, instead: str) -> None:
        value = holder.get(name)
        if isinstance(value, str) and value:
            return
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        self._change("tool_id", holder, name, str(value) if is_number else instead)

    def _change(self, kind: str, holder: dict[str, Any], name: str, value: Any) -> None:
        self.kinds.add(kind)
        holder[name] = value


_PLAIN = {ord(mark): "_" for mark in "[]."}


def with_reasoning(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give a message's ``reasoning_content``, which Kilo sends back, its newer name too.

    The engine does that itself for a chat, but not for ``/tokenize``, whose count would be short.
    """
    if "reasoning_content" not in message:
        return message
    return {**message, "reasoning": message.get("reasoning") or message["reasoning_content"]}


def _refused(what: str, hint: str) -> RequestError:
    return RequestError(400, "invalid_messages", what, hint)
