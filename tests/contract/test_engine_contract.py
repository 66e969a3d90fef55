"""What the appliance relies on in vLLM 0.32: the fake and the real engine both keep it.

Real sockets on the loopback. Requests are greedy, so the answers are the taught ones.
"""

import json
import signal
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance import probes
from appliance.demo import conversations as known
from tests import engines
from tests.engines import MODEL, EngineHandle, wait_until

Json = dict[str, Any]
BOTH = ["fake", pytest.param("real", marks=pytest.mark.engine)]
OPEN_ROUTES = ["/health", "/ping", "/version", "/load", "/metrics"]
GREETING = [probes.user(probes.GREETING)]
GREETING_BODIES: dict[str, Json] = {
    "/v1/chat/completions": {"messages": GREETING},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/responses": {"input": probes.GREETING},
    "/v1/messages": {"messages": GREETING, "max_tokens": 100},
}
LONG = {"max_tokens": 1500, "ignore_eos": True}
TOOLS = [probes.READ_FILE]


@pytest.fixture(scope="module", params=BOTH)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineHandle]:
    if request.param == "real":
        yield request.getfixturevalue("real_engine")
        return
    flags = ("--ready-after", "0.3", "--chunk-delay", "0.001")
    log = tmp_path_factory.mktemp("fake") / "engine.log"
    with engines.shared(engines.fake_argv(*flags), log) as fake:
        yield fake


@pytest.fixture
def client(engine: EngineHandle) -> Iterator[httpx.Client]:
    with engine.client() as client:
        yield client


def body(route: str, **more: Any) -> Json:
    return {"model": MODEL, "temperature": 0, **GREETING_BODIES[route], **more}


def ask(client: httpx.Client, route: str, **more: Any) -> Any:
    response = client.post(route, json=body(route, **more))
    assert response.status_code == 200, response.text
    return response.json()


def chat(client: httpx.Client, **more: Any) -> Any:
    return ask(client, "/v1/chat/completions", **more)


def stream(client: httpx.Client, route: str, **more: Any) -> list[tuple[str, str]]:
    """Return the events of a stream as (event, data)."""
    with client.stream("POST", route, json=body(route, stream=True, **more)) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert "content-length" not in response.headers
        text = "".join(response.iter_text())
    assert text.endswith("\n\n")
    return [_event(block) for block in text.removesuffix("\n\n").split("\n\n")]


def _event(block: str) -> tuple[str, str]:
    fields = dict(line.split(": ", 1) for line in block.split("\n"))
    return fields.get("event", ""), fields["data"]


def chat_chunks(client: httpx.Client, **more: Any) -> list[Json]:
    """Return the chunks of a chat stream; it must end with DONE."""
    events = stream(client, "/v1/chat/completions", **more)
    assert events[-1] == ("", "[DONE]")
    assert {name for name, _ in events} == {""}
    return [json.loads(data) for _, data in events[:-1]]


def typed_events(client: httpx.Client, route: str, **more: Any) -> list[Json]:
    """Return the events of a stream whose event names repeat the type in the data."""
    events = [(name, json.loads(data)) for name, data in stream(client, route, **more)]
    assert [name for name, _ in events] == [data["type"] for _, data in events]
    return [data for _, data in events]


def deltas(chunks: list[Json]) -> list[Json]:
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


def load(engine: EngineHandle) -> tuple[float, float]:
    """Return how many requests run and wait."""
    return metric(engine, "vllm:num_requests_running"), metric(engine, "vllm:num_requests_waiting")


def metric(engine: EngineHandle, name: str) -> float:
    text = httpx.get(f"{engine.base_url}/metrics", timeout=30, trust_env=False).text
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    values = [sample.value for sample in samples if sample.name == name]
    assert values, f"no {name} in /metrics"
    return sum(values)


def wait_idle(engine: EngineHandle) -> None:
    wait_until(lambda: load(engine) == (0, 0), 20, "nothing to run and nothing to wait")


def open_request(engine: EngineHandle, route: str, **more: Any) -> socket.socket:
    """Send a request on a socket of its own, which the test closes when it likes."""
    content = json.dumps(body(route, **more)).encode()
    host, _, port = engine.base_url.removeprefix("http://").partition(":")
    sock = socket.create_connection((host, int(port)), timeout=60)
    head = [f"POST {route} HTTP/1.1", f"Host: {host}:{port}", "Content-Type: application/json"]
    head += [f"Authorization: Bearer {engine.key}", f"Content-Length: {len(content)}"]
    sock.sendall("\r\n".join([*head, "", ""]).encode() + content)
    return sock


def read_until(sock: socket.socket, mark: bytes) -> bytes:
    """Read until ``mark`` has come, or the end."""
    read = b""
    while mark not in read and (data := sock.recv(65536)):
        read += data
    return read


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


