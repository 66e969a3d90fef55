"""A body's conversation: read once, mended where it must be, the prompt put in. Pure.

Four ways lead to the same body. One whose beginning is known goes on from there. A long one is
read in pieces. One that is plain has its texts left packed: only its first message is unpacked,
for the prompt. Any other is unpacked whole.
"""

import secrets
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from appliance import history, splice
from appliance.draft import Draft, parsed
from appliance.errors import RequestError
from appliance.media import MediaPolicy, check_media
from appliance.openai import NO_JSON, RelayRoute
from appliance.pieces import PIECE_BYTES, Piece, pieces
from appliance.prompt import PromptPolicy
from appliance.seen import LEAST_BYTES, LONGEST, Beginning, Start
from appliance.wirebody import (
    LARGE_BYTES,
    MOST_VALUES,
    check_text,
    check_values,
    count_marks,
    fold_field,
    parse_body,
)

EARLY_BYTES = 4096  # within them a body's messages begin, or its beginning is not kept
FIRST_BYTES = 256 * 1024  # the longest first message that is changed in its place
_SPACE = b" \t\r\n"
# The name under which the rest of a body's messages is read: one that no client can know.
_MARK = secrets.token_hex(16)


@dataclass(frozen=True)
class Reading:
    """How to read the conversations of one route: its prompt (or none), and which media pass."""

    route: RelayRoute
    policy: PromptPolicy
    media: MediaPolicy = field(default_factory=MediaPolicy)

    @property
    def name(self) -> str:
        """The field that holds the conversation."""
        return "input" if self.route.path == "/v1/responses" else "messages"

    @property
    def is_embedding(self) -> bool:
        """Whether conversations may stand in two fields, several of them in each."""
        return self.route.path == "/v1/embeddings"

    @property
    def is_chat(self) -> bool:
        """Whether its messages are those of a chat."""
        return self.name == "messages" and not self.route.is_anthropic

    @property
    def folds_first(self) -> bool:
        """Whether the prompt goes into the messages."""
        return bool(self.policy.text) and self.route.prompt == "messages"

    @property
    def kind(self) -> tuple[str, bool]:
        """What two readings of the same beginning must share."""
        return self.route.path, bool(self.policy.text)


def read(fields: dict[str, msgspec.Raw], reading: Reading) -> tuple[Draft, Start | None]:
    """Return the draft of a body for the engine, and how its messages start if they are plain.

    Raises RequestError 400 for what has no meaning, or may not pass.
    """
    if reading.is_embedding:
        for name in ("messages", "input"):
            if name in fields and not history.are_plain_parts(fields[name]):
                _check(parsed(fields[name], name), name, reading)
        return Draft(fields), None
    raw = fields.get(reading.name)
    if raw is None or memoryview(raw)[0] != b"["[0]:
        return _with_prompt(Draft(fields), reading), None  # the engine's own error names it
    if not reading.is_chat:
        is_plain = history.are_plain_parts(raw)
        if not is_plain:
            _check(parsed(raw, reading.name), reading.name, reading)
        return _with_prompt(Draft(fields), reading), Start(b"[", 1) if is_plain else None
    look = history.look(raw)
    if look.is_plain and not _lacks_reasoning(raw, reading.route):
        start = _start(raw, look, reading)
        if start is not None:
            draft = Draft(fields)
            draft.put(reading.name, start.first, memoryview(raw)[start.at :])
            return draft, start
    return _unpacked(fields, raw, reading), None


def _with_prompt(draft: Draft, reading: Reading) -> Draft:
    fold_field(draft, reading.route, reading.policy)
    return draft


def _start(raw: msgspec.Raw | bytes, look: history.Look, reading: Reading) -> Start | None:
    """Return how plain messages start for the engine. None: the prompt's place is further on."""
    if not reading.folds_first:
        return Start(b"[", 1, look.has_instructions)
    window = bytes(memoryview(raw)[:FIRST_BYTES])
    rest = window[1:].lstrip(_SPACE)
    at = len(window) - len(rest)
    if not look.has_instructions:
        put = msgspec.json.encode(reading.policy.apply_to_messages([])[0])
        comma = b"" if rest.startswith(b"]") else b","
        return Start(b"[" + put + comma, at, has_instructions=False)
    end = splice.value_end(window, at) if look.begins_with_them else None
    if end is None:
        return None
    message = parsed(window[at:end], reading.name)
    first = msgspec.json.encode(reading.policy.apply_to_messages([message])[0])
    return Start(b"[" + first, end)


