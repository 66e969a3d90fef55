"""The prompt policy: first, once, byte-stable, and nothing else is touched."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.prompt import SEPARATOR, PromptPolicy

TEXT = "Preserve path names."
POLICY = PromptPolicy(TEXT)
OFF = PromptPolicy("")

WORDS = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)
PARTS = st.lists(
    st.one_of(
        st.builds(lambda text: {"type": "text", "text": text}, WORDS),
        st.just({"type": "image_url", "image_url": {"url": "data:,"}}),
    ),
    max_size=4,
)
CONTENTS = st.one_of(WORDS, PARTS, st.none())
ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool"])
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": ROLES, "content": CONTENTS}, optional={"name": WORDS}),
    max_size=6,
)


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


USER = {"role": "user", "content": "hi"}


# ---- laws


@given(MESSAGES)
def test_applying_twice_is_applying_once(messages: list[Any]) -> None:
    once = POLICY.apply_to_messages(messages)
    assert POLICY.apply_to_messages(once) == once


@given(st.one_of(CONTENTS, st.integers(), st.dictionaries(WORDS, WORDS)))
def test_folding_content_twice_is_folding_it_once(content: Any) -> None:
    once = POLICY.fold_content(content)
    assert POLICY.fold_content(once) == once


@given(MESSAGES)
def test_the_same_request_gives_the_same_bytes(messages: list[Any]) -> None:
    first = json.dumps(POLICY.apply_to_messages(messages))
    again = json.dumps(PromptPolicy(TEXT).apply_to_messages(copy.deepcopy(messages)))
    assert first == again


@given(MESSAGES)
def test_the_messages_that_came_in_are_not_changed(messages: list[Any]) -> None:
    before = copy.deepcopy(messages)
    POLICY.apply_to_messages(messages)
    assert messages == before


@given(MESSAGES)
def test_the_first_instruction_message_begins_with_the_text(messages: list[Any]) -> None:
    changed = POLICY.apply_to_messages(messages)
    first = next(m for m in changed if m["role"] in ("system", "developer"))
    content = first["content"]
    text = content if isinstance(content, str) else next(p["text"] for p in content if "text" in p)
    assert text.startswith(TEXT)


@given(MESSAGES)
def test_one_message_changes_or_one_is_added_and_no_other_differs(messages: list[Any]) -> None:
    changed = POLICY.apply_to_messages(messages)
    if any(m["role"] in ("system", "developer") for m in messages):
        assert len(changed) == len(messages)
        different = [(a, b) for a, b in zip(messages, changed, strict=True) if a != b]
        assert len(different) <= 1
        for before, after in different:
            assert {**after, "content": None} == {**before, "content": None}
    else:
        assert changed == [system(TEXT), *messages]


@given(MESSAGES)
def test_switched_off_the_messages_pass_as_they_are(messages: list[Any]) -> None:
    assert OFF.apply_to_messages(messages) is messages


@given(st.one_of(CONTENTS, st.integers()))
def test_switched_off_content_passes_as_it_is(content: Any) -> None:
    assert OFF.fold_content(content) is content


@given(WORDS)
def test_what_stood_there_stands_after_the_text(existing: str) -> None:
    assert POLICY.fold(existing) == (f"{TEXT}\n\n{existing}" if existing else TEXT)


# ---- shapes


def test_a_string_is_prefixed() -> None:
    assert POLICY.fold_content("Be kind.") == f"{TEXT}{SEPARATOR}Be kind."


@pytest.mark.parametrize("content", ["", None])
def test_no_content_becomes_the_text(content: str | None) -> None:
    assert POLICY.fold_content(content) == TEXT


def test_parts_stay_parts_with_ours_in_front() -> None:
    parts = [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
    assert POLICY.fold_content(parts) == [{"type": "text", "text": f"{TEXT}\n\n"}, *parts]


def test_joined_parts_read_like_the_folded_string() -> None:
    parts = POLICY.fold_content([{"type": "text", "text": "Be kind."}])
    assert "".join(part["text"] for part in parts) == POLICY.fold("Be kind.")


def test_parts_that_a_client_echoes_are_not_prefixed_again() -> None:
    echoed = [{"type": "text", "text": f"{TEXT}\n\nBe kind."}]
    assert POLICY.fold_content(echoed) is echoed


def test_a_text_that_only_begins_alike_is_another_text() -> None:
    assert POLICY.fold(f"{TEXT} Or not.") == f"{TEXT}\n\n{TEXT} Or not."


@pytest.mark.parametrize("content", [42, {"text": "Be kind."}, True])
def test_content_of_an_unknown_shape_is_left_for_the_engine_to_refuse(content: Any) -> None:
    assert POLICY.apply_to_messages([system(content), USER]) == [system(content), USER]


# ---- places


def test_without_a_system_message_one_is_put_first() -> None:
    assert POLICY.apply_to_messages([USER]) == [system(TEXT), USER]


def test_no_messages_at_all_get_the_system_message() -> None:
    assert POLICY.apply_to_messages([]) == [system(TEXT)]


def test_a_system_message_that_stands_later_is_folded_where_it_stands() -> None:
    assert POLICY.apply_to_messages([USER, system("late")]) == [USER, system(f"{TEXT}\n\nlate")]


def test_a_developer_message_takes_the_text_like_a_system_message() -> None:
    developer = {"role": "developer", "content": "Be kind."}
    folded = {"role": "developer", "content": f"{TEXT}\n\nBe kind."}
    assert POLICY.apply_to_messages([developer, USER]) == [folded, USER]


def test_later_system_messages_stay_as_they_are() -> None:
    messages = [system("one"), USER, system("two"), {"role": "developer", "content": "three"}]
    assert POLICY.apply_to_messages(messages) == [system(f"{TEXT}\n\none"), *messages[1:]]


def test_a_system_message_without_content_gets_the_text() -> None:
    assert POLICY.apply_to_messages([{"role": "system"}]) == [system(TEXT)]


def test_other_keys_of_the_message_stay() -> None:
    named = {"role": "system", "name": "boss", "content": "Be kind."}
    assert POLICY.apply_to_messages([named])[0]["name"] == "boss"


def test_entries_that_are_no_messages_pass() -> None:
    assert POLICY.apply_to_messages(["what", 3, None]) == [system(TEXT), "what", 3, None]
