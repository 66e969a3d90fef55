"""What clients hear while the engine is not there: the relay alone, over an engine of bytes.

The gate is the test's own, so that each moment of a start, a stop or a death can be held.
"""

import asyncio
from typing import Any

import pytest

from appliance.admission import Gate
from appliance.errors import EngineFailed
from appliance.relay import DYING_S
from tests.appliances import CHAT, WITHIN_S
from tests.component.test_engine_replies import DONE, PIECE, chunked, plain
from tests.relays import KEEP_ALIVES, MESSAGES, NEVER, SOON, Box, front, reborn

TOO_LONG = plain("400 Bad Request", b'{"error":{"message":"too long","type":"t","code":400}}')


def refuse(gate: Gate) -> None:
    gate.refuse(lambda: EngineFailed("the engine is failed", "appliance reset"))


# ---- a stream that waits


@pytest.mark.parametrize("path", KEEP_ALIVES)
async def test_a_stream_that_waits_gets_its_head_and_keep_alives_and_then_its_answer(
    path: str,
) -> None:
    async with front() as box:
        asked = box.stream(path)
        await box.beaten(3)
        assert box.engine.asked == []
        box.gate.open()
        heard = await asked
        assert heard.headers["content-type"].startswith("text/event-stream")
        assert heard.headers["x-accel-buffering"] == "no"
        assert heard.headers["x-request-id"] == "mine"
        assert heard.said(path).endswith(DONE)
        assert heard.ended_well
        assert heard.body.count(KEEP_ALIVES[path]) == box.beats
        assert box.count("requests", route=path, outcome="ok") == 1


async def test_a_stream_hears_keep_alives_before_a_full_house_too() -> None:
    async with front() as box:
        box.gate.open()
        with box.gate.enter():
            asked = box.stream()
            await box.beaten(2)
        assert (await asked).said().endswith(DONE)


async def test_keep_alives_keep_their_distance() -> None:
    async with front(head_after_s=0.01, keepalive_s=600, whole_wait_s=0.1) as box:
        asked = box.stream()
        await box.beaten(1)
        assert (await box.whole()).status_code == 503  # its whole wait has gone by
        assert box.beats == 1
        box.gate.open()
        assert (await asked).said().endswith(DONE)


async def test_a_short_wait_is_not_heard() -> None:
    async with front(**NEVER) as box:
        asked = box.stream()
        await box.waits(1)
        box.gate.open()
        heard = await asked
        assert heard.body.startswith(b"data: ")
        assert box.beats == 0


async def test_a_refusal_before_the_head_is_an_ordinary_error() -> None:
    async with front(**NEVER) as box:
        asked = box.stream()
        await box.waits(1)
        refuse(box.gate)
        heard = await asked
        assert heard.status == 503
        assert b"engine_failed" in heard.body


async def test_a_wait_that_ends_before_the_head_is_an_ordinary_503() -> None:
    async with front(**NEVER, admit_wait_s=0.05) as box:
        box.expected_s = 100
        heard = await box.stream()
        assert heard.status == 503
        assert b"queue_timeout" in heard.body
        assert heard.headers["retry-after"] == "100"


@pytest.mark.parametrize("path", KEEP_ALIVES)
async def test_a_refusal_after_the_head_breaks_the_connection(path: str) -> None:
    async with front() as box:
        asked = box.stream(path)
        await box.beaten(1)
        refuse(box.gate)
        heard = await asked
        assert heard.said(path) == b""
        assert not heard.ended_well
        assert box.count("requests", route=path, outcome="broken") == 1


async def test_a_wait_that_ends_after_the_head_breaks_the_connection() -> None:
    async with front(admit_wait_s=0.2) as box:
        heard = await box.stream()
        assert heard.said() == b""
        assert not heard.ended_well


async def test_a_stream_waits_longer_than_a_whole_reply_may() -> None:
    async with front(whole_wait_s=0.01, queue_timeout_s=0.01, admit_wait_s=WITHIN_S) as box:
        asked = box.stream()
        await box.beaten(3)
        box.gate.open()
        assert (await asked).said().endswith(DONE)


async def test_one_too_many_gets_its_429_and_no_200() -> None:
    async with front(Gate(1, 1)) as box:
        first = box.stream()
        await box.beaten(1)
        heard = await box.stream()
        assert heard.status == 429
        assert int(heard.headers["retry-after"]) > 0
        box.gate.open()
        assert (await first).ended_well


