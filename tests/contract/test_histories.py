"""Whatever a client sends back is taken or refused clearly: by the appliance, and by the engine
that is behind it.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from appliance.probes import GREETING, user
from tests import engines
from tests.appliances import CHAT, ApplianceProcess, attached_to, running_process
from tests.engines import MODEL, EngineHandle
from tests.unit.test_history import PLAIN, REPAIRED, call, result, said

MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
USER = {"role": "user", "content": "hi"}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
SILENT = {"role": "assistant", "content": None, "tool_calls": None}
IMAGE = {"type": "image_url", "image_url": {"url": PIXEL}}
JSON = dict[str, Any]


@pytest.fixture(scope="module")
def front(
    engine: EngineHandle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApplianceProcess]:
    """Run an appliance in front of each of the two engines."""
    chosen = attached_to(engine.base_url, engine.key, profile=None)
    with running_process(tmp_path_factory.mktemp("front"), **chosen) as appliance:
        engines.shared_groups.add(appliance.process.pid)
        appliance.until("ready", within_s=60.0)
        yield appliance
    engines.shared_groups.discard(appliance.process.pid)


@pytest.fixture
def http(front: ApplianceProcess) -> Iterator[httpx.Client]:
    with front.http() as client:
        client.timeout = httpx.Timeout(60.0)
        yield client


def refused(reply: httpx.Response, *named: str, anthropic: bool = False) -> JSON:
    """Hold a reply to a clear refusal: a 400 in the route's shape, with these words."""
    assert reply.status_code == 400, reply.text
    body = reply.json()
    error: JSON = body["error"]
    assert (body.get("type") == "error") is anthropic
    for word in named:
        assert word in error["message"], error
    return error


@pytest.mark.parametrize(
    "messages", [m for m in PLAIN if m] + [m for m, *_ in REPAIRED] + [[USER, SILENT]]
)
def test_what_has_a_meaning_is_answered(http: httpx.Client, messages: list[Any]) -> None:
    reply = http.post(CHAT, json={"model": MODEL, "messages": messages, "max_tokens": 1})
    assert reply.status_code == 200, reply.text
    count = http.post("/tokenize", json={"model": MODEL, "messages": messages})
    assert count.status_code == 200, count.text


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        (["hi"], "messages[0]"),
        ([{"content": "x"}], "messages[0]"),
        ([{"role": "user", "content": 7}], "messages[0].content"),
        ([USER, said(call(function=None))], "messages[1].tool_calls[0]"),
    ],
)
def test_what_has_none_is_refused_by_its_place(
    http: httpx.Client, messages: list[Any], place: str
) -> None:
    refused(http.post(CHAT, json={"model": MODEL, "messages": messages}), place)


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        (
            CHAT,
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": PIXEL}]}
                ]
            },
            "messages[0].content[0]",
        ),
        (
            MESSAGES,
            {
                "max_tokens": 1,
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1"}}
                        ],
                    }
                ],
            },
            "messages[0].content[0]",
        ),
        (
            RESPONSES,
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": PIXEL}]}]},
            "input[0].content[0]",
        ),
    ],
)
def test_an_image_is_refused_by_its_place(
    http: httpx.Client, path: str, body: JSON, place: str
) -> None:
    reply = http.post(path, json={"model": MODEL, **body})
    refused(reply, place, "text only", anthropic=path == MESSAGES)


def test_other_routes_histories_are_answered(http: httpx.Client) -> None:
    used = {"type": "tool_use", "id": "c1", "name": "read", "input": {}}
    given = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "x"}]}
    thought = {"type": "thinking", "thinking": "why", "signature": "s"}
    turns = [
        USER,
        {"role": "assistant", "content": [thought, used]},
        {"role": "user", "content": [given]},
    ]
    reply = http.post(MESSAGES, json={"model": MODEL, "messages": turns, "max_tokens": 1})
    assert reply.status_code == 200, reply.text
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
        {"type": "function_call", "call_id": "c1", "name": "read", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "x"},
    ]
    reply = http.post(RESPONSES, json={"model": MODEL, "input": items, "max_output_tokens": 4})
    assert reply.status_code == 200, reply.text


