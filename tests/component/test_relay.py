"""What passes through the relay: streams, reasoning, headers, the prompt, the engine's errors."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.serve import PROMPT
from tests.appliance_tasks import StartAppliance
from tests.appliances import ASKED, CHAT, LONG, ApplianceProcess, engines_of, metric
from tests.engines import MODEL

POLICY = PROMPT.read_text(encoding="utf-8").strip()


def events(text: str) -> list[Any]:
    """Return the data of each event, parsed but for [DONE]."""
    found = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [data if data == "[DONE]" else json.loads(data) for data in found]


# ---- streams


def test_a_chunk_arrives_before_the_engine_has_sent_the_next(box: ApplianceProcess) -> None:
    box.fake.be(stall_after=3)  # the fourth never comes: what is read came through on its own
    with (
        box.http() as client,
        client.stream("POST", CHAT, json=ASKED | {"stream": True}) as reply,
    ):
        lines = reply.iter_lines()
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["x-accel-buffering"] == "no"
        seen = [line for line in (next(lines) for _ in range(6)) if line]
    assert len(events("\n".join(seen))) == 3


def test_a_whole_stream_is_the_engines_own_in_order(box: ApplianceProcess) -> None:
    with box.http() as client:
        reply = client.post(CHAT, json=ASKED | {"stream": True})
        whole = client.post(CHAT, json=ASKED).json()["choices"][0]["message"]
    *chunks, done = events(reply.text)
    assert done == "[DONE]"
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text == whole["content"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_reasoning_comes_under_both_names_streaming_or_not(box: ApplianceProcess) -> None:
    with box.http() as client:
        message = client.post(CHAT, json=ASKED).json()["choices"][0]["message"]
        streamed = events(client.post(CHAT, json=ASKED | {"stream": True}).text)[:-1]
    assert message["reasoning"]
    assert message["reasoning_content"] == message["reasoning"]
    deltas = [chunk["choices"][0]["delta"] for chunk in streamed]
    pairs = [(d["reasoning"], d["reasoning_content"]) for d in deltas if d.get("reasoning")]
    assert "".join(one for one, _ in pairs) == message["reasoning"]
    assert all(one == other for one, other in pairs)
    assert all("reasoning_content" not in d for d in deltas if "reasoning" not in d)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "one two"}),
        ("/v1/responses", {"input": "hello"}),
        ("/v1/messages", {"messages": ASKED["messages"], "max_tokens": 50}),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_other_routes_pass_byte_for_byte(
    box: ApplianceProcess, path: str, body: dict[str, Any], streaming: bool
) -> None:
    with box.http() as client:
        reply = client.post(path, json={"model": MODEL, **body, "stream": streaming})
    assert reply.status_code == 200
    kind = "text/event-stream" if streaming else "application/json"
    assert reply.headers["content-type"].startswith(kind)
    assert reply.text.strip()


def test_an_engine_that_breaks_off_breaks_the_clients_connection(box: ApplianceProcess) -> None:
    box.fake.be(tear_after=2)
    broken = {"route": CHAT, "outcome": "broken"}
    read: list[bytes] = []
    with box.http() as client:
        before = metric(client.get("/metrics").text, "appliance_requests_total", **broken)
        with client.stream("POST", CHAT, json=ASKED | {"stream": True}) as reply:
            chunks = reply.iter_raw()
            with pytest.raises(httpx.RemoteProtocolError):
                read.extend(chunks)
        after = metric(client.get("/metrics").text, "appliance_requests_total", **broken)
    assert b"".join(read).count(b"data: ") == 2
    assert b"[DONE]" not in b"".join(read)
    assert after == before + 1


def test_a_whole_reply_that_breaks_off_is_a_502(box: ApplianceProcess) -> None:
    box.fake.be(tear_after=0)
    with box.http() as client:
        reply = client.post(CHAT, json=ASKED)
    assert reply.status_code == 502
    assert reply.json()["error"]["code"] == "upstream_error"


async def test_an_engine_that_dies_in_mid_stream_breaks_the_connection(
    start: StartAppliance,
) -> None:
    box = await start("--chunk-delay", "0.02")
    async with box.client.stream("POST", CHAT, json=LONG | {"stream": True}) as reply:
        chunks = reply.aiter_lines()
        assert (await anext(chunks)).startswith("data: ")
        box.fake.be(exit_code=0, chunk_delay=0.02)
        with pytest.raises(httpx.RemoteProtocolError):
            assert "data: [DONE]" not in [line async for line in chunks]
    assert await box.metric("appliance_requests_total", route=CHAT, outcome="broken") == 1
    await box.until("backoff")


async def test_an_engine_that_dies_before_the_head_is_a_502(start: StartAppliance) -> None:
    box = await start()
    box.fake.be(slow_head=60, exit_code=1, exit_after=0.3)
    reply = await box.ask()
    assert reply.status_code == 502
    error = reply.json()["error"]
    assert (error["code"], error["type"]) == ("upstream_error", "server_error")
    assert "retry" in error["message"].lower()


# ---- the engine's own errors


def test_the_engines_own_errors_pass_with_their_status(box: ApplianceProcess) -> None:
    with box.http() as client:
        none = client.post(CHAT, json=ASKED | {"max_tokens": -1})
        wrong = client.post(CHAT, json={"model": MODEL, "messages": "hello"})
        unknown = client.post("/v1/embeddings", json={"model": MODEL, "input": "x"})
    assert none.status_code == 400
    assert "max_tokens" in none.json()["error"]["message"]
    assert wrong.status_code == 400
    assert "messages" in wrong.json()["error"]["message"]
    assert unknown.status_code == 404
    assert unknown.json()["error"]["code"] == "not_found"


# ---- headers


def test_the_clients_request_id_is_echoed_and_an_unfit_one_replaced(box: ApplianceProcess) -> None:
    fit, unfit = {"x-request-id": "kilo-42.a:b"}, {"x-request-id": "two words"}
    with box.http() as client:
        assert client.post(CHAT, json=ASKED, headers=fit).headers["x-request-id"] == "kilo-42.a:b"
        stream = client.post(CHAT, json=ASKED | {"stream": True}, headers=fit)
        assert stream.headers["x-request-id"] == "kilo-42.a:b"
        error = client.post(CHAT, content=b"{", headers=fit)
        assert error.headers["x-request-id"] == "kilo-42.a:b"
        made = client.post(CHAT, json=ASKED, headers=unfit).headers["x-request-id"]
    assert made.startswith("req-")
    ids = [request["headers"]["x-request-id"] for request in box.fake.requests(CHAT)]
    assert ids == ["kilo-42.a:b", "kilo-42.a:b", made]


def test_a_clients_secrets_and_hop_headers_stay_here(box: ApplianceProcess) -> None:
    secrets = {
        "cookie": "session=c00kie",
        "proxy-authorization": "Basic cHJveHk=",
        "x-api-key": "other",
        "te": "trailers",
        "upgrade": "websocket",
        "forwarded": "for=1.2.3.4",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    with box.http() as client:
        assert client.post(CHAT, json=ASKED, headers=secrets).status_code == 200
    (seen,) = box.fake.requests(CHAT)
    headers = seen["headers"]
    for name in ("cookie", "proxy-authorization", "x-api-key", "te", "upgrade", "forwarded"):
        assert name not in headers
    assert headers["traceparent"] == secrets["traceparent"]
    assert box.key("client") not in str(seen)


def test_the_engine_gets_a_key_of_its_own_by_the_environment_alone(box: ApplianceProcess) -> None:
    with box.http() as client:
        client.post(CHAT, json=ASKED)
    (seen,) = box.fake.requests(CHAT)
    key = seen["headers"]["authorization"].removeprefix("Bearer ")
    assert key not in (box.key("client"), box.key("operator"))
    (engine,) = engines_of(box.folder)
    process = Path(f"/proc/{engine}")
    assert f"VLLM_API_KEY={key}".encode() in (process / "environ").read_bytes().split(b"\0")
    assert key.encode() not in (process / "cmdline").read_bytes()
    assert key not in box.out + box.err


# ---- the path-preservation prompt

HELLO = [{"role": "user", "content": "hello"}]
PROMPTED = [
    (CHAT, {"messages": HELLO}, "messages"),
    ("/v1/responses", {"input": "hello"}, "instructions"),
    ("/v1/messages", {"messages": HELLO, "max_tokens": 5}, "system"),
    ("/v1/messages/count_tokens", {"messages": HELLO}, "system"),
    ("/tokenize", {"messages": HELLO}, "messages"),
]


def prompted(value: Any) -> bool:
    """Tell whether a field's value starts with the policy's text."""
    if isinstance(value, list) and value and "role" in value[0]:
        return value[0]["role"] == "system" and prompted(value[0]["content"])
    if isinstance(value, list):
        return bool(value) and prompted(value[0]["text"])
    return isinstance(value, str) and value.startswith(POLICY)


@pytest.mark.parametrize(("path", "body", "field"), PROMPTED, ids=[row[0] for row in PROMPTED])
def test_the_prompt_goes_first_and_a_header_leaves_it_out(
    box: ApplianceProcess, path: str, body: dict[str, Any], field: str
) -> None:
    body = {"model": MODEL, **body}
    with box.http() as client:
        assert client.post(path, json=body).status_code == 200
        off = client.post(path, json=body, headers={"x-appliance-prompt": "off"})
        assert off.status_code == 200
    first, second = (request["body"] for request in box.fake.requests(path))
    assert prompted(first[field])
    assert second == body


def test_the_prompt_joins_the_clients_own_system_message(box: ApplianceProcess) -> None:
    system = {"role": "system", "content": "Be brief."}
    with box.http() as client:
        client.post(CHAT, json={"messages": [system, *HELLO]})
        client.post("/v1/responses", json={"input": "hello", "instructions": "Be brief."})
        own = [{"type": "text", "text": "Be brief."}]
        client.post("/v1/messages", json={"messages": HELLO, "max_tokens": 5, "system": own})
    chat, responses, messages = (
        box.fake.requests(path)[0]["body"] for path in (CHAT, "/v1/responses", "/v1/messages")
    )
    folded = f"{POLICY}\n\nBe brief."
    assert chat["messages"] == [{"role": "system", "content": folded}, *HELLO]
    assert responses["instructions"] == folded
    assert prompted(messages["system"])
    assert messages["system"][1:] == own


@pytest.mark.parametrize(
    ("path", "body"), [("/tokenize", {"prompt": "hello"}), ("/v1/completions", {"prompt": "hello"})]
)
def test_a_bare_prompt_is_left_as_it_is(
    box: ApplianceProcess, path: str, body: dict[str, Any]
) -> None:
    body = {"model": MODEL, **body}
    with box.http() as client:
        assert client.post(path, json=body).status_code == 200
    assert box.fake.requests(path)[0]["body"] == body


def test_an_unknown_word_in_the_prompt_header_is_refused(box: ApplianceProcess) -> None:
    with box.http() as client:
        reply = client.post(CHAT, json=ASKED, headers={"x-appliance-prompt": "maybe"})
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "bad_header"
    assert box.fake.requests(CHAT) == []


async def test_a_setting_leaves_the_prompt_out_and_a_file_replaces_it(
    start: StartAppliance, tmp_path: Path
) -> None:
    off = await start(prompt_injection="off")
    await off.ask()
    assert off.fake.requests(CHAT)[-1]["body"] == ASKED
    other = tmp_path / "prompt.txt"
    other.write_text("Mind the paths.\n")
    own = await start(prompt_file=other)
    await own.ask()
    assert own.fake.requests(CHAT)[-1]["body"]["messages"][0]["content"] == "Mind the paths."
    assert await own.metric("appliance_prompt_injected_total", route=CHAT) == 1


async def test_a_large_body_arrives_whole(start: StartAppliance) -> None:
    box = await start()
    unknown = {"metadata": {"note": "x" * 3_000_000}}
    assert (await box.ask(**unknown)).status_code == 200
    assert box.fake.requests(CHAT)[-1]["body"]["metadata"] == unknown["metadata"]
