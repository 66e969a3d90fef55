"""What a reply's usage tells, in the words of each API."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.usage import Usage, find_usage

COUNTS = st.integers(0, 10**9)


def event(value: object, compact: bool = True) -> bytes:
    separators = (",", ":") if compact else (", ", ": ")
    return b"data: " + json.dumps(value, separators=separators).encode() + b"\n\n"


@given(COUNTS, COUNTS, COUNTS, st.booleans())
def test_a_chat_streams_last_chunk_tells_its_tokens(
    prompt: int, completion: int, cached: int, compact: bool
) -> None:
    usage = {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    tail = event({"choices": [], "usage": usage}, compact) + b"data: [DONE]\n\n"
    assert find_usage(tail) == Usage(prompt, completion, cached)


def test_an_anthropic_streams_message_delta_tells_its_tokens() -> None:
    usage = {"input_tokens": 7, "cache_read_input_tokens": 4, "output_tokens": 3}
    tail = event({"type": "message_delta", "usage": usage}) + event({"type": "message_stop"})
    assert find_usage(tail) == Usage(7, 3, 4)


def test_a_responses_stream_tells_its_tokens_within_the_response() -> None:
    usage = {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 10,
    }
    done = {"type": "response.completed", "response": {"output": [{"a": "{"}], "usage": usage}}
    assert find_usage(event(done)) == Usage(7, 3, 4)


def test_without_details_nothing_was_cached() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": None}
    assert find_usage(event({"usage": usage, "cached_tokens": 5})) == Usage(7, 3, 0)


def test_of_usages_that_grow_the_last_counts() -> None:
    tail = b"".join(
        event({"usage": {"prompt_tokens": 7, "completion_tokens": n}}) for n in range(1, 4)
    )
    assert find_usage(tail) == Usage(7, 3, 0)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"data: [DONE]\n\n",
        event({"choices": [], "usage": None}),
        event({"delta": {"content": '"usage":{"prompt_tokens":7}'}}),
        b'data: {"usage": 7}\n\n',
        b'data: {"usage":{}}\n\n',
    ],
)
def test_what_tells_no_usage_counts_nothing(reply: bytes) -> None:
    assert find_usage(reply) is None


@given(st.binary(max_size=60))
def test_no_bytes_break_it(rubbish: bytes) -> None:
    told = find_usage(b'"usage":{"prompt_tokens":1,"completion_tokens":2}' + rubbish)
    assert isinstance(told, Usage)
