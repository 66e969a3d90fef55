"""What a framework found wrong is told as "field: what", and never as Python writes it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.wireerror import MOST_ISSUES, issues_text, normalise_error

MISSING = {"type": "missing", "loc": ["body", "messages", 0, "role"], "msg": "Field required"}
ODD = {"type": "int_parsing", "loc": ["query", "lines"], "msg": "Input should be a valid integer"}


def told(detail: Any, *, anthropic: bool = False) -> str:
    body = json.dumps({"detail": detail}).encode()
    error = json.loads(normalise_error(422, body, anthropic=anthropic))["error"]
    return str(error["message"])


@pytest.mark.parametrize("anthropic", [False, True])
def test_each_finding_names_its_field_and_what(anthropic: bool) -> None:
    text = told([MISSING, ODD], anthropic=anthropic)
    assert text == "messages.0.role: Field required; lines: Input should be a valid integer"


@pytest.mark.parametrize(
    ("issue", "text"),
    [
        ({"loc": ["body"], "msg": "Field required"}, "the body: Field required"),
        ({"loc": [], "msg": "bad"}, "the body: bad"),
        ({"msg": "bad"}, "the body: bad"),
        ({"loc": "n", "msg": "bad"}, "the body: bad"),
        ({"loc": ("query", "after"), "msg": "bad"}, "after: bad"),
        ({"loc": ["header", "x-key"], "msg": "bad"}, "header.x-key: bad"),
    ],
)
def test_a_finding_without_a_field_is_the_bodys(issue: dict[str, Any], text: str) -> None:
    assert issues_text([issue]) == text


def test_of_many_the_first_are_told_and_how_many_more() -> None:
    text = issues_text([MISSING] * (MOST_ISSUES + 7))
    assert text.count("Field required") == MOST_ISSUES
    assert text.endswith("; and 7 more")


def test_what_a_client_sent_is_not_told() -> None:
    issue = {**MISSING, "input": "the prompt", "ctx": {"error": "the prompt"}}
    assert "prompt" not in told([issue])


@pytest.mark.parametrize(
    "detail", [{"a": None}, [1, None], [{"loc": ["a"]}], [[]], True, 7, {"msg": ["é"]}]
)
def test_what_has_another_shape_is_told_as_json(detail: Any) -> None:
    assert json.loads(told(detail)) == detail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["loc", "msg", "x"]), inner),
    max_leaves=10,
)


@given(JSON)
def test_no_detail_breaks_it_or_is_told_as_python_writes_it(detail: Any) -> None:
    text = told(detail)
    assert text
    if detail in (True, None):
        assert text not in ("True", "None")
