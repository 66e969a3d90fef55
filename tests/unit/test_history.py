"""What clients send back is taken as it is meant, or refused by its place; never half."""

import json
from typing import Any

import pytest

from appliance.conversation import Reading, read
from appliance.errors import RequestError
from appliance.history import Mended, are_plain_parts, look
from appliance.openai import ROUTES
from appliance.prompt import PromptPolicy
from appliance.wirebody import parse_body
from tests import randombodies

USER = {"role": "user", "content": "hi"}


def call(**fields: Any) -> dict[str, Any]:
    function = {"name": "read", "arguments": "{}"}
    return {"id": "c1", "type": "function", "function": function, **fields}


def said(*calls: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **fields}


def result(**fields: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": "c1", "content": "x", **fields}


PLAIN: list[list[Any]] = [
    [USER],
    [],
    [{"role": "user"}],
    [{"role": "system", "content": "a"}, {"role": "system", "content": "b"}, USER],
    [{"role": "developer", "content": "a"}, USER],
    [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
    [{"role": "user", "content": []}],
    [USER, said(call()), result()],
    [USER, said(call(), call(id="c2")), result(), result(tool_call_id="c2")],
    [USER, said(call()), result(content=[{"type": "text", "text": "a"}])],
    [USER, {"role": "assistant", "content": None}],
    [USER, {"role": "assistant", "content": "x", "tool_calls": []}],
    [USER, {"role": "assistant", "content": "x", "reasoning_content": "why"}],
    [{"role": "function", "name": "f", "content": "x"}],
]


def test_calls_that_are_null_are_left_out() -> None:
    silent = {"role": "assistant", "content": None}
    messages = [USER, {**silent, "tool_calls": None}]
    assert not look(json.dumps(messages).encode()).is_plain
    mended = Mended(messages)
    assert mended.messages == [USER, silent]
    assert mended.kinds == {"tool_calls"}


@pytest.mark.parametrize("messages", PLAIN)
def test_what_is_plain_is_left_as_it_is(messages: list[Any]) -> None:
    assert look(json.dumps(messages).encode()).is_plain
    mended = Mended(messages)
    assert mended.messages == messages
    assert mended.kinds == set()


REPAIRED: list[tuple[list[Any], int, dict[str, Any], set[str]]] = [
    ([{"role": "user", "content": None}], 0, {"content": ""}, {"content"}),
    ([result(content=None)], 0, {"content": ""}, {"content"}),
    ([{"role": "system", "content": None}], 0, {"content": ""}, {"content"}),
    (
        [{"role": "user", "content": {"type": "text", "text": "a"}}],
        0,
        {"content": [{"type": "text", "text": "a"}]},
        {"content"},
    ),
    (
        [{"role": "user", "content": [{"text": "a"}]}],
        0,
        {"content": [{"type": "text", "text": "a"}]},
        {"content"},
    ),
    ([result(tool_call_id=7)], 0, {"tool_call_id": "7"}, {"tool_id"}),
    ([result(tool_call_id=None)], 0, {"tool_call_id": "call_unknown"}, {"tool_id"}),
    ([said(call()), {"role": "tool", "content": "x"}], 1, {"tool_call_id": "c1"}, {"tool_id"}),
    ([said(call(id=7))], 0, {"tool_calls": [call(id="7")]}, {"tool_id"}),
    (
        [said(call(function={"name": "f", "arguments": {"a": [1]}}))],
        0,
        {"tool_calls": [call(function={"name": "f", "arguments": '{"a":[1]}'})]},
        {"arguments"},
    ),
    (
        [said(call(function={"name": "f"}))],
        0,
        {"tool_calls": [call(function={"name": "f", "arguments": "{}"})]},
        {"arguments"},
    ),
    ([said(call(type=None))], 0, {"tool_calls": [call()]}, {"tool_type"}),
]


@pytest.mark.parametrize(("messages", "at", "fields", "kinds"), REPAIRED)
def test_what_has_one_meaning_is_written_so(
    messages: list[Any], at: int, fields: dict[str, Any], kinds: set[str]
) -> None:
    assert not look(json.dumps(messages).encode()).is_plain
    mended = Mended(messages)
    assert mended.messages[at] == messages[at] | fields
    assert mended.kinds == kinds
    assert look(json.dumps(mended.messages).encode()).is_plain


def test_calls_without_ids_get_ids_that_differ_and_their_results_the_same_in_order() -> None:
    nameless = call()
    del nameless["id"]
    answer: dict[str, Any] = {"role": "tool", "content": "x"}
    messages = [USER, said(nameless, call(id="")), answer, answer, said(call(id=None)), answer]
    mended = Mended(messages).messages
    ids = [one["id"] for message in mended for one in message.get("tool_calls", ())]
    assert len(set(ids)) == 3
    assert all(ids)
    assert [m["tool_call_id"] for m in mended if m["role"] == "tool"] == ids
    assert Mended(messages).messages == mended  # the prefix cache lives on the same bytes


def test_a_result_with_an_id_leaves_the_others_calls_open() -> None:
    messages = [said(call(id="a"), call(id="b")), result(tool_call_id="b"), result(tool_call_id="")]
    assert Mended(messages).messages[2]["tool_call_id"] == "a"


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        ([USER, "hi"], "messages[1]"),
        ([USER, None], "messages[1]"),
        ([{"content": "x"}], "messages[0]"),
        ([{"role": "", "content": "x"}], "messages[0]"),
        ([{"role": 7, "content": "x"}], "messages[0]"),
        ([{"role": "user", "content": 7}], "messages[0].content"),
        ([{"role": "user", "content": [7]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [None]}], "messages[0].content[0]"),
        ([said("x")], "messages[0].tool_calls[0]"),
        ([said(call(function=None))], "messages[0].tool_calls[0]"),
        ([said(call(), call(function={"arguments": "{}"}))], "messages[0].tool_calls[1]"),
        ([{"role": "assistant", "content": "x", "tool_calls": {}}], "messages[0].tool_calls"),
    ],
)
def test_what_has_no_meaning_is_refused_by_its_place(messages: list[Any], place: str) -> None:
    assert not look(json.dumps(messages).encode()).is_plain
    with pytest.raises(RequestError) as caught:
        Mended(messages)
    assert (caught.value.http_status, caught.value.code) == (400, "invalid_messages")
    assert caught.value.what.startswith(place)
    assert caught.value.hint


