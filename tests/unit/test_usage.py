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
    assert find_usage(tail) == Usage(11, 3, 4)  # its prompt leaves out what was cached


def test_a_messages_beginning_tells_its_prompt_and_its_end_the_answer() -> None:
    begun = {"usage": {"input_tokens": 9, "output_tokens": 0}}
    stream = event({"type": "message_start", "message": begun})
    assert find_usage(stream) == Usage(9, 0, 0)
    stream += event({"type": "message_delta", "usage": {"output_tokens": 3}})
    assert find_usage(stream) == Usage(9, 3, 0)


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.booleans())
def test_a_whole_message_tells_all_of_its_prompt(
    fresh: int, read: int, written: int, completion: int, compact: bool
) -> None:
    usage = {
        "input_tokens": fresh,
        "output_tokens": completion,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
    }
    body = {"type": "message", "content": [], "usage": usage}
    separators = (",", ":") if compact else (", ", ": ")
    whole = json.dumps(body, separators=separators).encode()
    assert find_usage(whole) == Usage(fresh + read + written, completion, read)


LOOKALIKE = {"usage": {"prompt_tokens": 900, "input_tokens": 900, "completion_tokens": 900}}


def test_what_a_tool_is_called_with_is_no_usage() -> None:
    call = {"type": "tool_use", "name": "meter", "input": LOOKALIKE}
    usage = {"input_tokens": 7, "output_tokens": 3}
    for body in ({"content": [call], "usage": usage}, {"usage": usage, "content": [call]}):
        assert find_usage(json.dumps(body).encode()) == Usage(7, 3, 0)
    assert find_usage(json.dumps({"content": [call]}).encode()) is None


def test_what_a_request_asked_for_and_a_response_repeats_is_no_usage() -> None:
    tools = [{"name": "meter", "parameters": {"properties": LOOKALIKE}}]
    usage = {"input_tokens": 7, "output_tokens": 3}
    told = {"tools": tools, "metadata": LOOKALIKE, "usage": usage}
    assert find_usage(event({"type": "response.completed", "response": told})) == Usage(7, 3, 0)
    assert find_usage(json.dumps({"object": "response", **told}).encode()) == Usage(7, 3, 0)


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
        b'{"usage":{"minimum":5}}',
        b'{"usage":{"prompt_tokens":true,"completion_tokens":-1}}',
        b'{"usage":{"prompt_tokens":7}',
        b'{"error":{"usage":{"prompt_tokens":7}}}',
    ],
)
def test_what_tells_no_usage_counts_nothing(reply: bytes) -> None:
    assert find_usage(reply) is None


@given(st.binary(max_size=60))
def test_no_bytes_break_it(rubbish: bytes) -> None:
    whole = event({"usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    assert find_usage(whole + rubbish) == Usage(1, 2, 0)
    for told in (b'"usage"' + rubbish, b'{"usage":' + rubbish, b'data: {"usage":{' + rubbish):
        find_usage(told)  # raises nothing