async def test_a_request_that_is_wrong_is_told_before_any_200() -> None:
    async with front() as box:
        assert (await box.stream(model="other")).status == 404
        assert box.beats == 0


async def test_no_restart_loses_a_request_that_waits() -> None:
    async with front(Gate(2, 64)) as box:
        crowd = [box.stream() for _ in range(16)]
        await box.waits(16)
        await box.beaten(16)
        for _ in range(3):
            box.gate.open()
            box.gate.hold()
        await box.beaten(48)
        box.gate.open()
        for heard in await asyncio.gather(*crowd):
            assert heard.said().endswith(DONE)
            assert heard.ended_well


# ---- the engine's answer to a stream that has begun


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_lasting_error_breaks_a_begun_stream_and_the_next_try_gets_its_status(
    path: str,
) -> None:
    async with front() as box:
        box.engine.reply = TOO_LONG
        asked = box.stream(path)
        await box.beaten(1)
        box.gate.open()
        heard = await asked
        assert not heard.ended_well
        assert heard.said(path) == b""
        assert box.count("requests", route=path, outcome="broken") == 1
        again = await box.stream(path)
        assert again.status == 400
        assert b"too long" in again.body
        assert box.count("requests", route=path, outcome="refused") == 1


async def test_a_lasting_error_before_the_head_keeps_its_status() -> None:
    async with front(**NEVER) as box:
        box.engine.reply = TOO_LONG
        box.gate.open()
        assert (await box.stream()).status == 400


@pytest.mark.parametrize(
    "reply",
    [
        plain("500 Internal Server Error", b""),
        plain("503 Service Unavailable", b"{}"),
        plain("429 Too Many Requests", b"{}"),
        plain("200 OK", b'{"choices":[]}'),
        plain("401 Unauthorized", b"{}"),
        TOO_LONG[:-1],
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        chunked(PIECE, end=False),
    ],
    ids=["500", "503", "429", "no stream", "key", "half", "nothing", "other protocol", "torn"],
)
async def test_a_passing_fault_breaks_off_a_begun_stream(reply: bytes) -> None:
    async with front() as box:
        box.engine.reply = reply
        asked = box.stream()
        await box.beaten(1)
        box.gate.open()
        heard = await asked
        assert not heard.ended_well
        assert DONE not in heard.said()
        assert box.count("requests", route=CHAT, outcome="broken") == 1


# ---- an engine that dies between the gate and its head


def fallen(box: Box, how: str) -> None:
    """Make the engine one that dies under whoever comes, and open the gate to it."""
    if how == "refused":
        box.engine.die()
    box.engine.reply, box.engine.health = b"", "503 Service Unavailable"
    box.gate.open()


@pytest.mark.parametrize("how", ["refused", "reset"])
@pytest.mark.parametrize("waits", [SOON, NEVER], ids=["heard", "unheard"])
async def test_a_stream_whose_engine_dies_before_its_head_waits_for_the_next(
    how: str, waits: dict[str, Any]
) -> None:
    async with front(**waits) as box:
        fallen(box, how)
        asked = box.stream()
        if waits is SOON:
            await box.beaten(1)
        else:
            await box.runs(1)
        box.gate.hold()
        await box.waits(1)
        engine = await reborn(box)
        box.gate.open()
        heard = await asked
        assert (heard.status, heard.ended_well) == (200, True)
        assert heard.body.endswith(DONE)
        assert engine.asked == [CHAT]


async def test_who_went_back_passes_before_who_came_later() -> None:
    async with front() as box:
        fallen(box, "refused")
        first = box.stream()
        await box.runs(1)
        later = box.stream("/v1/completions")
        await box.waits(1)
        box.gate.hold()
        await box.waits(2)
        engine = await reborn(box)
        box.gate.open()
        assert all(heard.ended_well for heard in await asyncio.gather(first, later))
        assert engine.asked == [CHAT, "/v1/completions"]


@pytest.mark.parametrize(("waits", "status"), [(SOON, 200), (NEVER, 502)])
async def test_a_stream_goes_back_no_more_than_once(waits: dict[str, Any], status: int) -> None:
    async with front(**waits) as box:
        fallen(box, "refused")
        asked = box.stream()
        await box.runs(1)
        box.gate.hold()
        await box.waits(1)
        if waits is SOON:
            await box.beaten(1)
        await reborn(box)
        fallen(box, "reset")
        heard = await asked
        assert heard.status == status
        assert heard.ended_well is (status == 502)
        assert DONE not in heard.body