@pytest.mark.parametrize("seed", range(2))
def test_mending_twice_changes_nothing_more_and_what_is_mended_is_plain(seed: int) -> None:
    random = randombodies.seeded(seed)
    shapes: list[list[Any]] = [*PLAIN]
    for messages, _, _, _ in REPAIRED:
        shapes.append(messages)
    for _ in range(300):
        messages = [m for _ in range(3) for m in random.choice(shapes)]
        once = Mended(messages).messages
        assert Mended(once).messages == once
        assert look(json.dumps(once).encode()).is_plain


def test_where_instructions_stand_is_seen() -> None:
    system = {"role": "system", "content": "a"}
    first = look(json.dumps([system, USER]).encode())
    later = look(json.dumps([USER, {**system, "role": "developer"}]).encode())
    none = look(json.dumps([USER]).encode())
    assert (first.has_instructions, first.begins_with_them) == (True, True)
    assert (later.has_instructions, later.begins_with_them) == (True, False)
    assert (none.has_instructions, none.begins_with_them) == (False, False)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "image", "source": {}},
        {"type": "tool_result", "content": [{"type": "image", "source": {}}]},
        {"type": "function_call_output", "output": [{"type": "input_image"}]},
        {"type": "tool_result", "content": {"type": "image"}},
        {"type": "text", "text": "x", "image_url": "x"},
        {"text": "no type"},
        "a text alone",
        7,
    ],
)
def test_a_part_that_is_more_than_text_is_looked_at(part: Any) -> None:
    assert not are_plain_parts(json.dumps([{"type": "text", "text": "a"}, part]).encode())


def test_escapes_do_not_hide_media() -> None:
    hidden = rb'[{"type":"im\u0061ge_url","im\u0061ge_url":{"url":"h\u0074tp:\/\/a"}}]'
    assert not are_plain_parts(hidden)


def test_media_are_refused_whichever_way_the_body_is_read() -> None:
    chat = Reading(ROUTES[0], PromptPolicy(""))
    body = b'{"messages":[{"role":"user","content":[{"type":"image_url","image_url":"http://a"}]}]}'
    with pytest.raises(RequestError) as caught:
        read(parse_body(body), chat)
    assert caught.value.code == "unsupported_content"


def test_results_answer_calls_of_the_same_id_one_by_one() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    calls = {"role": "assistant", "tool_calls": [call, call, {**call, "id": "b"}]}
    ids: list[dict[str, Any]] = [{"tool_call_id": "a"}, {}, {}]
    results = [{"role": "tool", "content": "", **named} for named in ids]
    answered = [message["tool_call_id"] for message in Mended([calls, *results]).messages[1:]]
    assert sorted(answered) == ["a", "a", "b"]


def test_many_calls_and_results_take_time_in_proportion_to_their_number() -> None:
    looks = {n: _lookups(n) for n in (100, 1000)}
    assert looks[1000] <= 11 * looks[100]


class _Counted(str):
    """An id that counts how often it is compared."""

    seen = 0

    def __eq__(self, other: object) -> bool:
        _Counted.seen += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def _lookups(count: int) -> int:
    _Counted.seen = 0
    calls = [{"id": _Counted(f"c{n}"), "type": "function", "function": {"name": "f"}}
             for n in range(count)]  # fmt: skip
    results = [{"role": "tool", "tool_call_id": _Counted("x"), "content": ""}] * count
    Mended([{"role": "assistant", "tool_calls": calls}, *results])
    return _Counted.seen + count