def _unpacked(fields: dict[str, msgspec.Raw], raw: msgspec.Raw, reading: Reading) -> Draft:
    mended = history.Mended(parsed(raw, reading.name))
    _check(mended.messages, reading.name, reading)
    messages = mended.messages
    if reading.route.path == "/tokenize":
        messages = [history.with_reasoning(message) for message in messages]
    if reading.folds_first:
        messages = reading.policy.apply_to_messages(messages)
    draft = Draft(fields, frozenset(mended.kinds))
    draft.put_value(reading.name, messages)
    return draft


def _check(value: Any, name: str, reading: Reading) -> None:
    try:
        check_media(value, name, reading.media)
    except RecursionError:
        raise RequestError(
            400, "invalid_json", f"{name} nests too deep", "send flat contents"
        ) from None


def _lacks_reasoning(raw: msgspec.Raw | bytes, route: RelayRoute) -> bool:
    return route.path == "/tokenize" and b"reasoning_content" in bytes(raw)


# ---- bodies that begin as one before


def beginning(body: bytes, raw: msgspec.Raw, start: Start, reading: Reading) -> Beginning | None:
    """Return how ``body`` begins, whose messages ``raw`` start so.

    None where they begin late, are empty, or stand in it twice.
    """
    found = splice.locate(body[:EARLY_BYTES], reading.name)
    messages = bytes(raw)
    if found is None or not body.startswith(messages, found[0]):
        return None
    offset, before = found
    ending = messages[-64:-1]
    end = offset + len(messages) - 1 - len(ending) + len(ending.rstrip(_SPACE))
    after = _rest(body[end:])
    if body[end - 1 : end] != b"}" or after is None or reading.name in after:
        return None
    fields = {one.name: msgspec.Raw(body[one.start : one.end]) for one in before}
    within = Start(start.first, offset + start.at, start.has_instructions)
    return Beginning(reading.kind, body[:end], fields, within)


def by_pieces(
    body: bytes, reading: Reading, piece_bytes: int = PIECE_BYTES
) -> Generator[None, None, tuple[Draft, Beginning | None] | None]:
    """Read a long body in steps, each of about ``piece_bytes``; return what ``go_on`` does.

    There is no beginning of one that is too long to be kept. None: it must be read as a whole.
    Raises RequestError 400 for one that holds too many values.
    """
    found = splice.locate(body[:EARLY_BYTES], reading.name)
    if reading.is_embedding or found is None or body[found[0] : found[0] + 1] != b"[":
        return None
    offset = found[0]
    try:
        fields = parse_body(body[:offset] + b"0}")
    except RequestError:
        return None
    del fields[reading.name]
    start: Start | None = None
    at = offset + 1
    rest = Piece(at, None)
    marks, is_counted = 0, len(body) <= LARGE_BYTES
    for piece in pieces(body, at, piece_bytes):
        if piece is not None:
            text = piece.text(body, b"[", b"]")
            marks += 0 if is_counted else count_marks(text)
            if piece.end is None:
                rest, is_counted = piece, is_counted or marks <= MOST_VALUES
                break
            listed = _checked(text)
            if listed is None or not (start is None or _may_follow(listed, start, reading)):
                break
            if start is None:
                start = _piece_start(listed, reading)
                if start is None or _is_past(piece, start, offset):
                    return None
            at = piece.end + 1
            rest = Piece(at, None)
        yield
    yield
    if not is_counted:
        yield from check_values(body)
    if start is None:
        return _one_long(body, rest, offset, reading) if rest.gap else None
    within = Start(start.first, offset + start.at, start.has_instructions)
    went = _follow(body, Piece(at - 1, None, rest.gap), fields, within, reading)
    if went is None:
        return None
    # What is kept ends before the last piece, in which another turn of the same may differ.
    return went[0], _begun(body, at - 1, fields, within, reading)


