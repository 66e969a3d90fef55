"""What the appliance relies on in vLLM 0.32: the fake and the real engine both keep it.

Real sockets on the loopback. Requests are greedy, so the answers are the taught ones.
"""

import json
import signal

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance import probes
from tests import engines
from tests.asking import (
    GREETING_BODIES,
    LONG,
    Json,
    body,
    chat,
    load,
    metric,
    open_request,
    read_until,
    wait_idle,
)
from tests.engines import MODEL, EngineHandle, wait_until

OPEN_ROUTES = ["/health", "/ping", "/version", "/load", "/metrics"]

# Readiness and the open routes


def test_a_loading_engine_refuses_connections_until_it_is_ready(engine: EngineHandle) -> None:
    assert engine.before_ready == {"refused"}


@pytest.mark.parametrize("route", OPEN_ROUTES)
def test_status_routes_need_no_key(engine: EngineHandle, route: str) -> None:
    assert httpx.get(engine.base_url + route, timeout=30, trust_env=False).status_code == 200


def test_health_has_no_body(client: httpx.Client) -> None:
    response = client.get("/health")
    assert response.content == b""
    assert response.headers["content-length"] == "0"


def test_the_version_is_the_pinned_one(client: httpx.Client) -> None:
    assert client.get("/version").json()["version"].startswith("0.32.0")


def test_models_lists_the_served_name_with_its_length(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    (card,) = listed["data"]
    assert card["id"] == MODEL
    assert card["object"] == "model"
    assert card["owned_by"] == "vllm"
    assert card["max_model_len"] >= 2048
    assert {"created", "root", "parent", "permission"} <= card.keys()


def test_metrics_are_prometheus_text_with_engine_and_model_labels(client: httpx.Client) -> None:
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = {f.name: f for f in text_string_to_metric_families(response.text)}
    gauges = {"vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"}
    counters = {"vllm:prompt_tokens", "vllm:generation_tokens", "vllm:request_success"}
    assert {name for name in gauges | counters if name in families} == gauges | counters
    for name in gauges:
        labels = families[name].samples[0].labels
        assert labels["engine"] == "0"
        assert labels["model_name"] == MODEL


def test_generation_tokens_grow_by_what_usage_says(
    engine: EngineHandle, client: httpx.Client
) -> None:
    before = metric(engine, "vllm:generation_tokens_total")
    told = chat(client)["usage"]["completion_tokens"]
    grown = before + told
    wait_until(
        lambda: metric(engine, "vllm:generation_tokens_total") == grown, 10, "the counter to follow"
    )


# The key


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}, {"x-api-key": "KEY"}],
    ids=["none", "wrong", "basic", "x-api-key"],
)
@pytest.mark.parametrize("route", [*GREETING_BODIES, "/v1/nothing"])
def test_v1_answers_401_unless_the_key_comes_as_bearer(
    engine: EngineHandle, route: str, headers: dict[str, str]
) -> None:
    given = {name: value.replace("KEY", engine.key) for name, value in headers.items()}
    response = httpx.post(
        engine.base_url + route, headers=given, json={}, timeout=30, trust_env=False
    )
    assert response.status_code == 401
    assert response.json() == {"error": "Unauthorized"}


def test_tokenize_needs_no_key(engine: EngineHandle) -> None:
    asked = {"model": MODEL, "prompt": "Hello"}
    response = httpx.post(f"{engine.base_url}/tokenize", json=asked, timeout=30, trust_env=False)
    assert response.status_code == 200


# Errors


