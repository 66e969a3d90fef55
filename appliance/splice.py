"""Where one value stands in a JSON text, found without parsing the text. Pure.

The text is read as far as needed and no further, and is not checked: whoever changes it has had
it checked. An answer never depends on what has not come yet: ``None`` means that these bytes do
not tell.
"""

import re
from dataclasses import dataclass

import msgspec

_SPACE = re.compile(rb"[ \t\n\r]*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
# Numbers and words end where something else begins: without an end in sight there may be more.
_SCALAR = re.compile(rb"[^][{}\",: \t\n\r]+(?=[][{}\",: \t\n\r])")
_NESTED = re.compile(rb'[^][{}"]*(?:([{[])|([]}])|("[^"\\]*(?:\\.[^"\\]*)*"))', re.DOTALL)


@dataclass(frozen=True)
class Member:
    """One member of an object: its name, and where its value begins and ends."""

    name: str
    start: int
    end: int


def locate(text: bytes, name: str) -> tuple[int, tuple[Member, ...]] | None:
    """Return where the value of the top-level member ``name`` begins, and what stands before it.

    It is the first of that name: a later one may hide behind it. ``text`` may be the beginning
    of a body. None: there is none, as far as these bytes tell.
    """
    before: list[Member] = []
    at = _skip_space(text, 0)
    if text[at : at + 1] != b"{":
        return None
    at = _skip_space(text, at + 1)
    while (found := _name(text, at)) is not None:
        if found[0] == name:
            return found[1], tuple(before)
        end = value_end(text, found[1])
        if end is None:
            return None
        before.append(Member(found[0], found[1], end))
        at = _skip_space(text, end)
        if text[at : at + 1] != b",":
            return None
        at = _skip_space(text, at + 1)
    return None


def value_end(text: bytes, start: int) -> int | None:
    """Return the offset behind the value that begins at ``start``, None if it is not whole."""
    first = text[start : start + 1]
    if first == b'"':
        string = _STRING.match(text, start)
        return string.end() if string else None
    if first not in (b"{", b"["):
        scalar = _SCALAR.match(text, start)
        return scalar.end() if scalar else None
    depth = 0
    at = start
    while token := _NESTED.match(text, at):
        at = token.end()
        depth += 1 if token[1] else -1 if token[2] else 0
        if depth == 0:
            return at
    return None


def _skip_space(text: bytes, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _name(text: bytes, at: int) -> tuple[str, int] | None:
    """Return the name that begins at ``at`` and where its value begins, if that is in sight."""
    string = _STRING.match(text, at)
    if string is None:
        return None
    colon = _skip_space(text, string.end())
    if text[colon : colon + 1] != b":":
        return None
    start = _skip_space(text, colon + 1)
    if start >= len(text):
        return None
    try:
        return msgspec.json.decode(string[0], type=str), start
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