def _is_past(piece: Piece, start: Start, offset: int) -> bool:
    """Tell whether more of a piece is rewritten than what stands before its gap."""
    return piece.gap is not None and offset + start.at > piece.gap[0]


def _begun(
    body: bytes, end: int, fields: Mapping[str, msgspec.Raw], start: Start, reading: Reading
) -> Beginning | None:
    if end > LONGEST:
        return None
    return Beginning(reading.kind, body[:end], fields, start)


def _one_long(
    body: bytes, rest: Piece, offset: int, reading: Reading
) -> tuple[Draft, Beginning | None] | None:
    """Return what ``by_pieces`` does of a body whose first message is long, and few follow."""
    short = Piece(0, None, rest.gap).text(body)
    try:
        fields = parse_body(short)
        draft, start = read(fields, reading)
    except RequestError:
        return None  # told again, with the places of the whole
    if start is None or _is_past(rest, start, offset):
        return None
    found = beginning(short, fields[reading.name], start, reading)
    if found is None:
        return None
    end = len(found.text) + rest.gap_bytes
    draft.put(reading.name, start.first, memoryview(body)[found.start.at : end], b"]")
    return draft, _begun(body, end, found.fields, found.start, reading)


def _checked(text: bytes) -> bytes | None:
    """Return a text that is UTF-8, None if it is not."""
    try:
        for _ in check_text(text):
            pass
    except RequestError:
        return None
    return text


def _piece_start(listed: bytes, reading: Reading) -> Start | None:
    """Return how messages start whose first ones are ``listed``, None if they are not plain."""
    if not reading.is_chat:
        return Start(b"[", 1) if history.are_plain_parts(listed) else None
    look = history.look(listed)
    if not look.is_plain or _lacks_reasoning(listed, reading.route):
        return None
    return _start(listed, look, reading)


def go_on(body: bytes, known: Beginning, reading: Reading) -> tuple[Draft, Beginning] | None:
    """Return the draft of a body that begins as ``known`` does, and how it begins now.

    That is told anew once it has grown by LEAST_BYTES, and by an eighth. None where what is
    new is wrong, or must be read together with what was before.
    """
    size = len(known.text)
    went = _follow(body, Piece(size, None), known.fields, known.start, reading)
    if went is None:
        return None
    draft, end = went
    if end - size > max(LEAST_BYTES, size // 8):
        known = Beginning(known.kind, body[:end], known.fields, known.start)
    return draft, known


def _follow(
    body: bytes,
    rest: Piece,
    fields: Mapping[str, msgspec.Raw],
    start: Start,
    reading: Reading,
) -> tuple[Draft, int] | None:
    """Return the draft of a body whose ``rest`` follows a message, and where its last one ends."""
    new = _checked(rest.text(body))
    later = None if new is None else _rest(new)
    if new is None or later is None or reading.name in later:
        return None
    came = bytes(later.pop(_MARK))[2:-1].strip(_SPACE)
    is_good = came.startswith(b",") and _may_follow(b"[%b]" % came[1:], start, reading)
    if came and not is_good:
        return None
    end = rest.start + (new.index(came) + len(came) + rest.gap_bytes if came else 0)
    draft = Draft({**fields, **later})
    draft.put(reading.name, start.first, memoryview(body)[start.at : end], b"]")
    return _with_prompt(draft, reading), end


def _may_follow(listed: bytes, start: Start, reading: Reading) -> bool:
    """Tell whether further messages may pass as they are."""
    if not reading.is_chat:
        return history.are_plain_parts(listed)
    look = history.look(listed)
    is_late = look.has_instructions and not start.has_instructions
    if reading.folds_first and is_late:
        return False
    return look.is_plain and not _lacks_reasoning(listed, reading.route)


def _rest(text: bytes) -> dict[str, msgspec.Raw] | None:
    """Return the fields that follow in a body whose messages are cut behind one of them.

    Under ``_MARK`` are the messages that follow, behind a zero. None: it is no such body.
    """
    try:
        fields = msgspec.json.decode(
            b'{"%b":[0%b' % (_MARK.encode(), text), type=dict[str, msgspec.Raw]
        )
    except NO_JSON:
        return None
    return fields
