"""A call's arguments in pieces: every string is seen, where it is, whatever the cut."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.patharguments import (
    LONGEST,
    Closed,
    Opened,
    Scanner,
    raw_offsets,
    spelled_like,
    unspelled,
)
from tests.pathevents import cut

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
KEYS = st.sampled_from(["path", "a", "é", 'q"', "\\"])
VALUES = st.recursive(
    TEXTS | st.integers() | st.floats(allow_nan=False) | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=9,
)


def strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for one in value:
            yield from strings(one, key)
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from strings(one, name)


@given(VALUES, st.booleans(), st.sampled_from([None, 1]), st.lists(st.integers(0, 200)))
def test_each_string_is_seen_with_its_key_and_place(
    value: Any, ascii_only: bool, indent: int | None, places: list[int]
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    scanner = Scanner()
    marks = [mark for piece in cut(text, places) for mark in scanner.feed(piece)]
    opened = [mark for mark in marks if isinstance(mark, Opened)]
    closed = [mark for mark in marks if isinstance(mark, Closed)]
    assert [(one.key, unspelled(one.spelled or "")) for one in closed] == list(strings(value))
    for begin, end in zip(opened, closed, strict=True):
        assert text[begin.at : end.at] == end.spelled
        assert begin.key == end.key
    assert scanner.at == len(text)


@given(st.text(max_size=80), st.lists(st.integers(0, 80)))
def test_no_text_makes_scanning_fail(text: str, places: list[int]) -> None:
    scanner = Scanner()
    for piece in cut(text, places):
        list(scanner.feed(piece))


def test_a_value_that_is_too_long_is_closed_without_its_text() -> None:
    marks = list(Scanner().feed(json.dumps({"path": "a" * (LONGEST + 1), "b": "c"})))
    assert [mark.spelled for mark in marks if isinstance(mark, Closed)] == [None, "c"]


@given(TEXTS, st.booleans(), st.data())
def test_offsets_of_a_text_are_those_of_its_spelling(
    text: str, ascii_only: bool, data: st.DataObject
) -> None:
    raw = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
    wanted = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    for offset, at in zip(wanted, raw_offsets(raw, wanted), strict=True):
        assert json.loads(f'"{raw[:at]}"') == text[:offset]
        assert json.loads(f'"{raw[at:]}"') == text[offset:]


@given(TEXTS, TEXTS)
def test_what_is_spelled_like_another_means_the_same(text: str, other: str) -> None:
    for spelled in (json.dumps(other)[1:-1], json.dumps(other, ensure_ascii=False)[1:-1]):
        assert json.loads(f'"{spelled_like(text, spelled)}"') == text


@pytest.mark.parametrize("spelled", ["\\", "\\x", "\\ud800", "a\nb", "\\u12"])
def test_what_is_no_json_string_has_no_text(spelled: str) -> None:
    assert unspelled(spelled) is None
