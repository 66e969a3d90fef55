"""A list of messages cut into pieces is that list; and no piece of it is large."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.media import MEDIA_TYPES
from appliance.pathhistory import LONGEST_MESSAGE, split_messages
from appliance.pieces import KEPT_BYTES, PIECE_BYTES, Piece, pieces
from tests import randombodies

HEAD = b'{"model":"m","messages":['


def cut(body: bytes, size: int = PIECE_BYTES) -> list[Piece]:
    """Return the pieces, each read as a list as its taker must; up to one that is no list."""
    found = []
    for piece in pieces(body, len(HEAD), size):
        if piece is None:
            continue
        if piece.end is not None:
            try:
                msgspec.json.decode(piece.text(body, b"[", b"]"))
            except (msgspec.DecodeError, UnicodeDecodeError):
                break
        found.append(piece)
    return found


def split(body: bytes, size: int = PIECE_BYTES) -> list[bytes]:
    """Return the messages, as the ledger has them."""
    steps = split_messages(body, size)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            messages: list[bytes] = end.value
            return messages


@pytest.mark.parametrize("seed", range(3))
def test_the_messages_of_a_body_are_the_same_however_it_is_cut(seed: int) -> None:
    random = randombodies.seeded(seed)
    in_pieces = gaps = 0
    for _ in range(700):
        messages = [randombodies.message(random) for _ in range(random.randrange(7))]
        listed = randombodies.rendered(random, messages)
        told = {"system": '"s"', "input": '"more"', "a": "[1]"}
        after = "".join(f',"{n}":{v}' for n, v in told.items() if random.random() < 0.3)
        if random.random() < 0.1:
            after += ',"mess\\u0061ges":[{"role":"user","content":"instead"}]'
        body = f'{{"model":"m","messages":{listed}{after}}}'.encode()
        if random.random() < 0.2:
            at = random.randrange(len(body))
            body = body[:at] + random.choice((b"]", b"}", b"", b",", b'"')) + body[at + 1 :]
        size = random.randrange(80)
        assert split(body, size) == split(body, len(body)), (size, body)
        found = cut(body, size) if body.startswith(HEAD) else []
        in_pieces += len(found) > 1
        gaps += any(piece.gap for piece in found)
    assert in_pieces > 100
    assert gaps > 30


UNITS = st.sampled_from(
    [
        "a plain word, and é and another one; ",
        "\\u00e9",
        '\\"',
        "\\\\",
        "é日😀",
        "\\ud83d\\ude00",
        "x" * 9,
    ]
)


@given(st.lists(UNITS, max_size=40), st.integers(0, 60))
def test_a_gap_is_whole_letters_and_what_is_left_without_it_means_the_same(
    units: list[str], size: int
) -> None:
    text = "".join(units)
    body = HEAD + f'{{"role":"user","content":"{text}"}}],"stream":true}}'.encode()
    (piece,) = cut(body, size)
    short = json.loads(Piece(0, None, piece.gap).text(body))
    first, last = piece.gap or (0, 0)
    lost = json.loads(b'"%b"' % body[first:last])
    kept = short["messages"][0]["content"]
    whole = json.loads(body)["messages"][0]["content"]
    assert len(kept) + len(lost) == len(whole)
    assert lost in whole
    assert short["stream"]


def turn(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


WORDS = 'some "words" of a file\n'


@pytest.mark.parametrize(
    "messages",
    [
        [turn(WORDS * 250_000)],
        [turn(WORDS * 100), turn(WORDS * 100_000), turn(WORDS * 100)],
        [turn(WORDS * 300)] * 400,
        [turn("é" * 10), turn("é " * 400_000), *[turn(WORDS * 300)] * 30],
        [turn("A" * 3_000_000)],
    ],
    ids=["one", "among others", "many", "not ascii", "no space"],
)
def test_no_piece_is_large_and_no_byte_is_in_two_or_in_none(messages: list[dict[str, Any]]) -> None:
    body = HEAD + json.dumps(messages, ensure_ascii=False).encode()[1:] + b',"stream":true}'
    found = cut(body)
    for piece in found:
        assert len(piece.text(body)) < 3 * PIECE_BYTES
    starts = [piece.start for piece in found]
    assert starts == [len(HEAD), *(piece.end + 1 for piece in found if piece.end is not None)]
    assert found[-1].end is None
    steps = sum(1 for _ in pieces(body, len(HEAD)))
    assert steps >= len(body) // (2 * PIECE_BYTES)


def test_no_word_that_is_looked_for_is_as_long_as_what_a_gap_leaves() -> None:
    words = (*randombodies.ROLES, *MEDIA_TYPES, "function_call_output", "custom_tool_call")
    assert max(map(len, words)) < KEPT_BYTES


def test_a_message_that_is_too_long_is_left_out_however_it_is_found() -> None:
    messages = [turn("a"), turn(WORDS * 60_000), turn("b"), turn(WORDS * 10_000)]
    body = json.dumps({"messages": messages}).encode()
    kept = [one for one in split(body) if len(one) <= LONGEST_MESSAGE]
    assert [json.loads(one) for one in kept] == [messages[n] for n in (0, 2, 3)]
    assert split(body) == kept == split(body, len(body))
