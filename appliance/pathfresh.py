"""Listings that may be relied on for what a folder does not hold. Pure.

A listing is fresh within the turn in which it was made, and as long as no command was run after
it: both may have made new files. It is plain when it was not asked for a pattern, and complete
when it says nothing of a rest.
"""

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from appliance.openai import NO_JSON
from appliance.pathledger import LISTING, Call
from appliance.pathlisting import listed
from appliance.paths import PathName, parse
from appliance.pathtools import Deed, KeyKind, Tools, key_kind, words_of
from appliance.pathwitness import has_failed, texts_of, without_details, witness

_HERE = PathName("", ())
_BY_PATTERN = {"glob", "find", "search", "grep", "status"}
_REST = re.compile(
    r"(?i)truncate|\b(?:more|omitted|hidden|remaining)\b|\blimit|\b(?:first|only|showing) \d+"
    r"|too many|not shown|page \d+|^\W*(?:\.\.\.|…)\W*$"
)
_MOST_REMARKS = 3  # lines of a listing that are no names: its head, a count, a hint
_LIMIT_KEY = re.compile(r"(?i)limit|max|count|head")


@dataclass(frozen=True)
class Fresh:
    """The folders of which listings showed everything; ``is_cut``: one was not complete."""

    closed: frozenset[PathName]
    is_cut: bool = False


def read_fresh(messages: Sequence[msgspec.Raw], tools: Tools) -> Generator[None, None, Fresh]:
    """Return what the fresh listings of a chat's messages showed, a message at a time."""
    results: dict[str, Any] = {}
    closed: set[PathName] = set()
    is_cut = False
    for raw in reversed(messages):
        yield
        message = _decoded(raw)
        role = message.get("role")
        if role == "tool":
            results[str(message.get("tool_call_id"))] = message.get("content")
        elif role == "user" and without_details(message.get("content")):
            break
        elif role == "assistant":
            calls = list(_calls(message))
            for call_id, call in calls:
                found = _read(call, results.get(call_id), tools)
                is_cut = is_cut or found.is_cut
                closed |= found.closed
            if any(tools.deed(c.name) in (Deed.DANGER, Deed.UNCLEAR) for _, c in calls):
                break
    return Fresh(frozenset(closed), is_cut)


def _decoded(raw: msgspec.Raw) -> dict[str, Any]:
    try:
        message = msgspec.json.decode(raw)
    except NO_JSON:
        return {}
    return message if isinstance(message, dict) else {}


def _calls(message: Mapping[str, Any]) -> Generator[tuple[str, Call], None, None]:
    made = message.get("tool_calls")
    for one in made if isinstance(made, list) else ():
        function = one.get("function") if isinstance(one, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            continue
        arguments = function.get("arguments")
        told = _decoded(msgspec.Raw(arguments.encode())) if isinstance(arguments, str) else {}
        yield str(one.get("id")), Call(function["name"], told)


def _read(call: Call, content: Any, tools: Tools) -> Fresh:
    text = "\n".join(texts_of(content))
    if tools.deed(call.name) not in (Deed.READ, Deed.LIST) or has_failed(text):
        return Fresh(frozenset())
    kind, folder = witness(call, text[:600])
    if kind != LISTING or not _is_plain(call):
        return Fresh(frozenset())
    paths = [path for path in map(parse, listed(text, folder)) if path is not None]
    base = parse(folder) or _HERE
    closed = (p.parent for p in paths if p.parts and _is_within(p.parent, base))
    return Fresh(frozenset(closed), _is_cut(call, text, len(paths)))


def _is_plain(call: Call) -> bool:
    if not _BY_PATTERN.isdisjoint(words_of(call.name)):
        return False
    chosen = (KeyKind.TEXT, KeyKind.COMMAND)
    return not any(value and key_kind(key) in chosen for key, value in call.arguments.items())


def _is_within(folder: PathName, base: PathName) -> bool:
    return folder == base or folder.relative_to(base) is not None


def _is_cut(call: Call, text: str, found: int) -> bool:
    limits = (v for k, v in call.arguments.items() if _LIMIT_KEY.search(k))
    if any(isinstance(v, int) and not isinstance(v, bool) and v <= found for v in limits):
        return True
    if text[:1] in ("[", "{"):
        return _REST.search(text[-300:]) is not None
    if _REST.search(" ".join(line for line in text.splitlines() if line[:1] in ("<", "("))):
        return True
    lines = [line for line in text.splitlines() if line.strip() and line[0] not in "<("]
    remarks = (line for line in lines if " " in line.strip() or not line.strip(" .…[]()"))
    return len(lines) - found > _MOST_REMARKS or any(_REST.search(line) for line in remarks)
