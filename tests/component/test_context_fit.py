"""Limits that do not fit are made to, and prompts that do not are refused before anything else."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests import engines
from tests.appliances import ASKED, CHAT, ApplianceProcess, metric, running_process
from tests.component.test_engine_replies import as_json
from tests.engines import MODEL
from tests.relays import ANSWER, Box, Mortal, front

SERVED = 2048
WORD = "word "
LONG = WORD * SERVED  # more tokens than the context has


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApplianceProcess]:
    """Run an appliance whose context is small."""
    folder = tmp_path_factory.mktemp("small")
    with running_process(folder, max_model_len=SERVED) as appliance:
        engines.shared_groups.add(appliance.process.pid)
        appliance.until("ready")
        yield appliance
    engines.shared_groups.discard(appliance.process.pid)


@pytest.fixture
def box(small: ApplianceProcess) -> ApplianceProcess:
    """It, with its engine's records empty."""
    assert small.status()["max_model_len"] == SERVED
    small.fake.forget()
    return small


def counted(box: ApplianceProcess, body: dict[str, Any]) -> int:
    with box.http() as client:
        count = client.post("/tokenize", json=body).json()["count"]
    assert isinstance(count, int)
    return count


def sent(box: ApplianceProcess, path: str = CHAT) -> dict[str, Any]:
    """Return the one body that the engine got."""
    (request,) = box.fake.requests(path)
    body = request["body"]
    return dict(json.loads(body) if isinstance(body, str) else body)


def total(box: ApplianceProcess, name: str, **labels: str) -> float:
    with box.http() as client:
        return metric(client.get("/metrics").text, f"appliance_{name}_total", **labels)