async def test_a_stream_whose_engine_dies_for_good_is_told_so() -> None:
    async with front(**NEVER) as box:
        fallen(box, "refused")
        asked = box.stream()
        await box.runs(1)
        refuse(box.gate)
        heard = await asked
        assert heard.status == 503
        assert b"engine_failed" in heard.body


async def test_a_living_engine_is_not_waited_for() -> None:
    async with front(**NEVER) as box:
        box.engine.reply = b""
        box.gate.open()
        async with asyncio.timeout(DYING_S / 2):
            heard = await box.stream()
        assert heard.status == 502
        assert box.engine.asked == [CHAT]


@pytest.mark.parametrize(("how", "status"), [("refused", 503), ("reset", 502)])
async def test_a_whole_reply_whose_engine_dies_is_told_when_to_come_again(
    how: str, status: int
) -> None:
    async with front() as box:
        box.expected_s = 120
        fallen(box, how)
        reply = await box.whole()
        assert reply.status_code == status
        assert reply.headers["retry-after"] == "120"


# ---- a whole reply that waits


async def test_a_whole_reply_waits_for_an_engine_no_longer_than_its_client_bears() -> None:
    async with front(whole_wait_s=0.05) as box:
        box.expected_s = 480
        reply = await box.whole()
        assert reply.status_code == 503
        assert reply.headers["retry-after"] == "240"
        assert reply.json()["error"]["code"] == "queue_timeout"
        assert "the engine was not ready" in reply.json()["error"]["message"]


async def test_a_whole_reply_waits_longer_for_a_place_than_for_an_engine() -> None:
    async with front(whole_wait_s=0.01) as box:
        box.gate.open()
        with box.gate.enter():
            asked, beside = box.whole(), box.stream()
            await box.beaten(3)  # many times the wait for an engine has passed
            assert not asked.done()
        assert (await asked).status_code == 200
        assert (await beside).ended_well


async def test_the_wait_for_an_engine_counts_from_its_going() -> None:
    async with front(whole_wait_s=0.05) as box:
        box.gate.open()
        with box.gate.enter():
            asked = box.whole()
            await box.waits(1)
            box.gate.hold()
            assert (await asked).status_code == 503


async def test_a_whole_reply_that_an_engine_comes_for_is_given() -> None:
    async with front() as box:
        asked = box.whole()
        await box.waits(1)
        box.gate.open()
        assert (await asked).status_code == 200


# ---- leaving


@pytest.mark.parametrize("waits", [SOON, NEVER], ids=["after the head", "before the head"])
async def test_a_client_that_leaves_the_queue_frees_its_turn(waits: dict[str, Any]) -> None:
    async with front(Gate(1, 1), **waits) as box:
        asked = box.stream()
        await box.waits(1)
        if waits is SOON:
            await box.beaten(1)
        asked.cancel()
        await box.waits(0)
        assert box.count("hang_ups", window="queue") == 1
        after = box.stream()
        await box.waits(1)
        box.gate.open()
        assert (await after).ended_well
        assert box.engine.asked == [CHAT]


async def test_a_client_that_leaves_while_its_engine_dies_is_gone_too() -> None:
    async with front() as box:
        fallen(box, "refused")
        asked = box.stream()
        await box.beaten(1)
        asked.cancel()
        await box.runs(0)


# ---- what the wedge detector reads


async def test_the_largest_body_at_the_engine_and_the_chunks_from_it_are_known() -> None:
    async with front(Gate(2, 64)) as box:
        box.engine.free.clear()
        box.gate.open()
        assert box.relay.largest_in_flight() == 0
        crowd = [box.stream(prompt="x" * 5000), box.stream()]
        await box.runs(2)
        third = box.stream(prompt="y" * 50_000)  # waits: it is not with the engine
        await box.waits(1)
        assert 5000 < box.relay.largest_in_flight() < 6000
        assert box.relay.chunks_received == 0
        box.engine.free.set()
        assert all(heard.ended_well for heard in await asyncio.gather(*crowd, third))
        assert box.relay.chunks_received >= 3
        assert (await box.whole()).status_code == 200
        assert box.relay.chunks_received >= 4
