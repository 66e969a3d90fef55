"""A body that is made of very many values is refused before any of them is read."""

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.conversation import Reading, by_pieces
from appliance.errors import RequestError
from appliance.openai import ROUTES
from appliance.prompt import PromptPolicy
from appliance.wirebody import LARGE_BYTES, MOST_VALUES, check_text, check_values

CHAT = Reading(ROUTES[0], PromptPolicy("the prompt"))


def run(steps: Iterator[Any]) -> int:
    return sum(1 for _ in steps)


def values(value: Any) -> int:
    """Count the lists, the objects, and what stands behind a comma."""
    if isinstance(value, dict):
        return 1 + max(0, len(value) - 1) + sum(map(values, value.values()))
    if isinstance(value, list):
        return 1 + max(0, len(value) - 1) + sum(map(values, value))
    return 0


TEXT = st.text() | st.text(alphabet='\\"{}[],:', max_size=12)
JSON = st.recursive(
    st.none() | st.integers() | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=30,
)


@given(JSON, st.booleans(), st.integers(1, 40))
def test_what_is_counted_are_the_values_outside_of_strings(
    document: Any, ascii_only: bool, piece_bytes: int
) -> None:
    body, count = json.dumps(document, ensure_ascii=ascii_only).encode(), values(document)
    run(check_values(body, count, piece_bytes))
    if count:
        with pytest.raises(RequestError):
            run(check_values(body, count - 1, piece_bytes))


@given(st.binary(max_size=200), st.integers(1, 9))
def test_no_bytes_break_the_count(rubbish: bytes, piece_bytes: int) -> None:
    run(check_values(rubbish, 200, piece_bytes))
    run(check_values(b"\\" * len(rubbish), 0, piece_bytes))


def body_of(unit: bytes, size: int) -> bytes:
    head, tail = b'{"messages":[', b'0],"model":"N"}'
    return head + unit * ((size - len(head) - len(tail)) // len(unit)) + tail


UNITS = [b"{},", b"[],", b"1,", b'"",', b'{"text":""},', b'{"role":"user"},', b'{"a":0,"b":1},']


@pytest.mark.parametrize("unit", UNITS)
def test_a_dense_body_is_refused_by_the_number_and_costs_little(unit: bytes) -> None:
    body = body_of(unit, 2 * LARGE_BYTES)
    while body.count(unit) <= MOST_VALUES:
        body = body_of(unit, 2 * len(body))
    tracemalloc.start()
    try:
        for reader in (check_text(body), by_pieces(body, CHAT)):
            with pytest.raises(RequestError) as caught:
                run(reader)
            assert (caught.value.http_status, caught.value.code) == (400, "too_many_values")
            assert "250,000" in caught.value.what
        assert tracemalloc.get_traced_memory()[1] < 2**24  # one piece's, however long it is
    finally:
        tracemalloc.stop()


def test_a_long_body_of_code_is_no_dense_one() -> None:
    line = json.dumps('{"a": [1, 2, 3], "b": "\\\\x"},\n' * 50)
    body = body_of(b'{"role":"user","content":%b},' % line.encode(), 4 * LARGE_BYTES)
    assert body.count(b",") > MOST_VALUES
    assert run(check_text(body)) > 10  # in steps: others have their turn


def test_a_short_body_is_not_counted_at_all() -> None:
    assert run(check_text(body_of(b"{},", LARGE_BYTES))) == 0


def test_a_prompt_of_tokens_as_long_as_any_context_passes() -> None:
    body = body_of(b"123456789, ", LARGE_BYTES * 2)
    assert body.count(b",") > 131_072
    run(check_text(body))