@pytest.mark.parametrize(
    ("path", "name", "body"),
    [
        (CHAT, "max_tokens", ASKED),
        (CHAT, "max_completion_tokens", ASKED),
        ("/v1/responses", "max_output_tokens", {"input": "hi"}),
    ],
)
def test_a_limit_of_half_the_context_or_more_does_not_reach_the_engine(
    box: ApplianceProcess, path: str, name: str, body: dict[str, Any]
) -> None:
    before = total(box, "clamps", kind="removed")
    with box.http() as client:
        assert client.post(path, json={**body, name: 1_000_000}).status_code == 200
        assert client.post(path, json={**body, name: SERVED // 2}).status_code == 200
    bodies = [request["body"] for request in box.fake.requests(path)]
    assert not any(name in json.dumps(one) for one in bodies)
    assert total(box, "clamps", kind="removed") == before + 2


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/messages"])
def test_a_limit_that_must_stand_becomes_what_the_context_has(
    box: ApplianceProcess, path: str
) -> None:
    asked = {"prompt": "hi"} if path == "/v1/completions" else {"messages": ASKED["messages"]}
    with box.http() as client:
        reply = client.post(path, json={**asked, "model": MODEL, "max_tokens": 1_000_000})
    assert reply.status_code == 200
    # completions are counted: it is what their prompt leaves
    assert SERVED - 10 < sent(box, path)["max_tokens"] <= SERVED


def test_a_small_limit_that_fits_arrives_as_it_is(box: ApplianceProcess) -> None:
    with box.http() as client:
        assert client.post(CHAT, json={**ASKED, "max_tokens": 7}).status_code == 200
    assert sent(box)["max_tokens"] == 7


def test_a_limit_that_does_not_fit_becomes_what_is_left(box: ApplianceProcess) -> None:
    before = total(box, "clamps", kind="lowered")
    asked = {"model": MODEL, "messages": [{"role": "user", "content": WORD * 1200}]}
    tokens = counted(box, asked)
    limit = SERVED // 2 - 1
    assert 0 < SERVED - tokens < limit
    with box.http() as client:
        reply = client.post(CHAT, json={**asked, "max_tokens": limit})
    assert reply.status_code == 200
    assert sent(box)["max_tokens"] == SERVED - tokens
    assert total(box, "clamps", kind="lowered") == before + 1


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_prompt_that_does_not_fit_is_refused_and_never_reaches_the_engine(
    box: ApplianceProcess, is_streamed: bool
) -> None:
    before = total(box, "context_refusals", route=CHAT)
    asked = {"model": MODEL, "messages": [{"role": "user", "content": LONG}]}
    with box.http() as client:
        reply = client.post(CHAT, json={**asked, "stream": is_streamed, "max_tokens": 32_000})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert f"maximum context length is {SERVED} tokens" in error["message"]
    assert box.fake.requests(CHAT) == []
    assert total(box, "context_refusals", route=CHAT) == before + 1


def test_where_we_do_not_count_the_engines_own_refusal_has_the_same_code(
    box: ApplianceProcess,
) -> None:
    with box.http() as client:
        reply = client.post("/v1/responses", json={"model": MODEL, "input": LONG})
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "context_length_exceeded"


# ---- before the queue, and after it


@dataclass
class Counting(Mortal):
    """An engine that counts each prompt as so many tokens; 0: it does not say."""

    count: int = 0

    def answer(self, path: str) -> bytes:
        """Answer as told."""
        if path != "/tokenize":
            return super().answer(path)
        self.asked.append(path)
        return as_json({"count": self.count} if self.count else {})


@asynccontextmanager
async def counting(count: int) -> AsyncIterator[Box]:
    async with front(head_after_s=0.02, keepalive_s=0.02) as box:
        await box.engine.end()
        box.engine = await Counting(reply=ANSWER, count=count).listen()
        box.max_model_len = 1000
        yield box


LONG_CHAT = [{"role": "user", "content": "x" * 2000}]


async def test_while_the_engine_is_ready_a_long_prompt_does_not_wait_for_a_place() -> None:
    async with counting(1001) as box:
        box.gate.open()
        with box.gate.enter() as other:
            assert other.has_place
            heard = await box.stream(messages=LONG_CHAT)
            whole = await box.whole(messages=LONG_CHAT)
        assert (heard.status, whole.status_code) == (400, 400)
        assert b"context_length_exceeded" in heard.body
        assert CHAT not in box.engine.asked


async def test_after_a_200_of_ours_a_long_prompt_breaks_the_connection() -> None:
    async with counting(1001) as box:
        waiting = box.stream(messages=LONG_CHAT)
        await box.beaten(1)
        box.gate.open()
        heard = await waiting
        assert heard.status == 200
        assert not heard.ended_well
        assert b"[DONE]" not in heard.body
        again = await box.stream(messages=LONG_CHAT)
        assert again.status == 400


async def test_a_message_too_long_is_refused_before_the_queue_as_its_clients_read_it(
    box: ApplianceProcess,
) -> None:
    body = {"model": MODEL, "max_tokens": 9, "system": LONG, "messages": ASKED["messages"]}
    with box.http() as client:
        reply = client.post("/v1/messages", json=body)
    assert reply.status_code == 400
    assert reply.json()["type"] == "error"
    assert f"> {SERVED} maximum" in reply.json()["error"]["message"]
    assert box.fake.requests("/v1/messages") == []
    (asked,) = box.fake.requests("/v1/messages/count_tokens")
    assert "max_tokens" not in asked["body"]


async def test_an_engine_that_cannot_count_decides_for_itself() -> None:
    async with counting(0) as box:
        box.gate.open()
        assert (await box.stream(messages=LONG_CHAT)).status == 200
        assert box.engine.asked == ["/tokenize", CHAT]


async def test_what_surely_fits_is_not_counted() -> None:
    async with counting(1001) as box:
        box.gate.open()
        said = [{"role": "user", "content": "x" * 200}]
        assert (await box.stream(messages=said)).status == 200
        assert box.engine.asked == [CHAT]
        assert (await box.stream(messages=said, max_tokens=400)).status == 400
        assert box.engine.asked == [CHAT, "/tokenize"]
