"""What a request made is freed when it ends, without the garbage collector: a body is megabytes."""

import gc
import json
from collections.abc import Iterator
from typing import Any

import pytest

from appliance.admission import Gate
from appliance.draft import Draft
from appliance.exchange import Exchange
from appliance.openai import GUARD_HEADER
from appliance.pathwatch import PathWatch
from appliance.stream import Stream
from tests.appliances import CHAT
from tests.component.test_engine_replies import chunked, plain
from tests.engines import MODEL
from tests.pathevents import reply, stream
from tests.relays import ANSWER, Box, Mortal, front

CALLS = [("read_file", ['{"path": "src/a b.ts"}'])]
REPLIES = {
    "text": ANSWER,
    "a call": chunked(*stream(CHAT, CALLS)),
    "whole": plain("200 OK", reply(CHAT, [("read_file", {"path": "src/a b.ts"})])),
    "an error": plain("400 Bad Request", b'{"error": {"message": "no"}}'),
}


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive() -> list[Any]:
    kinds = (Exchange, Draft, Stream, PathWatch)
    return [one for one in gc.get_objects() if isinstance(one, kinds)]


async def asked(box: Box, mode: str) -> None:
    said = [{"role": "user", "content": "see src/a.ts"}]
    body = json.dumps({"model": MODEL, "messages": said, "stream": True})
    headers = {GUARD_HEADER: mode, "content-type": "application/json"}
    await box.client.post(CHAT, content=body, headers=headers)


@pytest.mark.parametrize("mode", ["off", "observe", "repair"])
@pytest.mark.parametrize("name", REPLIES)
async def test_nothing_of_a_request_waits_for_the_garbage_collector(name: str, mode: str) -> None:
    gate = Gate(4, 4)
    gate.open()
    async with front(gate, engine=Mortal(reply=REPLIES[name])) as box:
        for _ in range(3):
            await asked(box, mode)
        await box.runs(0)
        await box.sees(lambda: not alive(), "all of them to be freed")
