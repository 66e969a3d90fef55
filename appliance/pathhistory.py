"""A request's conversation read into a ledger, one message at a time. Pure.

It is read in steps of half a millisecond: a body is split in pieces, and a message is read in
slices. What a message shows is kept by its bytes, so that a conversation which goes on costs what
is new in it.
"""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable

import msgspec

from appliance import splice
from appliance.openai import NO_JSON
from appliance.pathledger import Call, Ledger, Page
from appliance.pathwitness import fill
from appliance.pieces import PIECE_BYTES, Piece, pieces

STEP_S = 0.0003  # and what was begun by then: half a millisecond together
IN_A_ROW = 16  # messages whose pages become one
A_PATH = 256  # bytes of text that weigh as much as a path
LONGEST_MESSAGE = 2**20  # bytes; what is longer is an image, or read by nobody
EARLY_BYTES = 4096  # within them the messages begin, or the body is split in one go

_NONE = msgspec.Raw()
_CALLS = ("function_call", "custom_tool_call")


class _Head(msgspec.Struct):
    role: str | None = None
    type: str | None = None


# What stands for the messages that were split already: a value that no client can know.
_SPLIT = b'"%b"' % secrets.token_hex(16).encode()


class _Body(msgspec.Struct):
    """What of a request is read, split."""

    system: msgspec.Raw = _NONE
    instructions: msgspec.Raw = _NONE
    messages: list[msgspec.Raw] | str = []
    input: list[msgspec.Raw] | str = []


class Reader:
    """Reads conversations into ledgers, and keeps the pages of the last ones.

    ``clock`` returns seconds; it decides when a step is over. At most ``most_paths`` are kept, and
    as many messages; the texts that are kept with them count as paths too.
    """

    def __init__(self, clock: Callable[[], float], most_paths: int = 100_000) -> None:
        self._clock = clock
        self._most_paths = most_paths
        self._kept: OrderedDict[bytes, Page] = OrderedDict()
        self._weights: dict[bytes, int] = {}
        self._paths = 0

    @property
    def kept_paths(self) -> int:
        """The paths on all pages that are kept, and what their texts weigh."""
        return self._paths

    @property
    def kept_messages(self) -> int:
        """The messages, and rows of them, whose pages are kept."""
        return len(self._kept)

    def read(self, body: bytes) -> Generator[None, None, Ledger]:
        """Read a request's body, a step at a time; return its ledger. No body makes it fail.

        A message of a shape that we do not know shows nothing.
        """
        end = self._clock() + STEP_S
        pages: list[Page] = []
        keys: list[bytes] = []
        calls: dict[str, Call] = {}
        group = b""  # of calls that stand together: what they return is read by their light
        was_call = False
        for text in (yield from split_messages(body)):
            if self._clock() >= end:
                yield
                end = self._clock() + STEP_S
            is_call = _is_call(text)
            if len(text) > PIECE_BYTES:
                yield
            key = _key(b"call" if is_call else b"said" + group, text)
            if is_call:
                group = bytes(a ^ b for a, b in zip(group, key, strict=True)) if was_call else key
            was_call = is_call
            page = self._kept.get(key)
            if page is None:
                page = Page()
                for _ in fill(page, text, calls):
                    if self._clock() >= end:
                        yield
                        end = self._clock() + STEP_S
                self._keep(key, page, len(text) if page.calls else 0)
            else:
                self._kept.move_to_end(key)
            calls |= page.calls
            pages.append(page)
            keys.append(key)
        return Ledger((yield from self._bound(pages, keys)))

    def _bound(self, pages: list[Page], keys: list[bytes]) -> Generator[None, None, list[Page]]:
        """Return the pages with each full row of them as one: fewer are to be asked."""
        bound: list[Page] = []
        whole = len(pages) - len(pages) % IN_A_ROW
        for start in range(0, whole, IN_A_ROW):
            key = _key(b"row", b"".join(keys[start : start + IN_A_ROW]))
            page = self._kept.get(key)
            if page is None:
                page = Page()
                for one in pages[start : start + IN_A_ROW]:
                    page.take(one)
                    yield
                self._keep(key, page)
            else:
                self._kept.move_to_end(key)
            bound.append(page)
        return bound + pages[whole:]

    def _keep(self, key: bytes, page: Page, call_bytes: int = 0) -> None:
        if key in self._kept:  # read twice at a time, by two requests
            self._paths -= self._weights[key]
        self._kept[key] = page
        weight = len(page.known) + (len(page.said) + call_bytes) // A_PATH
        self._weights[key] = weight
        self._paths += weight
        while max(self._paths, len(self._kept)) > self._most_paths and len(self._kept) > 1:
            oldest, _ = self._kept.popitem(last=False)
            self._paths -= self._weights.pop(oldest)


