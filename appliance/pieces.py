"""A long list of messages, cut into pieces that can be read one at a time. Pure.

Where a piece ends is told from a few bytes, which may look like the end of a message and be none.
So whoever takes a piece must read it as a list before the next one is asked for: a text is a list
up to a comma of its own, or it is no list. Within a long text no message ends. There a *gap* is
found: bytes that were read, and that the list without them is as good as with them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from appliance.openai import NO_JSON

PIECE_BYTES = 128 * 1024
_ROLE = b'"role"'
_CUT = re.compile(rb"\}[ \t\r\n]{0,32}(,)[ \t\r\n]{0,32}\{[ \t\r\n]{0,32}\Z")
_CUT_BYTES = 128  # more than a cut may have
_SOON_BYTES = 32 * 1024  # within them most messages end: to look further takes as long as to read
_NEAR_BYTES = 4 * 1024  # within them a text has a place where it can be cut
_FINER = 8
# What is left of a text without its gap is longer than any word that somebody looks for in a value,
# a role or a type. Behind six plain bytes no escape is open.
KEPT_BYTES = 24
_PLAIN = re.compile(rb'(?<!\\)(?:[^"\\]|\\.){%d}[^"\\]{6}(?![\x80-\xbf])' % KEPT_BYTES)
# What ends a message that is cut in a text: of itself, of a part or a call, of a part's part.
_ENDS = (b'"}]', b'"}]}]', b'"}}]}]', b'"}]}]}]')


@dataclass(frozen=True, slots=True)
class Piece:
    """The messages in ``body[start:end]`` but for the gap, of which ``end`` is a comma.

    The last piece has no end: it is the rest of the body, whatever follows the list included.
    """

    start: int
    end: int | None
    gap: tuple[int, int] | None = None

    def text(self, body: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
        """Return its bytes without those of the gap, between two others."""
        view = memoryview(body)
        if self.gap is None:
            return b"".join((before, view[self.start : self.end], after))
        first, last = self.gap
        return b"".join((before, view[self.start : first], view[last : self.end], after))

    @property
    def gap_bytes(self) -> int:
        """How many bytes the gap has."""
        return self.gap[1] - self.gap[0] if self.gap else 0


def pieces(body: bytes, start: int, piece_bytes: int = PIECE_BYTES) -> Iterator[Piece | None]:
    """Yield the pieces of the list whose first message is at ``start``; None is a step of work.

    Each has about ``piece_bytes``, or ends behind a gap.
    """
    while True:
        gap = None
        end = _next_cut(body, start + piece_bytes, _SOON_BYTES)
        if end is None:
            for longer in _gaps(body, start, piece_bytes):
                gap = longer
                yield None
            end = _next_cut(body, gap[1] if gap else start + piece_bytes, 2 * PIECE_BYTES)
        yield Piece(start, end, gap)
        if end is None:
            return
        start = end + 1


def _next_cut(body: bytes, after: int, within: int) -> int | None:
    """Return where the next comma between two messages stands, as far as a few bytes tell.

    It is not looked for further than ``within`` so many bytes.
    """
    role, before = after, after + within
    while (role := body.find(_ROLE, role, before)) >= 0:  # a third of what a pattern costs
        if (cut := _CUT.search(body, max(role - _CUT_BYTES, after), role)) is not None:
            return cut.start(1)
        role += len(_ROLE)
    return None


def _gaps(body: bytes, start: int, piece_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the gap in a long text, each longer than the one before; nothing, where there is none.

    It is looked for in the first message, and behind a piece. What it leaves over is read twice:
    at its end it grows in smaller steps.
    """
    for near in (start + piece_bytes // _FINER, start + piece_bytes):
        first = _plain_end(body, near)
        if first is None or not _is_open(body[start:first]):
            continue
        at = first
        for size in (piece_bytes, piece_bytes // _FINER):
            while (end := _plain_end(body, at + size)) is not None and _is_text(body[at:end]):
                at = end
                yield first, at
        if at > first:
            return


def _plain_end(body: bytes, after: int) -> int | None:
    found = _PLAIN.search(body, after, after + _NEAR_BYTES)
    return found.end() if found else None


def _is_open(messages: bytes) -> bool:
    """Tell whether messages are cut within a text."""
    return any(_is_json(b"[%b%b" % (messages, end)) for end in _ENDS)


def _is_text(text: bytes) -> bool:
    """Tell whether bytes may stand within a text, all of them."""
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            return False
    return _is_json(b'"%b"' % text)


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except NO_JSON:
        return False
    return True
