"""Where messages begin, from the beginning of a body alone: as a JSON parser would find them."""

import json
from typing import Any

import pytest

from appliance import splice
from tests import randombodies

BODIES = 5000  # four times


class Pairs(list[tuple[str, Any]]):
    """An object's members, each of them, in order."""


def reference(body: bytes) -> tuple[list[tuple[str, Any]], Any] | None:
    """Return what stands before the first ``messages``, and its value, as Python's json says."""
    pairs = json.loads(body, object_pairs_hook=Pairs)
    for index, (name, value) in enumerate(pairs):
        if name == "messages":
            return list(pairs[:index]), value
    return None


@pytest.mark.parametrize("seed", range(4))
def test_a_body_and_each_of_its_prefixes_say_what_a_parser_says_or_nothing(seed: int) -> None:
    random = randombodies.seeded(seed)
    found_some = 0
    for _ in range(BODIES):
        body = randombodies.body(random)
        found = splice.locate(body, "messages")
        expected = reference(body)
        assert (found is None) == (expected is None), body
        for end in range(len(body)):
            early = splice.locate(body[:end], "messages")
            assert early is None or early == found, body[:end]
        if found is None or expected is None:
            continue
        found_some += 1
        start, before = found
        end_of_value = splice.value_end(body, start)
        assert end_of_value is not None
        value = json.loads(body[start:end_of_value], object_pairs_hook=Pairs)
        assert value == expected[1], body
        told = [
            (one.name, json.loads(body[one.start : one.end], object_pairs_hook=Pairs))
            for one in before
        ]
        assert told == expected[0], body
    assert found_some > BODIES / 10


@pytest.mark.parametrize("seed", range(2))
def test_the_end_of_a_value_is_never_found_before_it_is_there(seed: int) -> None:
    random = randombodies.seeded(seed)
    for _ in range(2000):
        text = randombodies.value(random).encode()
        body = b"[" + text + b"]"
        assert splice.value_end(body, 1) == len(text) + 1, body
        for end in range(2, len(text) + 1):
            assert splice.value_end(body[:end], 1) is None, body[:end]


def test_of_two_the_first_is_found_and_the_escaped_one_counts() -> None:
    body = rb'{"mess\u0061ges": [1], "messages": [2]}'
    found = splice.locate(body, "messages")
    assert found is not None
    assert body[found[0] :].startswith(b"[1]")


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{", b'{"messages"', b'{"messages":', b"{]", b'{"a" 1}', b"{1:2}"],
)
def test_what_is_no_object_with_messages_has_none(body: bytes) -> None:
    assert splice.locate(body, "messages") is None
    assert splice.locate(body + b" ", "messages") is None


def test_a_name_that_is_no_text_ends_the_search() -> None:
    assert splice.locate(b'{"\\ud800": 1, "messages": []}', "messages") is None
    assert splice.locate(b'{"\xff": 1, "messages": []}', "messages") is None
