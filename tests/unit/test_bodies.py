"""A body is taken from its bytes to those of the engine; a long one keeps nobody waiting."""

import asyncio
import json
from typing import Any, cast

import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from appliance.bodies import Bodies
from appliance.draft import Draft
from appliance.engine import Engine, Snapshot
from appliance.errors import RequestError
from appliance.exchange import Exchange
from appliance.media import MediaPolicy
from appliance.metrics import Metrics
from appliance.openai import INJECTION_HEADER, ROUTES, RelayRoute
from appliance.prompt import PromptPolicy
from appliance.restart import Reason
from appliance.seen import LEAST_BYTES
from tests.appliances import CHAT, metric

POLICY = PromptPolicy("Keep names.")
OFF = PromptPolicy("")
SYSTEM = {"role": "system", "content": "Be kind."}
TURN = {"role": "user", "content": 'say "é\n" ' * 2000}


def route(path: str) -> RelayRoute:
    return next(one for one in ROUTES if one.path == path)


def bodies(metrics: Metrics | None = None, **more: Any) -> Bodies:
    chosen = {"served_model": "Nikola", "max_body_bytes": 2**24, **more}
    return Bodies(POLICY, metrics or Metrics(), **chosen)


async def take(
    taker: Bodies, body: bytes, path: str = CHAT, headers: dict[str, str] | None = None
) -> tuple[Draft, Exchange]:
    exchange = Exchange(route(path), Headers(headers or {}), "req-1")
    parts = [body[at : at + 65_536] for at in range(0, len(body), 65_536)] or [b""]

    async def receive() -> Message:
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    return await taker.take(exchange, receive), exchange


def chat(turns: int, ascii_only: bool = False, **more: Any) -> bytes:
    fields = {"model": "Nikola", "messages": [SYSTEM, *[TURN] * turns], "stream": True, **more}
    return json.dumps(fields, ensure_ascii=ascii_only).encode()


def meant(body: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(body)
    return {**fields, "messages": POLICY.apply_to_messages(fields["messages"])}


@pytest.mark.parametrize("ascii_only", [True, False])
async def test_a_conversation_arrives_the_same_the_first_time_and_each_time_after(
    ascii_only: bool,
) -> None:
    taker = bodies()
    for turns in (4, 4, 5, 12, 13, 2, 13):
        body = chat(turns, ascii_only, max_tokens=turns)
        assert turns == 2 or len(body) > LEAST_BYTES
        draft, exchange = await take(taker, body)
        assert json.loads(draft.encode()) == meant(body)
        assert exchange.streaming


async def test_a_draft_that_is_let_go_of_holds_nothing_of_the_body() -> None:
    draft, _ = await take(bodies(), chat(12))
    assert draft.size > LEAST_BYTES
    draft.let_go()
    assert draft.size == 0


async def test_what_is_wrong_behind_a_known_beginning_is_refused_as_ever() -> None:
    taker = bodies()
    body = chat(5)
    await take(taker, body)
    end = body.rindex(b"]")
    for broken in (
        body[:-1],
        body[:end],
        body[:end] + b", 7x]}",
        body[:end] + b', {"role": "user", "content": "\xff"}]}',
        body + b"}",
    ):
        with pytest.raises(RequestError) as caught:
            await take(taker, broken)
        assert caught.value.code == "invalid_json"
    for more, code in (
        (b', {"role": "user", "content": 7}]}', "invalid_messages"),
        (b', {"role": "user", "content": [{"type": "image"}]}]}', "unsupported_content"),
    ):
        with pytest.raises(RequestError) as caught:
            await take(taker, body[:end] + more)
        assert caught.value.code == code


async def test_with_the_prompt_switched_off_a_known_conversation_has_none() -> None:
    taker = bodies()
    body = chat(5)
    off = {INJECTION_HEADER: "off"}
    for headers in ({}, off, {}, off):
        draft, _ = await take(taker, body, headers=headers)
        assert json.loads(draft.encode()) == (json.loads(body) if headers else meant(body))


async def test_a_long_body_gives_others_their_turn_between_its_steps() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await asyncio.sleep(0)
    before = turns
    await take(bodies(), chat(80))
    assert turns - before >= 5  # three pieces of text, the fields, the messages
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_repairs_refusals_and_prompts_are_counted() -> None:
    metrics = Metrics()
    taker = bodies(metrics)
    null = {"messages": [{"role": "user", "content": None}], "model": "Nikola"}
    await take(taker, json.dumps(null).encode())
    image = {"messages": [{"role": "user", "content": [{"type": "image"}]}]}
    with pytest.raises(RequestError):
        await take(taker, json.dumps(image).encode())
    text = metrics.text().decode()
    assert metric(text, "appliance_history_repairs_total", kind="content") == 1
    assert metric(text, "appliance_media_refusals_total") == 1
    assert metric(text, "appliance_prompt_injected_total", route=CHAT) == 1


async def test_media_pass_where_the_model_reads_them() -> None:
    taker = bodies(media=MediaPolicy(is_read=True))
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = {"model": "Nikola", "messages": [SYSTEM, {"role": "user", "content": [part]}]}
    draft, _ = await take(taker, json.dumps(body).encode())
    assert draft.value("messages")[1] == body["messages"][1]


async def test_reading_goes_by_get_without_a_body() -> None:
    draft, exchange = await take(bodies(), b"", "/v1/models")
    assert await bodies().fit(exchange, draft, cast(Engine, Nobody())) == b""


class Nobody:
    """An engine that is only looked at."""

    snapshot = Snapshot("ready", Reason("ready"), 0.0)