# Chat completions


def test_a_whole_chat_answer_has_the_keys_we_rely_on(client: httpx.Client) -> None:
    answer = chat(client)
    assert answer["id"].startswith("chatcmpl-")
    assert answer["object"] == "chat.completion"
    assert answer["model"] == MODEL
    (choice,) = answer["choices"]
    assert choice["index"] == 0
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == known.GREETING_ANSWER
    assert choice["message"]["reasoning"].strip() == known.ANSWER_REASONING
    assert "tool_calls" not in choice["message"]
    assert "reasoning_content" not in choice["message"]


def test_usage_adds_up(client: httpx.Client) -> None:
    usage = chat(client)["usage"]
    assert usage["prompt_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 < usage["completion_tokens_details"]["reasoning_tokens"] < usage["completion_tokens"]


def test_a_chat_stream_is_role_then_reasoning_then_content_then_the_end(
    client: httpx.Client,
) -> None:
    chunks = chat_chunks(client)
    first, *middle, last = deltas(chunks)
    assert first == {"role": "assistant", "content": ""}
    kinds = ["reasoning" if delta.get("reasoning") else "content" for delta in middle]
    assert kinds == sorted(kinds, reverse=True)
    assert set(kinds) == {"reasoning", "content"}
    assert all("role" not in delta for delta in [*middle, last])
    content = "".join(delta.get("content") or "" for delta in [*middle, last])
    reasoning = "".join(delta.get("reasoning") or "" for delta in middle)
    assert content == known.GREETING_ANSWER
    assert reasoning.strip() == known.ANSWER_REASONING


def test_only_the_last_chat_chunk_has_a_finish_reason(client: httpx.Client) -> None:
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chat_chunks(client)]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]


def test_all_chunks_of_a_stream_share_id_model_and_time(client: httpx.Client) -> None:
    chunks = chat_chunks(client)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk["model"] for chunk in chunks} == {MODEL}
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1