def split_messages(
    body: bytes, piece_bytes: int = PIECE_BYTES
) -> Generator[None, None, list[bytes]]:
    """Return what a body says, message by message: the system prompt first where it is a field.

    One that is too long is left out. A step takes a piece of the body.
    """
    found = _list_start(body)
    if found is None:
        return _said(_decoded(body))
    split: list[bytes] = []
    rest = Piece(found, None)
    for piece in pieces(body, found, piece_bytes):
        if piece is not None:
            if piece.end is None:
                rest = piece
                break
            text = piece.text(body, b"[", b"]")
            listed = _listed(text)
            if listed is None:
                break
            split += _whole(body, piece, text, 1, listed)
            rest = Piece(piece.end + 1, None)
        yield
    if rest.start == found and rest.gap is None:
        return _said(_decoded(body))
    text = rest.text(body, body[:found] + _SPLIT + b",")
    told = _decoded(text)
    for name in ("messages", "input"):
        some = getattr(told, name)
        if isinstance(some, list) and some and bytes(some[0]) == _SPLIT:
            before = found + len(_SPLIT) + 1
            setattr(told, name, split + _whole(body, rest, text, before, some[1:]))
    return _said(told)


def _list_start(body: bytes) -> int | None:
    """Return where the first message stands, None where that is not told soon, or there is none."""
    for name in ("messages", "input"):
        found = splice.locate(body[:EARLY_BYTES], name)
        if found is not None and body[found[0] : found[0] + 1] == b"[":
            return found[0] + 1
    return None


def _listed(text: bytes) -> list[msgspec.Raw] | None:
    try:
        return msgspec.json.decode(text, type=list[msgspec.Raw])
    except (*NO_JSON, msgspec.ValidationError):
        return None


def _whole(
    body: bytes, piece: Piece, text: bytes, before: int, listed: list[msgspec.Raw]
) -> list[bytes]:
    """Return the messages of a piece, of which the one with the gap gets it back.

    They are ``listed`` in ``text``, where the piece begins at ``before``. One that is too long is
    left out.
    """
    if piece.gap is None:
        return _copied(listed)
    first = before + piece.gap[0] - piece.start
    end = before
    for n, raw in enumerate(listed):
        start = text.index(memoryview(raw), end)
        end = start + memoryview(raw).nbytes
        if start < first < end:
            size = end - start + piece.gap_bytes
            at = piece.start + start - before
            one = [body[at : at + size]] if size <= LONGEST_MESSAGE else []
            return [*_copied(listed[:n]), *one, *_copied(listed[n + 1 :])]
    return _copied(listed)


def _copied(listed: Iterable[msgspec.Raw | bytes]) -> list[bytes]:
    return [bytes(raw) for raw in listed if memoryview(raw).nbytes <= LONGEST_MESSAGE]


def _decoded(body: bytes) -> _Body:
    try:
        return msgspec.json.decode(body, type=_Body)
    except (*NO_JSON, msgspec.ValidationError):
        return _Body()


def _said(told: _Body) -> list[bytes]:
    given = (told.system, told.instructions)
    said: list[msgspec.Raw | bytes] = [_as_message("system", one) for one in given if one != _NONE]
    for some in (told.messages, told.input):
        if isinstance(some, str):
            said.append(_as_message("user", msgspec.json.encode(some)))
        else:
            said += some
    return _copied(said)


def _as_message(role: str, content: msgspec.Raw | bytes) -> bytes:
    return b'{"role":"%b","content":%b}' % (role.encode(), bytes(content))


def _key(kind: bytes, text: bytes) -> bytes:
    """Return what stands for a text of one kind.

    SHA-256 has instructions of its own in the processors that this is for, and takes a third of
    what the fastest hash without them takes.
    """
    found = hashlib.sha256(b"%d %b" % (len(kind), kind))
    found.update(text)
    return found.digest()[:16]


def _is_call(text: bytes) -> bool:
    try:
        head = msgspec.json.decode(text, type=_Head)
    except (*NO_JSON, msgspec.ValidationError):
        return False
    return head.role == "assistant" or head.type in _CALLS


def read_all(body: bytes) -> Ledger:
    """Return the ledger of a body, read in one go: for where nobody else waits."""
    steps = Reader(lambda: 0.0).read(body)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            ledger: Ledger = end.value
            return ledger
