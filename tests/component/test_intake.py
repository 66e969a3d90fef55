"""Bodies that are held at once: as many as there is memory for, and no more."""

from collections.abc import AsyncIterator

from appliance.admission import Gate
from appliance.intake import TIMES_LARGEST
from tests.appliances import CHAT
from tests.engines import MODEL
from tests.relays import front

LARGE = "x" * 990_000  # of a million bytes that a body may have there


async def test_more_bytes_than_may_be_held_are_refused_until_others_have_ended() -> None:
    async with front(Gate(1, 64)) as box:  # shut: all wait
        messages = [{"role": "user", "content": LARGE}]
        held = [box.whole(messages=messages) for _ in range(TIMES_LARGEST)]
        await box.waits(TIMES_LARGEST)
        refused = await box.client.post(CHAT, json={"model": MODEL, "messages": messages})
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "too_many_bytes"
        assert int(refused.headers["retry-after"]) > 0
        small = box.whole(messages=[])
        await box.waits(TIMES_LARGEST + 1)
        box.gate.open()
        for task in (*held, small):
            await task
        again = await box.client.post(CHAT, json={"model": MODEL, "messages": messages})
        assert again.status_code == 200


async def test_a_body_without_a_length_is_counted_as_it_comes() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b'{"model": "%b", "messages": [], "x": "' % MODEL.encode()
        for _ in range(9):
            yield b"y" * 100_000
        yield b'"}'

    async with front(Gate(1, 64)) as box:
        headers = {"content-type": "application/json"}
        held = [
            box.spawn(box.client.post(CHAT, content=parts(), headers=headers))
            for _ in range(TIMES_LARGEST)
        ]
        await box.waits(TIMES_LARGEST)
        refused = await box.client.post(CHAT, content=parts(), headers=headers)
        assert refused.status_code == 429
        box.gate.open()
        for task in held:
            assert (await task).status_code == 200


async def test_a_client_that_leaves_lets_its_bytes_go() -> None:
    async with front(Gate(1, 64)) as box:
        messages = [{"role": "user", "content": LARGE}]
        for _ in range(3):
            held = [box.whole(messages=messages) for _ in range(TIMES_LARGEST)]
            await box.waits(TIMES_LARGEST)
            for task in held:
                task.cancel()
            await box.waits(0)
