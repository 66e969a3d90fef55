"""The reasoning under both names: what is done to the bytes is what decoding would have done."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.faults import has_engine_fault
from appliance.sse import split_events
from appliance.wirereply import (
    ChatFilter,
    alias_event,
    empty_chunk,
    without_faults,
)

TEXT = st.one_of(
    st.text(max_size=12),
    st.text(alphabet='"\\\n{}[],:aé€😀\x7f', max_size=12),
    st.sampled_from(['"reasoning":"x"', '"},"delta":{"reasoning":"', "reasoning", "\\u0041"]),
)
SCALARS = st.one_of(st.none(), st.integers(-5, 10**12), TEXT, st.booleans(), st.floats(0, 1))
NAMES = st.sampled_from(["id", "object", "created", "model", "usage", "token_ids", "odd é"])
DELTAS = st.one_of(
    TEXT.map(lambda text: {"reasoning": text}),
    TEXT.map(lambda text: {"reasoning": text}),
    TEXT.map(lambda text: {"content": text}),
    st.builds(lambda a, b: {"role": "assistant", "reasoning": a, "content": b}, TEXT, TEXT),
    st.builds(lambda a, b: {"reasoning": a, "reasoning_content": b}, TEXT, TEXT),
    st.just({"reasoning": None}),
    st.just({}),
    st.builds(lambda a: {"nested": {"delta": {"reasoning": a}}}, TEXT),
)
CHOICES = st.builds(
    lambda delta, finish: {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish},
    DELTAS,
    st.sampled_from([None, None, "stop", "abort"]),
)


@st.composite
def chunks(draw: st.DrawFn) -> dict[str, Any]:
    """One chunk of a chat stream, or something that is nearly one."""
    before = draw(st.dictionaries(NAMES, SCALARS, max_size=4))
    choices = draw(st.lists(CHOICES, min_size=1, max_size=2) | st.lists(CHOICES, max_size=1))
    after = draw(st.dictionaries(NAMES.map(lambda name: name + "2"), SCALARS, max_size=2))
    body: dict[str, Any] = {**before, "choices": choices, **after}
    return draw(st.sampled_from([body, body, body, {"outer": body}]))


@st.composite
def events(draw: st.DrawFn) -> bytes:
    ascii_only = draw(st.booleans())
    separators = draw(st.sampled_from([(",", ":"), (",", ":"), (", ", ": ")]))
    text = json.dumps(draw(chunks()), ensure_ascii=ascii_only, separators=separators)
    lead = draw(st.sampled_from([b"", b"", b": comment\n\n", b"event: x\n"]))
    end = draw(st.sampled_from([b"\n\n", b"\n\n", b"\r\n\r\n"]))
    return lead + b"data: " + text.encode("utf-8", "replace") + end


def read(stream: bytes) -> list[Any]:
    """Return each event's lines, its data decoded."""
    return [
        [
            (line[:6], json.loads(line[6:])) if line.startswith(b"data: {") else line
            for line in event.splitlines()
        ]
        for event in split_events(stream)
    ]


@given(st.lists(st.lists(events(), min_size=1, max_size=3), min_size=1, max_size=6))
def test_the_bytes_say_what_the_decoded_form_says(parts: list[list[bytes]]) -> None:
    alias = ChatFilter()
    for part in parts:
        whole = b"".join(part)
        said = alias.apply(whole)
        if has_engine_fault(whole):
            assert said is None
        else:
            decoded = b"".join(map(alias_event, split_events(whole)))
            assert said is not None
            assert read(said) == read(decoded)


HEAD = b'data: {"id":"chat-1","object":"chat.completion.chunk","created":7,"model":"N","choices":'
TAIL = b',"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'


def chunk(value: bytes) -> bytes:
    return HEAD + b'[{"index":0,"delta":{"reasoning":' + value + b"}" + TAIL


@given(st.lists(TEXT, min_size=1, max_size=8), st.booleans())
def test_the_chunks_of_a_stream_are_not_decoded(texts: list[str], ascii_only: bool) -> None:
    alias = ChatFilter()
    for text in texts:
        value = json.dumps(text, ensure_ascii=ascii_only).encode("utf-8", "replace")
        both = value + b',"reasoning_content":' + value
        assert alias.apply(chunk(value)) == chunk(both)  # to the byte: numbers and escapes too


@given(st.lists(TEXT, min_size=1, max_size=5))
def test_chunks_that_come_together_are_aliased_one_by_one(texts: list[str]) -> None:
    values = [json.dumps(text).encode() for text in texts]
    whole = b"".join(map(chunk, values))
    said = ChatFilter().apply(whole)
    assert said == b"".join(chunk(v + b',"reasoning_content":' + v) for v in values)


@pytest.mark.parametrize(
    "value",
    [
        b'"a","reasoning_content":"own"',
        b'"a","content":"b"',
        b"null",
        b"7",
        b'{"deep":"x"}',
        b'"a"},"logprobs":{"x":"reasoning"',
        b'"',
        b"",
        b'"half',
        b'"bad \\q escape"',
    ],
)
def test_what_is_no_lone_string_is_left_to_the_decoder(value: bytes) -> None:
    alias = ChatFilter()
    alias.apply(chunk(b'"proved"'))
    event = chunk(value)
    assert alias.apply(event) == alias_event(event)


def test_bytes_without_reasoning_pass_as_the_object_that_they_are() -> None:
    event = HEAD + b'[{"index":0,"delta":{"content":"hi"}' + TAIL
    assert ChatFilter().apply(event) is event


# ---- a sign of life


def test_an_empty_chunk_has_the_streams_own_names() -> None:
    said = empty_chunk(b": keep-alive\n\n" + chunk(b'"a"') + b"data: [DONE]\n\n")
    assert said.startswith(b"data: {")
    assert said.endswith(b"}\n\n")
    assert json.loads(said[6:]) == {
        "id": "chat-1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "N",
        "choices": [],
    }


@pytest.mark.parametrize(
    "first", [b"", b": comment\n\n", b"data: [DONE]\n\n", b'data: {"id":1}\n\n', b"data: [1]\n\n"]
)
def test_without_a_chunk_there_is_no_empty_one(first: bytes) -> None:
    assert empty_chunk(first) == b""


FAULT = b'data: {"error":{"message":"EngineCore died","code":500}}\n\n'
ABORT = chunk(b'"a"').replace(b'"finish_reason":null', b'"finish_reason":"abort"')


@pytest.mark.parametrize("fault", [FAULT, ABORT], ids=["error", "abort"])
def test_a_fault_is_found_among_other_events(fault: bytes) -> None:
    good = chunk(b'"a"')
    for whole in (fault, good + fault, fault + good, good + fault + good):
        proven = ChatFilter()
        assert proven.apply(good) is not None
        assert proven.apply(whole) is None
        assert ChatFilter().apply(whole) is None
        assert without_faults(whole) is None
    assert without_faults(good) is good


def test_a_stream_that_turns_from_thinking_to_answering_is_followed() -> None:
    stream = ChatFilter()
    answer = HEAD + b'[{"index":0,"delta":{"content":"\\n hi"}' + TAIL
    for _ in range(3):
        assert stream.apply(chunk(b'"a"')) == chunk(b'"a","reasoning_content":"a"')
        assert stream.apply(answer) is answer
