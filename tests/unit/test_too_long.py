"""Whoever finds that a prompt is too long, the client reads it under one code."""

import json

import pytest

from appliance.wireerror import normalise_error

WORDS = [
    "This model's maximum context length is 4096 tokens. However, your prompt contains at least"
    " 4097 input tokens, which exceeds this limit even without any output tokens.",
    "This model's maximum context length is 4096 tokens. However, your prompt contains 99999"
    " characters (more than 65536 characters, which is the upper bound for 4096 input tokens).",
    "'max_tokens' or 'max_completion_tokens' is too large: 32000. This model's maximum context"
    " length is 16384 tokens and your request has 14000 input tokens.",
    "Input length (5000) exceeds model's maximum context length (4096).",
]


def engine_error(message: str, code: int = 400) -> bytes:
    return json.dumps(
        {"error": {"message": message, "type": "BadRequestError", "param": "input", "code": code}}
    ).encode()


@pytest.mark.parametrize("message", WORDS)
def test_the_engines_refusal_of_a_long_prompt_gets_the_code_that_clients_know(message: str) -> None:
    error = json.loads(normalise_error(400, engine_error(message), anthropic=False))["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["message"] == message
    assert error["param"] == "input"


@pytest.mark.parametrize("message", WORDS)
def test_to_anthropics_clients_it_is_a_prompt_that_is_too_long(message: str) -> None:
    said = {"type": "error", "error": {"type": "BadRequestError", "message": message}}
    for body in (engine_error(message), json.dumps(said).encode()):
        told = json.loads(normalise_error(400, body, anthropic=True))
        assert told["type"] == "error"
        assert told["error"]["type"] == "invalid_request_error"
        assert told["error"]["message"].startswith("prompt is too long: ")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "max_tokens=9 cannot be greater than max_model_len=8."),
        (400, "temperature must be non-negative"),
        (500, WORDS[0]),
        (404, WORDS[0]),
    ],
)
def test_other_errors_pass_untouched(status: int, message: str) -> None:
    body = engine_error(message, status)
    assert normalise_error(status, body, anthropic=False) == body


@pytest.mark.parametrize("message", [None, 7, {"a": "maximum context length is 7"}])
def test_a_message_of_another_type_is_no_reason_to_fail(message: object) -> None:
    body = json.dumps({"error": {"message": message}}).encode()
    assert normalise_error(400, body, anthropic=False) == body
