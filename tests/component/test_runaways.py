"""Runaway streams through a whole appliance: the client hears an end, the engine is freed."""

import json

import pytest

from appliance.sse import event_data, split_events
from tests.appliance_tasks import StartAppliance
from tests.appliances import CHAT, attached_to
from tests.component.test_engine_replies import DONE, Script, chunked, read, scripted

LOOP = (
    b'data: {"id":"chat-1","object":"chat.completion.chunk","created":7,"model":"Nikola",'
    b'"choices":[{"index":0,"delta":{"%b":"and again "},"logprobs":null,"finish_reason":null}]}\n\n'
)
PIECES = 2_000


def looping(engine: Script, name: bytes, *, end: bool) -> None:
    """Let the engine say the same for long; without an end its stream would be torn."""
    pieces = [LOOP % name] * PIECES
    engine.reply = chunked(*pieces, *([DONE] if end else []), end=end)


@pytest.mark.parametrize("name", [b"content", b"reasoning"])
async def test_a_loop_ends_with_length_and_is_counted(start: StartAppliance, name: bytes) -> None:
    async with scripted() as engine:
        box = await start(**attached_to(engine.url, "key"))
        looping(engine, name, end=False)
        body, ended_well = await read(box)
        assert ended_well
        *_, last, done = split_events(body)
        assert json.loads(event_data(last))["choices"][0]["finish_reason"] == "length"
        assert done == DONE
        assert await box.metric("appliance_runaways_total", kind="loop") == 1
        assert await box.metric("appliance_requests_running") == 0
        assert await box.metric("appliance_responses_total", route=CHAT, code="200") == 1
        assert await box.metric("appliance_response_body_bytes_total") >= len(body)
        await box.end()


async def test_a_thought_without_end_is_ended_if_it_has_a_budget(start: StartAppliance) -> None:
    async with scripted() as engine:
        settings = attached_to(engine.url, "key", runaway_repeats=0, thinking_budget=300)
        box = await start(**settings)
        looping(engine, b"reasoning", end=False)
        body, ended_well = await read(box)
        assert ended_well
        assert b'"finish_reason":"length"' in body
        assert await box.metric("appliance_runaways_total", kind="thinking") == 1
        await box.end()


async def test_without_limits_a_stream_says_what_it_likes(start: StartAppliance) -> None:
    async with scripted() as engine:
        box = await start(**attached_to(engine.url, "key", runaway_repeats=0))
        looping(engine, b"content", end=True)
        body, ended_well = await read(box)
        assert ended_well
        assert body.count(b"and again") == PIECES
        await box.end()
