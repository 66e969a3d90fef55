"""Request bodies: what is no JSON is refused with a reason; what passes, passes unchanged."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.conversation import Reading, read
from appliance.draft import Draft, parsed
from appliance.errors import RequestError
from appliance.openai import ROUTES, RelayRoute
from appliance.prompt import PromptPolicy
from appliance.wirebody import PIECE_BYTES, check_model, parse_body

TEXT = "Preserve path names."
POLICY = PromptPolicy(TEXT)
OFF = PromptPolicy("")
USER = {"role": "user", "content": "hi"}

TEXTS = st.text(alphabet=st.characters(codec="utf-8"), max_size=12)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | TEXTS
    | st.floats(allow_nan=False, width=64).filter(lambda number: abs(number) != float("inf")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(TEXTS, JSON, max_size=5)


def route(path: str) -> RelayRoute:
    return next(route for route in ROUTES if route.path == path)


CHAT = route("/v1/chat/completions")
RESPONSES = route("/v1/responses")
MESSAGES = route("/v1/messages")
PROMPTED = [one for one in ROUTES if one.prompt]


def injected(body: Any, to: RelayRoute, policy: PromptPolicy = POLICY) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return json.loads(sent(raw, to, policy))


def sent(body: bytes, to: RelayRoute, policy: PromptPolicy = POLICY) -> bytes:
    return read(parse_body(body), Reading(to, policy))[0].encode()


# ---- what is no request


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"model": }',
        b'{"model": "Nikola"} x',
        b'{"temperature": NaN}',
        b"{'model': 'Nikola'}",
        b'{"a": 01}',
        b"[]",
        b"null",
        b'"text"',
        b"[" * 100_000,
        b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model": "\xff"}',
        b'{"\xff": 1}',
        '{"model": "Nikola"}'.encode("utf-16"),
        b'{"a": "\\ud800"}',
    ],
)
def test_what_is_no_json_object_is_refused_with_400(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        parse_body(body)
    assert (caught.value.http_status, caught.value.code) == (400, "invalid_json")
    assert caught.value.hint


def test_a_list_is_called_json_but_no_object() -> None:
    with pytest.raises(RequestError, match="no object"):
        parse_body(b"[1]")


def test_messages_that_must_be_changed_and_hold_a_number_beyond_all_floats_are_refused() -> None:
    with pytest.raises(RequestError, match="messages"):
        injected(b'{"messages": [{"role": "user", "content": null, "n": 1e999}]}', CHAT)


def test_of_a_key_that_stands_twice_the_last_counts_for_us_and_the_engine() -> None:
    fields = parse_body(b'{"model": "a", "mod\\u0065l": "b"}')
    assert parsed(fields["model"], "model") == "b"
    twice = b'{"messages": [], "messages": [{"role": "user", "content": "x", "content": "y"}]}'
    body = sent(twice, CHAT)
    assert body.count(b'"messages"') == 1
    assert json.loads(body)["messages"][1] == {"role": "user", "content": "y"}


# ---- the model


def check(body: str) -> None:
    check_model(Draft(parse_body(body.encode())), "Nikola")


@pytest.mark.parametrize("body", ["{}", '{"model": null}', '{"model": "Nikola"}'])
def test_the_served_model_and_no_model_pass(body: str) -> None:
    check(body)


@pytest.mark.parametrize("name", ["nikola", "Nikola ", "gpt-4", ""])
def test_another_model_is_not_found_and_the_served_one_is_named(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        check(json.dumps({"model": name}))
    assert (caught.value.http_status, caught.value.code) == (404, "model_not_found")
    assert repr(name) in caught.value.what
    assert "Nikola" in caught.value.hint


@pytest.mark.parametrize("value", ["7", '["Nikola"]', "true", '{"a": 1}'])
def test_a_model_that_is_no_string_is_refused_by_its_value(value: str) -> None:
    with pytest.raises(RequestError) as caught:
        check(f'{{"model": {value}}}')
    assert (caught.value.http_status, caught.value.code) == (400, "invalid_type")
    assert value in caught.value.what


# ---- injection


@given(FIELDS, st.sampled_from(ROUTES))
def test_all_that_is_not_the_prompts_field_arrives_equal(
    fields: dict[str, Any], to: RelayRoute
) -> None:
    body = injected(fields, to)
    body.pop(to.prompt, None)
    assert body == {name: value for name, value in fields.items() if name != to.prompt}


@given(FIELDS, st.sampled_from(ROUTES))
def test_switched_off_the_whole_body_arrives_equal(fields: dict[str, Any], to: RelayRoute) -> None:
    assert injected(fields, to, OFF) == fields


@given(FIELDS, st.sampled_from(ROUTES))
def test_a_body_that_passes_twice_is_injected_once(fields: dict[str, Any], to: RelayRoute) -> None:
    once = sent(json.dumps(fields).encode(), to)
    assert sent(once, to) == once


CONTENTS = TEXTS | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}))
SPOKEN = st.fixed_dictionaries({"role": st.just("user"), "content": CONTENTS, "more": JSON})


@given(st.lists(SPOKEN, max_size=3))
def test_the_messages_of_the_conversation_arrive_equal(messages: list[Any]) -> None:
    assert injected({"messages": messages}, CHAT)["messages"][1:] == messages


@pytest.mark.parametrize("to", PROMPTED)
@pytest.mark.parametrize("value", [7, True, {"a": 1}, 1.5])
def test_a_field_of_an_unknown_shape_is_left_for_the_engine_to_refuse(
    to: RelayRoute, value: Any
) -> None:
    assert injected({to.prompt: value}, to) == {to.prompt: value}


def test_values_that_floats_cannot_hold_keep_every_digit() -> None:
    big = 123456789012345678901234567890
    body = {"seed": big, "messages": [{**USER, "n": -big}]}
    assert injected(body, CHAT)["seed"] == big
    assert injected(body, CHAT)["messages"][1]["n"] == -big


def test_unicode_and_escapes_arrive_as_what_they_mean() -> None:
    message = b'{"role": "user", "content": "\\u0000\xc3\xa9"}'
    body = b'{"user": "\\u00e9\\ud83d\\ude00", "messages": [' + message + b"]}"
    arrived = injected(body, CHAT)
    assert arrived["user"] == "é😀"
    assert arrived["messages"][1]["content"] == "\x00é"


def test_chat_takes_the_prompt_in_its_first_system_message() -> None:
    body = {"messages": [{"role": "system", "content": "Be kind."}, USER]}
    assert injected(body, CHAT)["messages"][0]["content"] == f"{TEXT}\n\nBe kind."


@pytest.mark.parametrize("body", [{}, {"messages": None}, {"messages": "hi"}])
def test_chat_without_a_list_of_messages_gets_none_from_us(body: dict[str, Any]) -> None:
    assert injected(body, CHAT) == body


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, TEXT),
        ({"instructions": None}, TEXT),
        ({"instructions": ""}, TEXT),
        ({"instructions": "Be kind."}, f"{TEXT}\n\nBe kind."),
    ],
)
def test_responses_takes_the_prompt_in_its_instructions(before: dict[str, Any], after: str) -> None:
    assert injected({**before, "input": "hi"}, RESPONSES) == {"input": "hi", "instructions": after}


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_messages_takes_the_prompt_in_its_system_field(path: str) -> None:
    parts = [{"type": "text", "text": "Be kind."}]
    ours = {"type": "text", "text": f"{TEXT}\n\n"}
    assert injected({"messages": [USER]}, route(path))["system"] == TEXT
    assert injected({"system": "Be kind."}, route(path))["system"] == f"{TEXT}\n\nBe kind."
    assert injected({"system": parts}, route(path))["system"] == [ours, *parts]


def test_tokenize_counts_the_prompt_of_a_chat_and_leaves_a_plain_text_alone() -> None:
    tokenize = route("/tokenize")
    assert injected({"messages": [USER]}, tokenize)["messages"][0]["content"] == TEXT
    assert injected({"prompt": "hi"}, tokenize) == {"prompt": "hi"}


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings"])
def test_routes_without_a_system_prompt_take_none(path: str) -> None:
    body = {"prompt": "hi", "messages": [USER], "system": "s"}
    assert injected(body, route(path)) == body


# ---- the list of routes


def test_what_makes_the_engine_generate_takes_a_place() -> None:
    gated = {one.path for one in ROUTES if one.gated}
    assert gated == {
        *("/v1/chat/completions", "/v1/completions", "/v1/responses"),
        *("/v1/messages", "/v1/embeddings"),
    }


def test_no_route_stands_twice() -> None:
    keys = [(one.method, one.path) for one in ROUTES]
    assert len(set(keys)) == len(keys)


def test_only_messages_speak_anthropic() -> None:
    anthropic = {one.path for one in ROUTES if one.is_anthropic}
    assert anthropic == {"/v1/messages", "/v1/messages/count_tokens"}


@pytest.mark.parametrize("before", [0, PIECE_BYTES - 16, PIECE_BYTES - 12])
@pytest.mark.parametrize("bad", [1, 4, PIECE_BYTES + 3, 3 * PIECE_BYTES])
def test_bytes_that_are_no_text_end_the_check_wherever_they_stand(before: int, bad: int) -> None:
    body = b'{"messages":"' + b"a" * before + b"\x80" * bad + b'"}'
    with pytest.raises(RequestError) as refused:
        parse_body(body)
    assert refused.value.code == "invalid_json"


@given(before=st.integers(PIECE_BYTES - 16, PIECE_BYTES - 10), letter=st.sampled_from("aé€😀"))
def test_a_letter_across_two_pieces_is_one_letter(before: int, letter: str) -> None:
    text = "a" * before + letter * 4
    body = json.dumps({"messages": text}, ensure_ascii=False).encode()
    assert json.loads(bytes(parse_body(body)["messages"])) == text
