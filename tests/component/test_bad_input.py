"""What is wrong with a request is said in one shape, with its status and what to do."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.appliances import ASKED, CHAT, CONTROL, WEB, ApplianceProcess
from tests.engines import MODEL

MESSAGES = "/v1/messages"
LIMIT = 64 * 1024  # of the shared appliance
JSON = {"content-type": "application/json"}
DEEP = b'{"messages":' + b"[" * 20_000 + b"]" * 20_000 + b"}"


def envelope(reply: httpx.Response, status: int, code: str | None, *, anthropic: bool) -> str:
    """Hold a reply to the one shape of errors; return its message."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    body = reply.json()
    error = body["error"]
    assert error["message"].strip()
    assert error["type"].strip()
    if code is not None:
        assert error["code"] == code
    assert (body.get("type") == "error") is anthropic
    return str(error["message"])


WRONG_BODIES = [
    ("malformed", b'{"messages": [', 400, "invalid_json"),
    ("empty", b"", 400, "invalid_json"),
    ("not UTF-8", b'{"model": "\xff\xfe"}', 400, "invalid_json"),
    ("an array", b"[]", 400, "invalid_json"),
    ("a word", b'"hello"', 400, "invalid_json"),
    ("null", b"null", 400, "invalid_json"),
    ("two values", b"{} {}", 400, "invalid_json"),
    ("too deep", DEEP, 400, "invalid_json"),
    ("a model that is a number", b'{"model": 7}', 400, "invalid_type"),
    ("a model that is a list", b'{"model": ["Nikola"]}', 400, "invalid_type"),
    ("an unknown model", b'{"model": "gpt-4o"}', 404, "model_not_found"),
    ("too large", b'{"x": "' + b"y" * LIMIT + b'"}', 413, "body_too_large"),
]


@pytest.mark.parametrize(
    ("body", "status", "code"), [row[1:] for row in WRONG_BODIES], ids=[r[0] for r in WRONG_BODIES]
)
@pytest.mark.parametrize("path", [CHAT, MESSAGES, "/v1/responses", "/v1/completions", "/tokenize"])
def test_a_wrong_body_never_reaches_the_engine(
    box: ApplianceProcess, path: str, body: bytes, status: int, code: str
) -> None:
    with box.http() as client:
        reply = client.post(path, content=body, headers=JSON)
    envelope(reply, status, code, anthropic=path == MESSAGES)
    assert box.fake.requests(path) == []


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        (CHAT, {"messages": "hello"}, "messages"),
        (CHAT, {"messages": None}, "messages"),
        (CHAT, {}, "messages"),
        (CHAT, {**ASKED, "stream": "yes"}, "stream"),
        (CHAT, {**ASKED, "max_tokens": "many"}, "max_tokens"),
        (CHAT, {**ASKED, "max_tokens": -1}, "max_tokens"),
        ("/v1/responses", {"instructions": 7}, "input"),
        (MESSAGES, {"messages": [], "system": 7}, "max_tokens"),
    ],
)
def test_wrong_types_get_the_engines_own_400(
    box: ApplianceProcess, path: str, body: dict[str, Any], named: str
) -> None:
    with box.http() as client:
        reply = client.post(path, json=body)
    assert named in envelope(reply, 400, None, anthropic=path == MESSAGES)


def test_what_is_wrong_with_messages_wears_anthropics_shape(box: ApplianceProcess) -> None:
    kinds = {400: "invalid_request_error", 404: "not_found_error", 413: "request_too_large"}
    with box.http() as client:
        for body, status in ((b"{", 400), (b'{"model": "x"}', 404), (b" " * (LIMIT + 1), 413)):
            error = client.post(MESSAGES, content=body).json()["error"]
            assert error["type"] == kinds[status]
        assert client.get(MESSAGES).json()["type"] == "error"
        no_key = WEB.post(box.base_url + MESSAGES, json={})
        assert no_key.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("model", [{}, {"model": None}, {"model": MODEL}])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": ASKED["messages"]}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/responses", {"input": "x"}),
        (MESSAGES, {"messages": ASKED["messages"], "max_tokens": 5}),
        ("/v1/messages/count_tokens", {"messages": ASKED["messages"]}),
        ("/tokenize", {"prompt": "x"}),
    ],
)
def test_a_request_that_names_no_model_gets_the_served_one(
    box: ApplianceProcess, path: str, body: dict[str, Any], model: dict[str, Any]
) -> None:
    with box.http() as client:
        assert client.post(path, json=body | model).status_code == 200


# ---- too large