def test_usage_comes_in_a_chunk_without_choices_when_asked_for(client: httpx.Client) -> None:
    chunks = chat_chunks(client, stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == []
    usage = chunks[-1]["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert all(not chunk.get("usage") for chunk in chunks[:-1])
    assert usage["completion_tokens"] == chat(client)["usage"]["completion_tokens"]


def test_without_asking_there_is_no_usage_in_a_stream(client: httpx.Client) -> None:
    assert all(not chunk.get("usage") for chunk in chat_chunks(client))


def test_continuous_usage_stands_in_every_chunk_and_grows(client: httpx.Client) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    counts = [
        chunk["usage"]["completion_tokens"] for chunk in chat_chunks(client, stream_options=options)
    ]
    assert counts[0] == 0
    assert counts == sorted(counts)


def test_thinking_off_leaves_no_reasoning(client: httpx.Client) -> None:
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    message = chat(client, **off)["choices"][0]["message"]
    assert message["reasoning"] is None
    assert message["content"] == known.GREETING_ANSWER
    assert not any(delta.get("reasoning") for delta in deltas(chat_chunks(client, **off)))


def test_a_limit_ends_with_length(client: httpx.Client) -> None:
    answer = chat(client, max_tokens=3)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3
    assert chat_chunks(client, max_tokens=3)[-1]["choices"][0]["finish_reason"] == "length"


ASKED = [
    *("greeting-on/policy", "greeting-off/agent", "count-off/policy", "warmup-on/policy"),
    *("warmup-off/none", "path-case-on/none", "path-case-on/policy", "path-dropped-off/none"),
    *("path-dropped-off/policy+agent", "result-on/policy", "unknown-on/none"),
]


@pytest.mark.parametrize("name", ASKED)
def test_taught_questions_get_the_taught_answer(client: httpx.Client, name: str) -> None:
    (taught,) = (case for case in known.conversations() if case.name == name)
    message = chat(client, **taught.request(MODEL))["choices"][0]["message"]
    assert message["content"] == taught.content
    assert (message["reasoning"] or "").strip() == (taught.reasoning or "")
    pieces = deltas(chat_chunks(client, **taught.request(MODEL)))
    assert "".join(delta.get("content") or "" for delta in pieces) == taught.content


# Tools


def test_a_tool_call_carries_valid_json(client: httpx.Client) -> None:
    question = [probes.user(probes.TOOL_QUESTION)]
    (choice,) = chat(client, messages=question, tools=TOOLS)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert not choice["message"]["content"]
    (call,) = choice["message"]["tool_calls"]
    assert call["id"]
    assert call["type"] == "function"
    assert call["function"]["name"] == "read_file"
    assert json.loads(call["function"]["arguments"]) == {"path": probes.TOOL_PATH}


def test_a_streamed_tool_call_names_first_and_its_arguments_join_to_json(
    client: httpx.Client,
) -> None:
    question = [probes.user(probes.TOOL_QUESTION)]
    chunks = chat_chunks(client, messages=question, tools=TOOLS)
    calls = [call for delta in deltas(chunks) for call in delta.get("tool_calls", [])]
    first, *rest = calls
    assert first["id"]
    assert first["type"] == "function"
    assert first["index"] == 0
    assert first["function"]["name"] == "read_file"
    assert not any(call.get("id") or call["function"].get("name") for call in rest)
    assert {call["index"] for call in rest} == {0}
    arguments = "".join(call["function"].get("arguments") or "" for call in calls)
    assert json.loads(arguments) == {"path": probes.TOOL_PATH}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert not any(delta.get("content") for delta in deltas(chunks))


def test_parallel_tool_calls_are_told_apart_by_index(client: httpx.Client) -> None:
    question = [probes.user(known.PARALLEL_QUESTION)]
    chunks = chat_chunks(client, messages=question, tools=TOOLS)
    arguments = {0: "", 1: ""}
    for delta in deltas(chunks):
        for call in delta.get("tool_calls", []):
            arguments[call["index"]] += call["function"].get("arguments") or ""
    paths = [json.loads(text)["path"] for text in arguments.values()]
    assert paths == list(known.PARALLEL_PATHS)


def test_a_tool_result_is_taken_and_answered(client: httpx.Client) -> None:
    messages = [probes.user(probes.TOOL_QUESTION)]
    said = chat(client, messages=messages, tools=TOOLS)["choices"][0]["message"]
    call_id = said["tool_calls"][0]["id"]
    result = {"role": "tool", "tool_call_id": call_id, "content": probes.TOOL_RESULT}
    (choice,) = chat(client, messages=[*messages, said, result], tools=TOOLS)["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] == known.TOOL_ANSWER


# Completions


def test_a_whole_completion_has_text_and_usage(client: httpx.Client) -> None:
    answer = ask(client, "/v1/completions", max_tokens=5, ignore_eos=True)
    assert answer["id"].startswith("cmpl-")
    assert answer["object"] == "text_completion"
    (choice,) = answer["choices"]
    assert isinstance(choice["text"], str)
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 5


def test_a_completion_stream_ends_with_a_reason_usage_and_done(client: httpx.Client) -> None:
    options = {"max_tokens": 5, "ignore_eos": True, "stream_options": {"include_usage": True}}
    events = stream(client, "/v1/completions", **options)
    assert events[-1] == ("", "[DONE]")
    *chunks, usage = [json.loads(data) for _, data in events[:-1]]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons[-1] == "length"
    assert set(reasons[:-1]) <= {None}
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 5


# Responses


def test_a_whole_response_has_a_reasoning_item_and_a_message(client: httpx.Client) -> None:
    answer = ask(client, "/v1/responses")
    assert answer["id"].startswith("resp_")
    assert answer["object"] == "response"
    assert answer["status"] == "completed"
    reasoning, message = answer["output"]
    assert reasoning["type"] == "reasoning"
    assert reasoning["content"][0]["text"].strip() == known.ANSWER_REASONING
    assert message["type"] == "message"
    assert message["content"][0]["type"] == "output_text"
    assert message["content"][0]["text"] == known.GREETING_ANSWER
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_response_events_are_numbered_and_come_in_order(client: httpx.Client) -> None:
    events = typed_events(client, "/v1/responses")
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    once = [name for name, after in _with_next(events) if name != after]
    assert once == [
        *("response.created", "response.in_progress"),
        *("response.output_item.added", "response.content_part.added"),
        *("response.reasoning_text.delta", "response.reasoning_text.done"),
        *("response.content_part.done", "response.output_item.done"),
        *("response.output_item.added", "response.content_part.added"),
        *("response.output_text.delta", "response.output_text.done"),
        *("response.content_part.done", "response.output_item.done"),
        "response.completed",
    ]


def _with_next(events: list[Json]) -> Iterator[tuple[str, str]]:
    names = [event["type"] for event in events]
    yield from zip(names, [*names[1:], ""], strict=True)


def test_response_deltas_join_to_the_text_of_the_completed_response(client: httpx.Client) -> None:
    events = typed_events(client, "/v1/responses")
    parts = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
    assert "".join(parts) == known.GREETING_ANSWER
    last = events[-1]["response"]
    assert last["output"][-1]["content"][0]["text"] == known.GREETING_ANSWER
    assert last["id"] == events[0]["response"]["id"]
    assert last["usage"]["output_tokens"] > 0


def test_a_response_calls_tools_as_items(client: httpx.Client) -> None:
    function = {"type": "function", **probes.READ_FILE["function"]}
    asked = {"input": probes.TOOL_QUESTION, "tools": [function]}
    call = ask(client, "/v1/responses", **asked)["output"][-1]
    assert call["type"] == "function_call"
    assert call["name"] == "read_file"
    assert call["call_id"]
    assert json.loads(call["arguments"]) == {"path": probes.TOOL_PATH}
    events = typed_events(client, "/v1/responses", **asked)
    name = "response.function_call_arguments"
    parts = "".join(e["delta"] for e in events if e["type"] == f"{name}.delta")
    (done,) = (e for e in events if e["type"] == f"{name}.done")
    assert json.loads(parts) == json.loads(done["arguments"]) == {"path": probes.TOOL_PATH}


# Messages


def test_a_whole_message_has_thinking_and_text_blocks(client: httpx.Client) -> None:
    answer = ask(client, "/v1/messages")
    assert answer["type"] == "message"
    assert answer["role"] == "assistant"
    assert answer["stop_reason"] == "end_turn"
    thinking, text = answer["content"]
    assert thinking["type"] == "thinking"
    assert thinking["thinking"].strip() == known.ANSWER_REASONING
    assert text == {"type": "text", "text": known.GREETING_ANSWER}
    assert {"input_tokens", "output_tokens"} <= answer["usage"].keys()


def test_message_events_come_in_order_and_join_to_the_text(client: httpx.Client) -> None:
    events = typed_events(client, "/v1/messages")
    once = [name for name, after in _with_next(events) if name != after]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert once == ["message_start", *block, *block, "message_delta", "message_stop"]
    said = [e["delta"] for e in events if e["type"] == "content_block_delta"]
    text = "".join(delta["text"] for delta in said if delta["type"] == "text_delta")
    assert text == known.GREETING_ANSWER
    assert events[0]["message"]["role"] == "assistant"
    assert events[0]["message"]["usage"]["input_tokens"] > 0
    assert events[-2]["delta"]["stop_reason"] == "end_turn"
    assert events[-2]["usage"]["output_tokens"] > 0


def test_a_message_calls_tools_with_an_input_object(client: httpx.Client) -> None:
    function = probes.READ_FILE["function"]
    tool = {"name": function["name"], "input_schema": function["parameters"]}
    asked = {"messages": [probes.user(probes.TOOL_QUESTION)], "tools": [tool], "max_tokens": 200}
    call = {"type": "tool_use", "name": "read_file", "input": {"path": probes.TOOL_PATH}}
    answer = ask(client, "/v1/messages", **asked)
    assert answer["stop_reason"] == "tool_use"
    assert answer["content"][-1].items() >= call.items()
    events = typed_events(client, "/v1/messages", **asked)
    parts = [e["delta"].get("partial_json", "") for e in events if "index" in e and "delta" in e]
    assert json.loads("".join(parts)) == call["input"]


def test_counted_tokens_are_the_input_tokens(client: httpx.Client) -> None:
    asked = {"model": MODEL, "messages": GREETING}
    counted = client.post("/v1/messages/count_tokens", json=asked)
    assert counted.status_code == 200
    assert counted.json()["input_tokens"] == ask(client, "/v1/messages")["usage"]["input_tokens"]


# Tokens


def test_tokens_of_a_text_turn_back_into_it(client: httpx.Client) -> None:
    text = probes.WARMUP_ANSWER
    told = client.post("/tokenize", json={"model": MODEL, "prompt": text}).json()
    assert told["count"] == len(told["tokens"])
    assert told["max_model_len"] == client.get("/v1/models").json()["data"][0]["max_model_len"]
    back = client.post("/detokenize", json={"model": MODEL, "tokens": told["tokens"]}).json()
    assert back == {"prompt": text}


def test_messages_can_be_tokenized(client: httpx.Client) -> None:
    told = client.post("/tokenize", json={"model": MODEL, "messages": GREETING}).json()
    assert told["count"] == len(told["tokens"]) > 0


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
    assert error["message"] == "The model `other` does not exist."


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
    with open_request(engine, "/v1/chat/completions", stream=True, **LONG) as sock:
        assert b'"delta"' in read_until(sock, b'"reasoning"')
        wait_until(lambda: load(engine) == (1, 0), 10, "the request to run")
    wait_idle(engine)


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/completions"])
def test_a_hang_up_before_the_head_ends_the_request(engine: EngineHandle, route: str) -> None:
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
def test_sigterm_aborts_the_streams_in_good_form_and_ends_the_process(
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
        assert b'"finish_reason":"abort"' in rest
        assert b"[DONE]" in rest
        assert engine.process.wait(timeout=60) == 0
        wait_until(lambda: not engines.group_members(engine.pgid), 30, "the group to be gone")