def test_a_role_that_no_template_knows_is_refused_or_answered_but_never_a_fault(
    http: httpx.Client,
) -> None:
    messages = [{"role": "boss", "content": "x"}]
    reply = http.post(CHAT, json={"model": MODEL, "messages": messages, "max_tokens": 1})
    assert reply.status_code in (200, 400), reply.text


# ---- the context


def served(http: httpx.Client) -> int:
    length = http.get("/v1/models").json()["data"][0]["max_model_len"]
    assert isinstance(length, int)
    return length


def tokens(http: httpx.Client, messages: list[Any]) -> int:
    reply = http.post("/tokenize", json={"model": MODEL, "messages": messages})
    count = reply.json()["count"]
    assert isinstance(count, int)
    return count


def test_kilos_own_limit_is_no_reason_to_refuse(http: httpx.Client) -> None:
    asked = {"model": MODEL, "messages": [user(GREETING)], "max_tokens": 10 * served(http)}
    reply = http.post(CHAT, json=asked)
    assert reply.status_code == 200, reply.text
    for path, body in (
        ("/v1/completions", {"prompt": "x", "stop": ["a", "e"]}),
        (MESSAGES, {"messages": [user(GREETING)]}),
    ):
        limit = {"model": MODEL, "max_tokens": 10 * served(http)}
        assert http.post(path, json={**limit, **body}).status_code == 200


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", MESSAGES, RESPONSES])
def test_a_prompt_that_is_too_long_is_told_so_under_one_code(http: httpx.Client, path: str) -> None:
    text = "word, " * served(http)
    body: JSON = {"messages": [{"role": "user", "content": text}], "max_tokens": 5}
    if path == "/v1/completions":
        body = {"prompt": text, "max_tokens": 5}
    elif path == RESPONSES:
        body = {"input": text}
    for is_streamed in (False, True):
        reply = http.post(path, json={"model": MODEL, **body, "stream": is_streamed})
        if path == MESSAGES:
            refused(reply, "prompt is too long", anthropic=True)
        else:
            error = refused(reply, "maximum context length is", str(served(http)))
            assert error["code"] == "context_length_exceeded"


# ---- what the template is given


@pytest.mark.engine
def test_all_that_is_said_reaches_the_real_template(
    real_engine: EngineHandle, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The count of a prompt's tokens grows with each text that a client adds."""
    system = {"role": "system", "content": "Be kind."}
    developer = {"role": "developer", "content": "Answer in short words."}
    calling = said(call())
    thinking = {**calling, "reasoning_content": "They want the file, so I read it first."}
    grown = [
        ([USER], [system, USER]),
        ([system, USER], [system, developer, USER]),
        ([system, USER], [system, system, USER]),
        ([system, USER], [system, USER, system]),
        ([USER, calling, result()], [USER, thinking, result()]),
        ([USER, calling, result(content=None)], [USER, calling, result()]),
    ]
    chosen = attached_to(real_engine.base_url, real_engine.key, profile=None)
    with running_process(tmp_path_factory.mktemp("real"), **chosen) as appliance:
        appliance.until("ready", within_s=60.0)
        with appliance.http() as http:
            for fewer, more in grown:
                counts = [used(http, messages) for messages in (fewer, more)]
                assert counts[0] < counts[1], json.dumps(more)
                assert counts == [tokens(http, messages) for messages in (fewer, more)]


def used(http: httpx.Client, messages: list[Any]) -> int:
    reply = http.post(
        CHAT, json={"model": MODEL, "messages": messages, "max_tokens": 1}, timeout=60.0
    )
    count = reply.json()["usage"]["prompt_tokens"]
    assert isinstance(count, int)
    return count
