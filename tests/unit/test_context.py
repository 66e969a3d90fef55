"""A limit of output is never raised, and becomes what the context has left where it is too much."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from appliance.context import (
    EXTRA_TOKENS,
    LEAST_BYTES,
    Density,
    Room,
    counter,
    does_not_fit,
    fit,
    is_fitted,
    without_large_limit,
)
from appliance.draft import Draft
from appliance.openai import ROUTES, RelayRoute
from appliance.wirebody import parse_body
from appliance.wireerror import error_body

SERVED = 49_152


def route(path: str) -> RelayRoute:
    return next(one for one in ROUTES if one.path == path)


CHAT, COMPLETIONS = route("/v1/chat/completions"), route("/v1/completions")
RESPONSES, MESSAGES = route("/v1/responses"), route("/v1/messages")


def draft(**fields: Any) -> Draft:
    return Draft(parse_body(json.dumps(fields).encode()))


def sent(one: Draft) -> dict[str, Any]:
    return dict(json.loads(one.encode()))


@pytest.mark.parametrize(
    ("to", "name"),
    [(CHAT, "max_tokens"), (CHAT, "max_completion_tokens"), (RESPONSES, "max_output_tokens")],
)
@given(asked=st.integers(1, 10 * SERVED))
def test_a_limit_goes_only_where_it_is_half_the_context(
    to: RelayRoute, name: str, asked: int
) -> None:
    one = draft(**{name: asked, "stop": "x"})
    room, is_removed = without_large_limit(to, one, SERVED)
    assert is_removed == (asked * 2 >= SERVED)
    assert sent(one) == ({"stop": "x"} if is_removed else {name: asked, "stop": "x"})
    assert room == (Room(SERVED) if is_removed else Room(SERVED, asked, name))


@pytest.mark.parametrize("to", [COMPLETIONS, MESSAGES])
@given(asked=st.integers(1, 10 * SERVED))
def test_a_limit_that_must_stand_is_at_most_the_context(to: RelayRoute, asked: int) -> None:
    one = draft(max_tokens=asked)
    room, is_changed = without_large_limit(to, one, SERVED)
    assert sent(one)["max_tokens"] == min(asked, SERVED)
    assert is_changed == (asked > SERVED)
    # of a large one the engine takes what the prompt leaves: nobody need count for it
    assert room == (Room(SERVED) if asked * 2 >= SERVED else Room(SERVED, asked, "max_tokens"))


SPELLINGS = [float, str, lambda n: f" {n} ", lambda n: f"{n}.0", lambda n: f"+{n}"]


@pytest.mark.parametrize("to", [CHAT, COMPLETIONS, RESPONSES, MESSAGES])
@pytest.mark.parametrize("spell", SPELLINGS)
@given(asked=st.integers(1, 10 * SERVED), prompt=st.integers(0, SERVED - 1))
def test_a_limit_in_any_spelling_that_the_engine_takes_is_that_number(
    to: RelayRoute, spell: Callable[[int], Any], asked: int, prompt: int
) -> None:
    name = "max_output_tokens" if to is RESPONSES else "max_tokens"
    plain, odd = draft(**{name: asked}), draft(**{name: spell(asked)})
    assert without_large_limit(to, odd, SERVED) == (found := without_large_limit(to, plain, SERVED))
    assert fit(found[0], odd, prompt) == fit(found[0], plain, prompt)
    ours, theirs = sent(plain).get(name), sent(odd).get(name)
    assert (theirs is None) == (ours is None)
    assert theirs is None or int(float(theirs)) == ours


def test_the_engines_own_reader_agrees_on_what_a_limit_is() -> None:
    class Asked(BaseModel):
        max_tokens: int | None = None

    for text in ("1e9", "32000.0", '"32000"', "true", "null", "7", "1.5", '"1e9"', "[1]", '"7.5"'):
        ours = Draft(parse_body(b'{"max_tokens":%b}' % text.encode())).whole("max_tokens")
        try:
            theirs = Asked(**json.loads(f'{{"max_tokens":{text}}}')).max_tokens
        except ValidationError:
            theirs = None
        assert ours == theirs


@pytest.mark.parametrize(
    ("asked", "budget", "limit", "thinking"),
    [
        (64_000, 60_000, SERVED, {"type": "enabled", "budget_tokens": SERVED - 1}),
        (64_000, "60000", SERVED, {"type": "enabled", "budget_tokens": SERVED - 1}),
        (64_000, 9_000, SERVED, {"type": "enabled", "budget_tokens": 9_000}),
        (48_000, 47_000, 48_000, {"type": "enabled", "budget_tokens": 47_000}),
        (64_000, "much", SERVED, {"type": "enabled", "budget_tokens": "much"}),
    ],
)
def test_a_lowered_limit_stays_above_the_budget_of_thinking(
    asked: int, budget: Any, limit: int, thinking: dict[str, Any]
) -> None:
    one = draft(max_tokens=asked, thinking={"type": "enabled", "budget_tokens": budget})
    without_large_limit(MESSAGES, one, SERVED)
    assert sent(one) == {"max_tokens": limit, "thinking": thinking}


def test_where_too_little_is_left_for_a_budget_the_limit_alone_ends_the_thinking() -> None:
    one = draft(max_tokens=20_000, thinking={"type": "enabled", "budget_tokens": 10_000})
    assert fit(Room(SERVED, 20_000, "max_tokens"), one, SERVED - 1000)
    assert sent(one) == {"max_tokens": 1000, "thinking": {"type": "adaptive"}}


@pytest.mark.parametrize("thinking", [None, "on", {"type": "disabled"}, {"type": "adaptive"}, []])
def test_thinking_without_a_budget_is_left_alone(thinking: Any) -> None:
    one = draft(max_tokens=64_000, thinking=thinking)
    without_large_limit(MESSAGES, one, SERVED)
    assert sent(one)["thinking"] == thinking


def test_of_two_limits_the_newer_name_rules() -> None:
    both = draft(max_tokens=32_000, max_completion_tokens=500)
    assert without_large_limit(CHAT, both, SERVED) == (
        Room(SERVED, 500, "max_completion_tokens"),
        False,
    )
    large = draft(max_tokens=500, max_completion_tokens=32_000)
    assert without_large_limit(CHAT, large, SERVED) == (Room(SERVED), True)
    assert sent(large) == {}  # the older one would rule in its place, and cut the answer
    null = draft(max_tokens=500, max_completion_tokens=None)
    assert without_large_limit(CHAT, null, SERVED)[0].name == "max_tokens"


@pytest.mark.parametrize("value", [0, -1, "many", 1.5, "1e3", False, None, [], {}])
def test_what_is_no_limit_is_left_for_the_engine(value: Any) -> None:
    one = draft(max_tokens=value)
    assert without_large_limit(CHAT, one, SERVED) == (Room(SERVED), False)
    assert sent(one) == {"max_tokens": value}


@given(asked=st.integers(1, SERVED), prompt=st.integers(0, SERVED - 1))
def test_a_fitted_limit_is_the_smaller_of_what_was_asked_and_what_is_left(
    asked: int, prompt: int
) -> None:
    one = draft(max_tokens=asked)
    is_lowered = fit(Room(SERVED, asked, "max_tokens"), one, prompt)
    assert sent(one)["max_tokens"] == min(asked, SERVED - prompt)
    assert is_lowered == (asked > SERVED - prompt)


def test_without_a_limit_nothing_is_put_in() -> None:
    one = draft(stop="x")
    assert not fit(Room(SERVED), one, SERVED - 1)
    assert sent(one) == {"stop": "x"}


@given(st.integers(0, SERVED), st.integers(1, SERVED))
def test_room_lacks_exactly_where_the_sum_is_too_large(prompt: int, asked: int) -> None:
    assert Room(SERVED, asked, "max_tokens").may_lack(prompt) == (prompt + asked > SERVED)


@given(st.lists(st.tuples(st.integers(1, 10**7), st.integers(0, 10**7)), max_size=50))
def test_no_more_than_a_token_a_byte_is_expected_and_no_less_than_was_seen(
    told: list[tuple[int, int]],
) -> None:
    density = Density()
    assert density.most_tokens(1000) == 1000 + EXTRA_TOKENS
    for size, tokens in told:
        density.note(size, tokens)
    for size, tokens in [one for one in told if one[0] >= LEAST_BYTES][-32:]:
        assert min(tokens, size) <= density.most_tokens(size) <= size + EXTRA_TOKENS
        assert density.most_tokens(size) >= size // 3


def test_short_prompts_tell_nothing_and_those_of_long_ago_are_forgotten() -> None:
    density = Density()
    density.note(100, 1)
    assert density.most_tokens(1000) == 1000 + EXTRA_TOKENS
    density.note(10_000, 10_000)
    for _ in range(32):
        density.note(10_000, 2500)
    assert density.most_tokens(1000) == 375 + EXTRA_TOKENS


@pytest.mark.parametrize(
    ("to", "fields", "fitted"),
    [
        (CHAT, {}, True),
        (CHAT, {"truncate_prompt_tokens": 10}, False),
        (RESPONSES, {"truncation": "auto"}, False),
        (RESPONSES, {"truncation": "disabled"}, True),
        (RESPONSES, {"truncation": None}, True),
        (CHAT, {"truncate_prompt_tokens": None}, True),
        (route("/v1/embeddings"), {}, False),
        (route("/tokenize"), {}, False),
    ],
)
def test_only_what_generates_and_cuts_no_prompt_is_fitted(
    to: RelayRoute, fields: dict[str, Any], fitted: bool
) -> None:
    assert is_fitted(to, draft(**fields)) == fitted


@pytest.mark.parametrize(
    ("to", "path", "answer"),
    [
        (CHAT, "/tokenize", "count"),
        (COMPLETIONS, "/tokenize", "count"),
        (MESSAGES, "/v1/messages/count_tokens", "input_tokens"),
    ],
)
def test_a_prompt_is_counted_where_its_own_route_would_count_it(
    to: RelayRoute, path: str, answer: str
) -> None:
    found = counter(to)
    assert found is not None
    assert (found.path, found.answer) == (path, answer)
    assert {"model", "messages", "tools", "chat_template_kwargs"} <= set(found.names)
    assert ("system" in found.names) == (to is MESSAGES)


def test_a_response_is_counted_nowhere() -> None:
    assert counter(RESPONSES) is None


def test_the_refusal_is_worded_so_that_agents_compact() -> None:
    error = json.loads(error_body(does_not_fit(CHAT, 60_000, SERVED)))["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["type"] == "invalid_request_error"
    assert "maximum context length is 49152 tokens" in error["message"]
    assert "60000" in error["message"]
    anthropic = json.loads(error_body(does_not_fit(MESSAGES, 60_000, SERVED), anthropic=True))
    assert "prompt is too long: 60000 tokens > 49152 maximum" in anthropic["error"]["message"]