def pieces(size: int) -> Iterator[bytes]:
    while size > 0:
        yield b" " * min(size, 8192)
        size -= 8192


@pytest.mark.parametrize("size", [LIMIT + 1, 2 * LIMIT, 40 * LIMIT])
@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
def test_the_sender_of_a_body_that_is_too_large_can_read_so(
    box: ApplianceProcess, size: int, chunked: bool
) -> None:
    with box.http() as client:
        content: Any = pieces(size) if chunked else b" " * size
        reply = client.post(CHAT, content=content)
        message = envelope(reply, 413, "body_too_large", anthropic=False)
        assert "64.0 KiB" in message
        assert "APPLIANCE_MAX_BODY_BYTES" in message
        assert client.post(CHAT, json=ASKED).status_code == 200  # the next one is unharmed


def test_a_body_of_exactly_the_limit_passes(box: ApplianceProcess) -> None:
    body = json.dumps(ASKED).encode()
    with box.http() as client:
        padded = body + b" " * (LIMIT - len(body))
        assert client.post(CHAT, content=padded, headers=JSON).status_code == 200
        assert client.post(CHAT, content=pieces(LIMIT), headers=JSON).status_code == 400


def test_a_packed_body_is_refused_and_a_plain_one_may_say_so(box: ApplianceProcess) -> None:
    body = json.dumps(ASKED).encode()
    with box.http() as client:
        packed = client.post(
            CHAT, content=gzip.compress(body), headers=JSON | {"content-encoding": "gzip"}
        )
        assert "gzip" in envelope(packed, 415, "unsupported_encoding", anthropic=False)
        for name in ("identity", "Identity"):
            plain = client.post(CHAT, content=body, headers=JSON | {"content-encoding": name})
            assert plain.status_code == 200


# ---- routes, methods, parameters, keys


@pytest.mark.parametrize(
    "path",
    [
        "/console",
        "/v1",
        "/v1/chat",
        CHAT + "/",
        "/v1/audio/speech",
        "/docs",
        "/openapi.json",
        "/v1/%2e%2e",
    ],
)
def test_an_unknown_route_is_a_404_that_names_the_known(box: ApplianceProcess, path: str) -> None:
    with box.http() as client:
        message = envelope(client.post(path, json={}), 404, "not_found", anthropic=False)
    assert CHAT in message


def test_an_unknown_control_route_is_a_404_for_the_operator(box: ApplianceProcess) -> None:
    with box.http("operator") as operator:
        message = envelope(operator.get(f"{CONTROL}/no-such"), 404, "not_found", anthropic=False)
    assert "no-such" in message


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, "POST"),
        ("DELETE", "/v1/models", "GET"),
        ("POST", "/health", "GET"),
        ("POST", f"{CONTROL}/status", "GET"),
        ("GET", f"{CONTROL}/stop", "POST"),
    ],
)
def test_a_wrong_method_is_a_405_that_names_the_right_one(
    box: ApplianceProcess, method: str, path: str, allowed: str
) -> None:
    with box.http("operator") as operator:
        reply = operator.request(method, path)
    assert allowed in envelope(reply, 405, "method_not_allowed", anthropic=False)
    assert allowed in reply.headers["allow"]


@pytest.mark.parametrize("query", ["lines=0", "lines=many", "lines=9999", "after=-1", "after="])
def test_a_bad_parameter_is_a_400_that_names_it(box: ApplianceProcess, query: str) -> None:
    with box.http("operator") as operator:
        reply = operator.get(f"{CONTROL}/logs?{query}")
    assert query.partition("=")[0] in envelope(reply, 400, "bad_parameter", anthropic=False)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic a2V5"},
        {"authorization": "Bearer schl\xfcssel"},
        {"x-api-key": "wrong"},
    ],
)
def test_a_missing_or_wrong_key_is_a_401_that_says_how_to_send_it(
    box: ApplianceProcess, headers: dict[str, str]
) -> None:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    reply = WEB.post(box.base_url + CHAT, json=ASKED, headers=encoded)
    message = envelope(reply, 401, "invalid_api_key", anthropic=False)
    assert "Authorization: Bearer" in message
    assert reply.headers["www-authenticate"] == "Bearer"
    assert box.fake.requests(CHAT) == []


def test_the_key_may_come_in_anthropics_header(box: ApplianceProcess) -> None:
    reply = WEB.post(
        box.base_url + MESSAGES,
        json={"messages": ASKED["messages"], "max_tokens": 5},
        headers={"x-api-key": box.key("client")},
    )
    assert reply.status_code == 200
