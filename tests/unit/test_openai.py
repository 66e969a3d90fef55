"""Replies, errors and headers: both names of the reasoning, one shape of error, no secrets."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from appliance.errors import (
    ApplianceError,
    EngineNotReady,
    RequestError,
    UpstreamError,
    UpstreamTimeout,
)
from appliance.openai import (
    ROUTES,
    forward_headers,
    injection_switch,
    return_headers,
    sane_request_id,
    stream_headers,
)
from appliance.wireerror import (
    error_body,
    error_headers,
    normalise_error,
)
from appliance.wirereply import alias_event, alias_reasoning


def reply(part: str, **fields: Any) -> bytes:
    return json.dumps({"id": "x", "choices": [{"index": 0, part: fields}]}).encode()


def aliased(part: str, **fields: Any) -> Any:
    return json.loads(alias_reasoning(reply(part, **fields)))["choices"][0][part]


# ---- the reasoning under both names


@pytest.mark.parametrize("part", ["message", "delta"])
@pytest.mark.parametrize("reasoning", ['I think é \\ "so"', "", None])
def test_the_reasoning_stands_under_both_names(part: str, reasoning: str | None) -> None:
    both = {"content": "hi", "reasoning": reasoning, "reasoning_content": reasoning}
    assert aliased(part, content="hi", reasoning=reasoning) == both


def test_a_name_that_the_engine_gave_itself_is_not_overwritten() -> None:
    given = {"reasoning": "new", "reasoning_content": "old"}
    assert aliased("delta", **given) == given


def test_every_choice_is_aliased() -> None:
    body = {"choices": [{"delta": {"reasoning": "a"}}, {"delta": {"reasoning": "b"}}]}
    choices = json.loads(alias_reasoning(json.dumps(body).encode()))["choices"]
    assert [choice["delta"]["reasoning_content"] for choice in choices] == ["a", "b"]


def test_tool_calls_beside_the_reasoning_are_untouched() -> None:
    calls = [{"index": 0, "function": {"name": "f", "arguments": '{"path": "/a b", "n": 1.0}'}}]
    assert aliased("delta", reasoning="r", tool_calls=calls)["tool_calls"] == calls


@pytest.mark.parametrize(
    "body",
    [
        reply("delta", content='he said "reasoning"'),
        reply("message", content="hi", reasoning_content="only the other"),
        b'{"object": "list", "data": []}',
        b'{"reasoning": "at the top"}',
        b'{"choices": {"reasoning": 1}}',
        b'{"choices": [3, {"delta": "reasoning"}, {"logprobs": {"reasoning": 1}}]}',
        b"[DONE]",
        b'{"reasoning": cut',
        b'{"choices": [{"delta": {"reasoning": "\xff"}}]}',
        b'{"reasoning": ' + b"[" * 10_000,
    ],
)
def test_bytes_without_reasoning_to_alias_pass_untouched(body: bytes) -> None:
    assert alias_reasoning(body) is body


@given(st.text(st.characters(codec="utf-8")), st.integers(), st.floats(-1e9, 1e9))
def test_aliasing_adds_one_key_and_changes_no_value(text: str, number: int, score: float) -> None:
    fields = {"reasoning": text, "n": number, "logprob": score}
    assert aliased("message", **fields) == {**fields, "reasoning_content": text}


def test_an_event_is_aliased_in_its_data_alone() -> None:
    event = b"event: x\ndata: " + reply("delta", reasoning="r") + b"\n\n"
    changed = alias_event(event)
    assert changed.startswith(b"event: x\ndata: {")
    assert changed.endswith(b"}\n\n")
    assert changed.count(b"\n") == event.count(b"\n")
    assert b'"reasoning_content":"r"' in changed


@pytest.mark.parametrize(
    "event",
    [
        b"data: [DONE]\n\n",
        b": keep-alive\r\n\r\n",
        b"data: " + reply("delta", content="hi") + b"\r\n\r\n",
        b'data: {"reasoning": 1}\n\n',
    ],
)
def test_an_event_without_reasoning_passes_to_the_byte(event: bytes) -> None:
    assert alias_event(event) is event


# ---- errors


def test_an_error_reads_as_openais_clients_expect() -> None:
    error = json.loads(error_body(RequestError(404, "model_not_found", "no such model", "use x")))
    assert error == {
        "error": {
            "message": "no such model; use x",
            "type": "invalid_request_error",
            "param": None,
            "code": "model_not_found",
        }
    }


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RequestError(400, "c", "w"), "invalid_request_error"),
        (RequestError(401, "c", "w"), "authentication_error"),
        (RequestError(404, "c", "w"), "not_found_error"),
        (RequestError(413, "c", "w"), "request_too_large"),
        (RequestError(429, "c", "w"), "rate_limit_error"),
        (EngineNotReady("w"), "overloaded_error"),
        (UpstreamTimeout("w"), "api_error"),
        (ApplianceError("w"), "api_error"),
    ],
)
def test_an_error_reads_as_anthropics_clients_expect(error: ApplianceError, kind: str) -> None:
    body = json.loads(error_body(error, anthropic=True))
    assert body["type"] == "error"
    assert (body["error"]["type"], body["error"]["message"]) == (kind, "w")


def test_the_engines_own_envelope_passes_to_the_byte() -> None:
    body = b'{"error": {"message": "max context is 10", "type": "BadRequestError", "code": 400}}'
    assert normalise_error(400, body, anthropic=False) is body


def test_anthropics_envelope_passes_on_its_own_routes() -> None:
    body = b'{"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}'
    assert normalise_error(400, body, anthropic=True) is body


def test_openais_envelope_is_made_anthropics_on_anthropics_routes() -> None:
    body = b'{"error": {"message": "max context is 10", "type": "BadRequestError", "code": 400}}'
    changed = json.loads(normalise_error(400, body, anthropic=True))
    assert changed["type"] == "error"
    assert changed["error"]["message"] == "max context is 10"


@pytest.mark.parametrize("anthropic", [False, True])
@pytest.mark.parametrize("status", [400, 404, 422, 500, 503])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"detail": [{"loc": ["body"], "msg": "Field required"}]}', "Field required"),
        (b'{"object": "error", "message": "too long", "code": 400}', "oo long"),
        (b'{"error": "Unauthorized"}', "Unauthorized"),
        (b'{"error": {"code": 3}}', '"code": 3'),
        (b"Internal Server Error", "Internal Server Error"),
        (b"\xff\xfe", "\ufffd"),
        (b"", "o text"),
        (b"[]", "[]"),
    ],
)
def test_any_other_error_is_wrapped_with_what_it_said(
    status: int, body: bytes, said: str, anthropic: bool
) -> None:
    wrapped = json.loads(normalise_error(status, body, anthropic=anthropic))
    assert said in wrapped["error"]["message"]
    assert (wrapped.get("type") == "error") is anthropic
    assert anthropic or (wrapped["error"]["type"] == "server_error") is (status >= 500)


# ---- headers


def test_every_route_that_generates_text_may_stream() -> None:
    streams = {route.path for route in ROUTES if route.may_stream}
    assert streams == {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"}


def test_a_stream_has_the_same_headers_before_the_engine_and_after() -> None:
    engines = {"content-type": "text/event-stream; charset=utf-8", "Server": "uvicorn"}
    own = stream_headers({}, "req-1")
    assert own == stream_headers(Headers(engines), "req-1")
    assert own["x-accel-buffering"] == "no"
    assert own["x-request-id"] == "req-1"


@pytest.mark.parametrize(
    ("error", "after"),
    [
        (EngineNotReady("w", retry_after_s=77), "77"),
        (UpstreamError("w"), "30"),
        (UpstreamTimeout("w"), "30"),
        (RequestError(429, "queue_full", "w"), "2"),
        (RequestError(400, "c", "w"), None),
        (ApplianceError("w"), None),
    ],
)
def test_an_error_that_passes_says_when_to_come_again(
    error: ApplianceError, after: str | None
) -> None:
    headers = error_headers(error, b"{}", "req-1", 30)
    assert headers.get("retry-after") == after
    assert (headers["content-length"], headers["x-request-id"]) == ("2", "req-1")


SECRET = {
    "Authorization": "Bearer client-key",
    "Proxy-Authorization": "Basic xyz",
    "Cookie": "session=1",
    "X-Api-Key": "client-key",
    "Connection": "keep-alive",
    "Keep-Alive": "5",
    "Trailer": "x",
    "Transfer-Encoding": "chunked",
    "Upgrade": "h2c",
    "Host": "appliance:9000",
    "Content-Length": "12",
    "Accept-Encoding": "gzip",
    "X-Forwarded-For": "10.0.0.1",
    "x-session-id": "ses_1",
}


def test_no_key_cookie_or_hop_by_hop_header_goes_upstream() -> None:
    passed = forward_headers(Headers(SECRET), "req-1")
    assert passed == {"content-type": "application/json", "x-request-id": "req-1"}


def test_what_the_engine_needs_goes_upstream() -> None:
    headers = Headers({"Accept": "text/event-stream", "Anthropic-Version": "2023-06-01"})
    passed = forward_headers(headers, "req-1")
    assert passed["accept"] == "text/event-stream"
    assert passed["anthropic-version"] == "2023-06-01"


def test_a_body_is_always_called_json_upstream() -> None:
    headers = Headers({"Content-Type": "text/plain; charset=latin-1"})
    assert forward_headers(headers, "req-1")["content-type"] == "application/json"


def test_of_the_engines_headers_only_what_concerns_the_client_comes_back() -> None:
    headers = Headers({**SECRET, "Set-Cookie": "a=b", "Server": "uvicorn", "Retry-After": "3"})
    assert return_headers(headers, "req-1") == {"retry-after": "3", "x-request-id": "req-1"}


@pytest.mark.parametrize("candidate", ["req-1", "a.b_c:d-9", "x" * 128])
def test_a_sane_request_id_is_kept(candidate: str) -> None:
    assert sane_request_id(candidate) == candidate


@pytest.mark.parametrize("candidate", [None, "", "a b", "a\nb", "x" * 129, "é", "a\n"])
def test_an_unfit_request_id_is_replaced(candidate: str | None) -> None:
    assert sane_request_id(candidate) is None


@pytest.mark.parametrize(
    ("value", "wants"), [("on", True), ("off", False), (" OFF ", False), ("On", True)]
)
def test_the_header_switches_the_prompt(value: str, wants: bool) -> None:
    assert injection_switch(Headers({"X-Appliance-Prompt": value})) is wants


def test_without_the_header_the_prompt_is_wanted() -> None:
    assert injection_switch(Headers({})) is True


def test_an_unknown_word_in_the_header_is_refused() -> None:
    with pytest.raises(RequestError, match="'maybe' is none of on, off") as caught:
        injection_switch(Headers({"X-Appliance-Prompt": "maybe"}))
    assert caught.value.http_status == 400
