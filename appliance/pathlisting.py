"""Listings of files, as tools and shells print them, read line by line. Pure."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from appliance.paths import has_extension, is_url

_TREE = re.compile(r"^([│|\s\u00a0]*)(?:[├└|+`]|\\)(?:──|--|─|-)+\s*(.+)$")
_LONG = re.compile(
    r"^[-dlbcps][-rwxsStT]{9}[.+@]?\s+\d+\s+\S+\s+\S+\s+[\d.,]+[KMGTP]?\s+"
    r"(?:\w{3}\s+\d+|\d+\s+\w{3}|\d{4}-\d\d-\d\d)\s+[\d:.]+(?:\s+[+-]\d{4})?\s+(.+)$"
)
_MARKED = re.compile(r"^(?:\[(?:FILE|DIR)\]\s+|[-*•]\s+|📁\s*|📄\s*|🔒\s*|\d+[.)]\s+)(.+)$")
_STATUS = re.compile(r"^(?:[MADRCU?!][MADRCU?! ]| [MADRCU]) (\S.*)$")
_SIZE = re.compile(r"\s+\(?\d[\d.,]*\s?(?:bytes?|[KMGT]i?B|B)\)?$")
# As du, wc and find -size print it: a number first, and then what can only be a path.
_SIZED = re.compile(
    r"^\s*[\d.,]+[KMGTP]?i?B?(?:\t+| {2,}| (?=\.{0,2}/|~/))(\S.*)$"
    r"|^\s+(?!(?:19|20)\d\d )\d+ (\S.*)$"
)
_TAG = re.compile(r"^</?[\w-]+>$|^<path>(.*)</path>$")
_LONGEST_LINE = 1024


def listed(text: str, base: str = "") -> Iterator[str]:
    """Yield the paths of a listing; those that are not absolute come as they are from ``base``.

    Lines that are no path pass unseen: a listing may have a head, a count, a word of warning.
    """
    if text[:1] in ("[", "{") and (values := _json(text)) is not None:
        yield from _of_json(values, base)
        return
    yield from _of_lines(text, base)


def _of_lines(text: str, base: str) -> Iterator[str]:
    stack: list[tuple[int, str]] = []
    where = base
    for line in text.splitlines():
        if not line.strip() or len(line) > _LONGEST_LINE:
            continue
        depth, name = _depth_and_name(line)
        if not name:
            continue
        if not depth and name.endswith(":") and _is_name(name[:-1]):
            where, stack = _joined(base, name[:-1]), []  # the head of one folder, as ls -R has it
            continue
        if not _is_name(name):
            continue
        while stack and stack[-1][0] >= depth:
            stack.pop()
        path = _joined(stack[-1][1] if stack and depth else where, name)
        yield path
        if depth or name.endswith("/") or name == ".":
            stack.append((depth, path))


def _depth_and_name(line: str) -> tuple[int, str]:
    """Return how deep a line of a tree stands, 0 for any other; and the name in it."""
    if " " not in line and line[0].isalnum():
        return 0, line.rstrip("*@")
    line = line.rstrip()
    if (tree := _TREE.match(line)) is not None:
        return len(tree[1]) // 2 + 1, _bare(tree[2])
    if (long := _LONG.match(line)) is not None:
        return 0, long[1].partition(" -> ")[0]
    if (status := _STATUS.match(line)) is not None:
        return 0, status[1].rpartition(" -> ")[2]
    if (tag := _TAG.match(line)) is not None:
        return 0, tag[1] or ""
    if (sized := _SIZED.match(line)) is not None:
        return 0, sized[1] or sized[2]
    name = line.lstrip()
    depth = len(line) - len(name)
    if (marked := _MARKED.match(name)) is not None:
        name = marked[1]
    return depth, _bare(name)


def _bare(name: str) -> str:
    name = _SIZE.sub("", name.partition(" -> ")[0])
    if len(name) > 2 and name[0] == name[-1] and name[0] in "\"'`":
        name = name[1:-1]
    return name.rstrip("*@") if name[-1:] in "*@" else name


def _is_name(name: str) -> bool:
    """Tell whether a whole line is a path, and no sentence."""
    if is_url(name) or name.startswith(("(", "#", "<", "{", "total ")) or name in (".", ".."):
        return name == "."
    if " " not in name:
        return not name.endswith((",", ";", ":")) and ":" not in name[2:]
    words = name.split(" ")
    if len(words) > 12 or name.endswith((".", ":", ")", "?", "!", ",")) or ": " in name:
        return False
    return "/" in name or "\\" in name or has_extension(name) or len(words) <= 3


def _joined(base: str, name: str) -> str:
    if name.startswith("./"):
        name = name[2:]
    if name == ".":
        return base
    root = base.rstrip("/\\")
    is_absolute = name.startswith(("/", "~", "\\")) or name[1:3] in (":\\", ":/")
    if not root or root == "." or is_absolute or name == root or name.startswith(root + "/"):
        return name
    return root + ("\\" if "\\" in root and "/" not in root else "/") + name


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def _of_json(value: Any, base: str, depth: int = 0) -> Iterator[str]:
    """Yield the names in a tree of values: texts, or objects with a name and perhaps children."""
    if depth > 32:
        return
    if isinstance(value, str):
        if _is_name(value):
            yield _joined(base, value)
    elif isinstance(value, list):
        for one in value:
            yield from _of_json(one, base, depth + 1)
    elif isinstance(value, dict):
        name = value.get("path") or value.get("name")
        here = _joined(base, name) if isinstance(name, str) and _is_name(name) else base
        if here != base:
            yield here
        for key in ("children", "entries", "files", "items", "paths", "results", "matches"):
            if key in value:
                yield from _of_json(value[key], here, depth + 1)