def error_of(response: httpx.Response, status: int) -> Json:
    """Return the error of an OpenAI envelope, after checking its shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error: Json = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == status
    assert error["message"]
    return error


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
@pytest.mark.parametrize("streaming", [False, True])
def test_an_unknown_model_gets_404(client: httpx.Client, route: str, streaming: bool) -> None:
    response = client.post(route, json=body(route, model="other", stream=streaming))
    error = error_of(response, 404)
    assert error["type"] == "NotFoundError"
    assert error["param"] == "model"
    assert error["message"] == "The model `other` does not exist. Valid aliases: Nikola."


def test_an_unknown_model_of_a_message_gets_the_anthropic_envelope(client: httpx.Client) -> None:
    response = client.post("/v1/messages", json=body("/v1/messages", model="other"))
    assert response.status_code == 404
    assert response.json()["type"] == "error"
    assert response.json()["error"].keys() == {"type", "message"}
    assert response.json()["error"]["type"] == "NotFoundError"


@pytest.mark.parametrize("route", list(GREETING_BODIES))
def test_malformed_json_gets_400_in_the_openai_envelope(client: httpx.Client, route: str) -> None:
    headers = {"content-type": "application/json"}
    error = error_of(client.post(route, content=b'{"model": ', headers=headers), 400)
    assert error["type"] == "Bad Request"


WRONG: list[tuple[str, Json]] = [
    ("/v1/chat/completions", {"messages": "hello"}),
    ("/v1/chat/completions", {"max_tokens": "many"}),
    ("/v1/chat/completions", {"temperature": "hot"}),
    ("/v1/messages", {"messages": "hello"}),
    ("/v1/completions", {"max_tokens": "many"}),
]


@pytest.mark.parametrize(("route", "wrong"), WRONG)
def test_a_field_of_the_wrong_type_gets_400_and_is_named(
    client: httpx.Client, route: str, wrong: Json
) -> None:
    error = error_of(client.post(route, json=body(route, **wrong)), 400)
    assert error["type"] == "Bad Request"
    (name,) = wrong
    assert error["param"].startswith(f"body.{name}")


@pytest.mark.parametrize(
    ("route", "field"), [("/v1/chat/completions", "messages"), ("/v1/messages", "max_tokens")]
)
def test_a_missing_field_gets_400_and_is_named(
    client: httpx.Client, route: str, field: str
) -> None:
    asked = body(route)
    del asked[field]
    error = error_of(client.post(route, json=asked), 400)
    assert error["param"] == f"body.{field}"
    assert "Field required" in error["message"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_prompt_beyond_the_models_length_gets_400(client: httpx.Client, streaming: bool) -> None:
    length = client.get("/v1/models").json()["data"][0]["max_model_len"]
    long = [probes.user("word " * (length + 1))]
    asked = body("/v1/chat/completions", messages=long, stream=streaming)
    error = error_of(client.post("/v1/chat/completions", json=asked), 400)
    assert error["type"] == "BadRequestError"
    assert str(length) in error["message"]


def test_another_content_type_gets_400(client: httpx.Client) -> None:
    content = json.dumps(body("/v1/chat/completions")).encode()
    headers = {"content-type": "text/plain"}
    error_of(client.post("/v1/chat/completions", content=content, headers=headers), 400)


@pytest.mark.parametrize("route", ["/v1/nothing", "/nothing", "/v1/embeddings"])
def test_an_unknown_route_gets_404(client: httpx.Client, route: str) -> None:
    response = client.post(route, json={"model": MODEL, "input": "Hello"})
    assert response.status_code == 404
    assert response.json() == {"detail": "Not Found"}


def test_a_wrong_method_gets_405(client: httpx.Client) -> None:
    response = client.get("/v1/chat/completions")
    assert response.status_code == 405
    assert response.json() == {"detail": "Method Not Allowed"}


def test_an_error_keeps_the_connection(engine: EngineHandle) -> None:
    first = open_request(engine, "/v1/chat/completions", model="other")
    with first:
        assert b" 404 " in read_until(first, b"}}")
        first.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in read_until(first, b"\r\n\r\n")


# Hang-ups


def test_a_hang_up_in_mid_stream_ends_the_request(engine: EngineHandle) -> None:
    wait_idle(engine)
    with open_request(engine, "/v1/chat/completions", stream=True, **LONG) as sock:
        assert b'"delta"' in read_until(sock, b'"reasoning"')
        wait_until(lambda: load(engine) == (1, 0), 10, "the request to run")
    wait_idle(engine)


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/completions"])
def test_a_hang_up_before_the_head_ends_the_request(engine: EngineHandle, route: str) -> None:
    wait_idle(engine)
    before = metric(engine, "vllm:generation_tokens_total")
    with open_request(engine, route, **LONG):
        wait_until(lambda: load(engine) == (1, 0), 10, "the request to run")
    wait_idle(engine)
    after = metric(engine, "vllm:generation_tokens_total")
    assert after - before < LONG["max_tokens"]


def test_a_hang_up_in_the_queue_frees_the_place(engine: EngineHandle) -> None:
    asked = {"stream": True, **LONG}
    socks = [open_request(engine, "/v1/chat/completions", **asked) for _ in range(72)]
    try:
        wait_until(lambda: load(engine) == (64, 8), 30, "a queue behind 64 running requests")
        for sock in socks[64:]:
            sock.close()
        wait_until(lambda: load(engine) == (64, 0), 20, "the queue to be empty")
    finally:
        for sock in socks:
            sock.close()
    wait_idle(engine)


# The end


@pytest.mark.parametrize(
    "kind", ["fake", pytest.param("real", marks=[pytest.mark.engine, pytest.mark.long])]
)
def test_sigterm_breaks_streams_off_with_done_and_ends_the_process_with_zero(
    kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    argv, env = engines.fake_argv("--chunk-delay", "0.01"), {}
    if kind == "real":
        engines.require_real()
        argv, env = engines.real_argv(), engines.REAL_ENV
    with engines.running(argv, log, env) as engine:
        engine.wait_ready(engines.REAL_READY_S)
        asked = {"stream": True, **LONG}
        with open_request(engine, "/v1/chat/completions", **asked) as sock:
            read_until(sock, b'"reasoning"')
            engine.process.send_signal(signal.SIGTERM)
            rest = read_until(sock, b"[DONE]")
        # vLLM's parts race: the stream ends with "abort", or with an error event. Never cleanly.
        assert b'"finish_reason":"abort"' in rest or b'"code": 500' in rest
        assert b'"finish_reason":"stop"' not in rest
        assert b"[DONE]" in rest
        assert engine.process.wait(timeout=60) == 0
        wait_until(lambda: not engines.group_members(engine.pgid), 30, "the group to be gone")
