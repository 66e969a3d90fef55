"""How many sequences a request makes, as the engine reads it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.draft import Draft
from appliance.openai import ROUTES, RelayRoute
from appliance.sequences import sequences
from appliance.wirebody import parse_body


def route(path: str) -> RelayRoute:
    return next(one for one in ROUTES if one.path == path)


CHAT, COMPLETIONS = route("/v1/chat/completions"), route("/v1/completions")


def count(to: RelayRoute, **fields: Any) -> int:
    return sequences(to, Draft(parse_body(json.dumps(fields).encode())))


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        *((3, 3), (3.0, 3), ("3", 3), (" 3 ", 3), (True, 1), (None, 1), (1e9, 10**9)),
        *((0, 1), (-2, 1), (1.5, 1), ("many", 1), ([9], 1), ({}, 1)),  # the engine refuses them
    ],
)
def test_n_is_read_as_the_engine_reads_it(n: Any, expected: int) -> None:
    assert count(CHAT, messages=[], n=n) == expected
    assert count(COMPLETIONS, prompt="x", n=n) == expected


def test_without_n_there_is_one() -> None:
    for to in ROUTES:
        assert count(to, messages=[], prompt="x", input="x") == 1


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        *(("text", 1), ("[a, b]", 1), ([], 1), (None, 1), ([1, 2, 3], 1), ([-1], 1)),
        *((["a"], 1), (["a", "b"], 2), ([[1, 2], [3]], 2), ([[1, 2], "b", "c"], 3)),
    ],
)
def test_each_prompt_of_a_list_is_one_and_a_list_of_tokens_is_one_prompt(
    prompt: Any, expected: int
) -> None:
    assert count(COMPLETIONS, prompt=prompt) == expected
    assert count(COMPLETIONS, prompt=prompt, n=2) == 2 * expected


def test_white_space_hides_no_list() -> None:
    fields = parse_body(b'{"prompt" : [ \n\t "a" , "b" ] , "n" : 2 }')
    assert sequences(COMPLETIONS, Draft(fields)) == 4


def test_embedded_prompts_count_beside_those_in_words() -> None:
    assert count(COMPLETIONS, prompt=["a"], prompt_embeds=["AA", "BB"]) == 3
    assert count(COMPLETIONS, prompt=None, prompt_embeds="AA") == 1


@given(st.lists(st.text(), min_size=1, max_size=20), st.integers(1, 20))
def test_prompts_times_n(prompts: list[str], n: int) -> None:
    assert count(COMPLETIONS, prompt=prompts, n=n) == len(prompts) * n


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/embeddings", "/tokenize"])
def test_the_other_routes_know_no_n(path: str) -> None:
    assert count(route(path), n=9, input=["a"] * 50, prompt=["a", "b"]) == 1
