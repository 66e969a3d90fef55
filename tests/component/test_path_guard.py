"""The guard of paths over real sockets: counted, mended or left alone, as mode and header say."""

import asyncio
import json
from collections.abc import Generator
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from appliance.admission import Gate
from appliance.exchange import Exchange
from appliance.openai import GUARD_HEADER
from appliance.openai import ROUTES as ROUTES_OF_THE_RELAY
from appliance.pathhistory import Reader
from appliance.pathledger import Ledger
from appliance.pathrepair import Mode
from appliance.pathwatch import PathWatch
from tests.component.test_engine_replies import chunked, plain
from tests.engines import MODEL
from tests.pathevents import CHAT, MESSAGES, ROUTES, arguments, reply, stream
from tests.relays import Box, Mortal, front

GLITCHED = "src/components/Butt on. tsx"
MEANT = "src/components/Button.tsx"
CALLS = [("read_file", ['{"pa', 'th": "src/comp', 'onents/Butt on. tsx"', "}"])]
LIST = {"name": "list_files", "arguments": '{"path": "."}'}


def asked(route: str, **more: Any) -> dict[str, Any]:
    """Return a request whose conversation has listed the file that is meant."""
    listed = f"src/components/Input.tsx\n{MEANT}\ndocs/Notes.md"
    if route == CHAT:
        call = {"id": "1", "type": "function", "function": LIST}
        said = [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": listed},
        ]
        tools: list[dict[str, Any]] = [
            {"type": "function", "function": {"name": "read_file", "parameters": {}}}
        ]
    elif route == MESSAGES:
        block = {"type": "tool_use", "id": "1", "name": "list_files", "input": {"path": "."}}
        result = {"type": "tool_result", "tool_use_id": "1", "content": listed}
        said = [{"role": "assistant", "content": [block]}, {"role": "user", "content": [result]}]
        tools = [{"name": "read_file", "input_schema": {}}]
    else:
        items = [
            {"type": "function_call", "call_id": "1", **LIST},
            {"type": "function_call_output", "call_id": "1", "output": listed},
        ]
        return {"model": MODEL, "input": items, "tools": [{"name": "read_file"}], **more}
    return {"model": MODEL, "messages": said, "tools": tools, **more}


def engine(route: str, *, streams: bool) -> Mortal:
    if streams:
        return Mortal(reply=chunked(*stream(route, CALLS)))
    return Mortal(reply=plain("200 OK", reply(route, [("read_file", {"path": GLITCHED})])))


async def answered(box: Box, route: str, mode: str = "", **more: Any) -> bytes:
    headers = {GUARD_HEADER: mode} if mode else {}
    told = await box.client.post(route, json=asked(route, **more), headers=headers)
    assert told.status_code == 200, told.text
    return told.content


def open_gate() -> Gate:
    gate = Gate(4, 4)
    gate.open()
    return gate


@pytest.mark.parametrize("route", ROUTES)
async def test_a_stream_is_mended_in_repair(route: str) -> None:
    async with front(open_gate(), engine=engine(route, streams=True)) as box:
        told = await answered(box, route, "repair", stream=True)
        assert [json.loads(one) for one in arguments(route, [told])] == [{"path": MEANT}]
        assert b'"unglitched":{"paths_mended":1}' in told
        assert box.count("path_glitches", kind="inserted_space", action="mended") == 1


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("route", ROUTES)
async def test_observe_counts_and_touches_nothing(route: str, streams: bool) -> None:
    async with front(
        open_gate(), engine=engine(route, streams=streams), path_mode=Mode.OBSERVE
    ) as box:
        told = await answered(box, route, stream=streams)
        want = b"".join(stream(route, CALLS))
        assert told == (want if streams else reply(route, [("read_file", {"path": GLITCHED})]))

        def is_counted() -> bool:
            return box.count("path_glitches", kind="inserted_space", action="observed") == 1

        await box.sees(is_counted, "the glitch to be counted")


@pytest.mark.parametrize("route", ROUTES)
async def test_off_passes_every_byte_and_counts_nothing(route: str) -> None:
    async with front(open_gate(), engine=engine(route, streams=True), path_mode=Mode.REPAIR) as box:
        told = await answered(box, route, "off", stream=True)
        assert told == b"".join(stream(route, CALLS))
        assert "path_glitches_total{" not in box.metrics.text().decode()


@pytest.mark.parametrize("route", ROUTES)
async def test_a_whole_reply_is_mended_too(route: str) -> None:
    async with front(
        open_gate(), engine=engine(route, streams=False), path_mode=Mode.REPAIR
    ) as box:
        told = json.loads(await answered(box, route))
        assert told["unglitched"] == {"paths_mended": 1}
        assert MEANT in json.dumps(told)
        assert GLITCHED not in json.dumps(told)


async def test_a_mode_that_does_not_exist_is_refused_with_those_that_do() -> None:
    async with front(open_gate()) as box:
        told = await box.client.post(CHAT, json=asked(CHAT), headers={GUARD_HEADER: "fix"})
        assert told.status_code == 400
        assert "'fix' is none of off, observe, repair" in told.json()["error"]["message"]


async def test_the_log_tells_the_kind_and_not_the_path() -> None:
    async with front(open_gate(), engine=engine(CHAT, streams=True)) as box:
        with capture_logs() as lines:
            await answered(box, CHAT, "repair", stream=True)
        (found,) = [line for line in lines if line["event"] == "path.glitch"]
        assert found["kind"] == "inserted_space"
        assert found["action"] == "mended"
        assert "Butt" not in json.dumps(lines)


async def test_a_client_that_leaves_while_a_value_is_held_leaves_nothing_behind() -> None:
    events = stream(CHAT, CALLS)
    held = Mortal(reply=chunked(*events[:5], end=False))
    async with front(open_gate(), engine=held) as box:
        with pytest.raises(httpx.RemoteProtocolError):
            await answered(box, CHAT, "repair", stream=True)
        await box.runs(0)


async def test_a_guard_that_fails_lets_everything_pass_as_it_came() -> None:
    class Broken(Reader):
        def read(self, body: bytes) -> Generator[None, None, Ledger]:
            yield
            raise RuntimeError(body.decode())

    (route,) = (route for route in ROUTES_OF_THE_RELAY if route.path == CHAT)
    exchange = Exchange(route, {}, "mine", path_mode=Mode.REPAIR, body=b"a secret prompt")
    watch = PathWatch(exchange, Broken(lambda: 0.0), lambda _judged: None)
    released: list[bytes] = []
    watch.release = released.append
    events = stream(CHAT, CALLS)
    with capture_logs() as lines:
        passed = [watch.apply(event) for event in events]
        rest = await watch.rest()
        await asyncio.sleep(0)
    assert b"".join([*passed, *released, rest]) == b"".join(events)
    assert [line["event"] for line in lines] == ["path.guard_failed"]
    assert "secret" not in json.dumps(lines)
