"""A call's arguments, JSON text that comes in pieces: which strings open and close. Pure.

Nothing is ever decoded as a whole: a piece may end anywhere, within an escape too.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

LONGEST = 2**15  # characters of a value, as it is spelled; what is longer is not looked at

_PLAIN = re.compile(r'[^"\\]*')
_BETWEEN = re.compile(r'[^"\[\]{},]*')
_CONTROL = re.compile(r"[\x00-\x1f]")
# A character that is escaped, two halves of one, or all up to the next escape.
_UNIT = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|[^\\]+"
)


@dataclass(frozen=True, slots=True)
class Opened:
    """A string value begins at the offset ``at``, behind its quote, under ``key``."""

    key: str
    at: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The value that was opened last ends at the offset ``at``, before its quote.

    ``spelled`` is all between the quotes, None if that was too long.
    """

    key: str
    at: int
    spelled: str | None


class Scanner:
    """Reads one call's arguments. Offsets are in characters from their beginning.

    What stands in a list has the key of the list.
    """

    def __init__(self) -> None:
        self._at = 0
        self._stack: list[tuple[str, str]] = []  # what is open: { or [, and the key it stands under
        self._key = ""
        self._is_key = False
        self._in_string = self._escaped = False
        self._spelled: list[str] = []
        self._size = 0

    @property
    def at(self) -> int:
        """How many characters have been read."""
        return self._at

    def feed(self, text: str) -> Iterator[Opened | Closed]:
        """Read the next piece; yield what opens and closes in it, in order."""
        base, at = self._at, 0
        while at < len(text):
            if not self._in_string:
                at = self._between(text, at)
                if self._in_string and not self._is_key:
                    yield Opened(self._key, base + at)
            elif self._escaped:
                self._note(text[at])
                self._escaped = False
                at += 1
            elif text[at] == '"':
                self._in_string = False
                spelled = "".join(self._spelled) if self._size <= LONGEST else None
                if self._is_key:
                    self._key = unspelled(spelled or "") or ""
                    self._is_key = False
                else:
                    yield Closed(self._key, base + at, spelled)
                at += 1
            elif text[at] == "\\":
                self._note("\\")
                self._escaped = True
                at += 1
            else:
                found = _PLAIN.match(text, at)
                end = found.end() if found else at + 1
                self._note(text[at:end])
                at = end
        self._at = base + len(text)

    def _note(self, some: str) -> None:
        self._size += len(some)
        if self._size <= LONGEST:
            self._spelled.append(some)

    def _between(self, text: str, at: int) -> int:
        """Read one mark outside of strings, and what stands before it; return where that ends."""
        found = _BETWEEN.match(text, at)
        at = found.end() if found else at
        if at >= len(text):
            return at
        mark = text[at]
        if mark == '"':
            self._in_string = True
            self._spelled, self._size = [], 0
        elif mark in "{[":
            self._stack.append((mark, self._key))
            self._is_key = mark == "{"
        elif mark in "}]":
            if self._stack:
                self._key = self._stack.pop()[1]
            self._is_key = False
        elif mark == ",":
            self._is_key = bool(self._stack) and self._stack[-1][0] == "{"
            if self._stack and not self._is_key:
                self._key = self._stack[-1][1]
        return at + 1


def unspelled(spelled: str) -> str | None:
    """Return the text that stands between the quotes of a JSON string, None if it is none."""
    if "\\" not in spelled:
        return spelled if spelled.isprintable() or not _CONTROL.search(spelled) else None
    try:
        return msgspec.json.decode(f'"{spelled}"', type=str)
    except (msgspec.DecodeError, UnicodeError):
        return None


def spelled_like(text: str, spelled: str) -> str:
    """Return a text as it stands in a JSON string; escaped as far as ``spelled`` was."""
    if not text.isascii() and spelled.isascii() and "\\u" in spelled:
        return json.dumps(text)[1:-1]
    return msgspec.json.encode(text)[1:-1].decode()


def raw_offsets(raw: str, offsets: list[int]) -> list[int]:
    """Return where the characters at ``offsets`` of a JSON string's text stand in its spelling.

    The offsets are in rising order; the text's length is one of them that may be asked for.
    """
    found: list[int] = []
    wanted = iter(offsets)
    next_one = next(wanted, None)
    at = 0
    for unit in _UNIT.finditer(raw):
        size = 1 if raw[unit.start()] == "\\" else unit.end() - unit.start()
        while next_one is not None and next_one < at + size:
            found.append(unit.start() + next_one - at)
            next_one = next(wanted, None)
        if next_one is None:
            return found
        at += size
    return found + [len(raw)] * (len(offsets) - len(found))
