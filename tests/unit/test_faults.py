"""An engine's failure is told from an answer, in each API's words, and from a client's fault."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.faults import has_engine_fault, is_cut_off, is_engine_fault
from appliance.wirereply import without_faults


def event(name: str, **fields: Any) -> bytes:
    """Return one event as the engine writes it: compact, its type in it too."""
    data = json.dumps({"type": name, **fields}, separators=(",", ":"))
    return f"event: {name}\ndata: {data}\n\n".encode()


@pytest.mark.parametrize(
    ("told", "is_fault"),
    [
        (b'data: {"error":{"message":"EngineCore died","code":500}}\n\n', True),
        (b'data: {"error": {"message": "gone", "code": 503}}\n\n', True),
        (b'data: {"choices":[{"delta":{},"finish_reason":"abort"}]}\n\n', True),
        (b'event: error\ndata: {"type":"error","error":{"type":"internal_error"}}\n\n', True),
        (
            b'event: error\ndata: {"type":"error","error":{"type":"invalid_request_error"}}\n\n',
            False,
        ),
        (b'data: {"error":{"message":"too long","code":400}}\n\n', False),
        (b'data: {"error":"text"}\n\n', False),
        (b'data: {"error":{"message":"x","code":"500"}}\n\n', False),
        (b'data: {"error"\n\n', False),
        (b'data: {"choices":[{"delta":{"content":"\\"finish_reason\\":\\"abort\\""}}]}\n\n', False),
        (b'data: {"choices":[{"delta":{"content":"data: {\\"error\\""}}]}\n\n', False),
        (b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n', False),
        (b"data: [DONE]\n\n", False),
        (b'data: {"error":{"message":"max context","code":400}}\n\ndata: [DONE]\n\n', False),
    ],
)
def test_a_chats_own_end_is_told_from_an_answer(told: bytes, is_fault: bool) -> None:
    assert has_engine_fault(told) is is_fault


# ---- messages

USAGE = {"input_tokens": 7, "output_tokens": 3}


@pytest.mark.parametrize("reason", ["end_turn", "max_tokens", "stop_sequence", "tool_use"])
def test_a_message_that_ends_for_a_reason_is_whole(reason: str) -> None:
    delta = {"stop_reason": reason, "stop_sequence": None}
    assert not has_engine_fault(event("message_delta", delta=delta, usage=USAGE))
    assert not is_cut_off(json.dumps({"type": "message", "stop_reason": reason}).encode())


def test_a_message_that_ends_for_no_reason_was_cut_off_by_the_engines_stop() -> None:
    ended = {"stop_reason": None, "stop_sequence": None}  # so 0.32 renders "abort"
    end = event("message_delta", delta=ended, usage=USAGE)
    stop = event("content_block_stop", index=0)
    for told in (end, stop + end, end + event("message_stop"), stop + end + event("message_stop")):
        assert without_faults(told) is None
    # of a whole reply 0.32 leaves out what is null
    assert is_cut_off(json.dumps({"type": "message", "content": [], "usage": USAGE}).encode())


def test_a_messages_beginning_has_no_reason_yet_and_is_no_fault() -> None:
    begun = {"id": "m", "type": "message", "stop_reason": None, "stop_sequence": None}
    told = event("message_start", message=begun)
    assert without_faults(told) is told


# ---- responses


def response(status: str, **fields: Any) -> dict[str, Any]:
    return {"object": "response", "status": status, "incomplete_details": None, **fields}


LOST = [
    response("failed", error={"code": "server_error", "message": "x"}),
    response("failed", error={"code": "rate_limit_exceeded", "message": "x"}),
    response("failed", error=None),
    response("cancelled"),
    response("incomplete"),
    response("incomplete", incomplete_details={"reason": "abort"}),
    response("incomplete", incomplete_details={"reason": None}),
]
WHOLE = [
    response("completed"),
    response("incomplete", incomplete_details={"reason": "max_output_tokens"}),
    response("incomplete", incomplete_details={"reason": "content_filter"}),
    response("failed", error={"code": "invalid_prompt", "message": "x"}),
    response("failed", error={"code": "image_too_large", "message": "x"}),
    response("in_progress"),
]
ENDS = ("response.completed", "response.failed", "response.incomplete")


@pytest.mark.parametrize("told", LOST)
def test_a_response_that_the_engine_did_not_end_breaks_off(told: dict[str, Any]) -> None:
    name = {"cancelled": "completed"}.get(told["status"], told["status"])
    assert has_engine_fault(event(f"response.{name}", response=told, sequence_number=9))
    assert is_cut_off(json.dumps(told).encode())


@pytest.mark.parametrize("told", WHOLE)
def test_a_response_that_its_request_ended_passes_and_a_lasting_fault_is_not_masked(
    told: dict[str, Any],
) -> None:
    for name in ENDS:
        whole = event(name, response=told, sequence_number=9)
        assert without_faults(whole) is whole
    assert not is_cut_off(json.dumps(told).encode())


@pytest.mark.parametrize(
    ("error", "is_fault"),
    [
        ({"code": "server_error", "message": "x"}, True),
        ({"code": 500, "message": "x"}, True),
        ({"code": 429, "message": "x"}, True),
        ({"code": None, "type": "InternalServerError"}, True),
        ({"type": "api_error"}, True),
        ({"type": "overloaded_error"}, True),
        ({"type": "timeout_error"}, True),
        ({"code": 400, "message": "the server says no"}, False),
        ({"code": "invalid_prompt", "message": "internal"}, False),
        ({"type": "invalid_request_error", "message": "x"}, False),
        ({"type": "authentication_error"}, False),
        ({"code": None, "message": "x"}, False),
        ({}, False),
    ],
)
def test_of_errors_those_pass_away_that_are_known_to(error: dict[str, Any], is_fault: bool) -> None:
    assert has_engine_fault(event("error", error=error)) is is_fault  # a message's
    if "type" not in error:
        assert has_engine_fault(event("error", **error, sequence_number=3)) is is_fault
    chat = b"data: " + json.dumps({"error": error}).encode() + b"\n\n"
    assert has_engine_fault(chat) is is_fault


# ---- whole replies


def test_a_whole_reply_that_was_aborted_in_any_of_its_choices_is_cut_off() -> None:
    for reasons, is_cut in ((["stop", "abort"], True), (["stop", "length"], False), ([], False)):
        choices = [{"index": n, "finish_reason": why} for n, why in enumerate(reasons)]
        assert (
            is_cut_off(json.dumps({"object": "chat.completion", "choices": choices}).encode())
            is is_cut
        )


@pytest.mark.parametrize("told", [b"", b"[]", b'"abort"', b"{}", b'{"choices":7}', b"\xff"])
def test_what_is_no_reply_is_not_cut_off(told: bytes) -> None:
    assert not is_cut_off(told)


WORDS = st.sampled_from(
    ['"finish_reason":"abort"', 'data: {"error"', "event: error\n", '"delta":{"stop_reason":null',
     "event: response.failed\n", '"status":"cancelled"', '"status":"failed"', "x"]
)  # fmt: skip


@given(st.lists(WORDS | st.text(), max_size=6).map("".join))
def test_no_text_of_an_answer_is_taken_for_a_fault(text: str) -> None:
    block = {"type": "text_delta", "text": text}
    for told in (
        event("content_block_delta", index=0, delta=block),
        event("response.output_text.delta", delta=text),
        event("response.created", response=response("in_progress", metadata={"a": text})),
        event("response.completed", response=response("completed", output=[{"text": text}])),
        b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n",
    ):
        assert without_faults(told) is told


@given(st.binary(max_size=80))
def test_no_bytes_break_it(rubbish: bytes) -> None:
    for told in (rubbish, b'data: {"error"' + rubbish, b"event: error\n" + rubbish):
        assert is_engine_fault(told) in (True, False)
        assert is_cut_off(told) in (True, False)
