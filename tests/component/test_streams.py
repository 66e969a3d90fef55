"""A stream on its way: what is heard in its gaps, how long it may take, and who waits for whom."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from appliance.connection import HELD_LIMIT
from appliance.deadlines import Deadlines
from appliance.exchange import Exchange
from appliance.stream import Care
from tests.appliances import CHAT
from tests.component.test_engine_replies import DONE, SSE, plain
from tests.relays import ANSWER, COMMENT, KEEP_ALIVES, MESSAGES, PING, Box, Mortal, front

OPENING = (
    b'data: {"id":"chat-1","object":"chat.completion.chunk","created":7,"model":"N",'
    b'"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
)
SIGN = {"id": "chat-1", "object": "chat.completion.chunk", "created": 7, "model": "N"}
OFTEN = Care(keepalive_s=0.02)


@dataclass
class Paced(Mortal):
    """An engine that says what the test hands it, when the test does; None ends the stream."""

    says: "asyncio.Queue[bytes | None]" = field(default_factory=asyncio.Queue)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = head.partition("content-length: ")[2].split()
        await reader.readexactly(int(length[0]) if length else 0)
        self.asked.append(head.split()[1])
        left = asyncio.ensure_future(reader.read(1))
        try:
            while not left.done():
                piece = asyncio.ensure_future(self.says.get())
                await asyncio.wait({piece, left}, return_when=asyncio.FIRST_COMPLETED)
                if not piece.done():
                    piece.cancel()
                    break
                data = piece.result()
                writer.write(data if data is not None else b"0\r\n\r\n")
                if data is None:
                    break
        finally:
            left.cancel()
            writer.close()
            self.gone.set()

    def say(self, *events: bytes) -> None:
        for event in events:
            self.says.put_nowait(b"%x\r\n%b\r\n" % (len(event), event))

    def head(self, head: bytes = SSE) -> None:
        self.says.put_nowait(head)

    def stop(self) -> None:
        self.says.put_nowait(None)


def signs(box: Box) -> float:
    return box.count("keepalives")


async def heard(box: Box, count: int) -> None:
    before = signs(box)
    await box.sees(lambda: signs(box) >= before + count, f"{count} keep-alives more")


# ---- keep-alives in a stream's gaps


@pytest.mark.parametrize("path", KEEP_ALIVES)
async def test_a_silent_prefill_is_heard_as_the_routes_clients_like_it(path: str) -> None:
    engine = Paced()
    async with front(engine=engine, care=OFTEN) as box:
        box.gate.open()
        asked = box.stream(path)
        engine.head()
        await heard(box, 2)
        engine.say(OPENING, DONE)
        engine.stop()
        said = await asked
        assert said.ended_well
        assert said.said(path) == OPENING + DONE


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_a_gap_within_a_chunked_stream_is_filled_with_its_own_empty_chunk(path: str) -> None:
    engine = Paced()
    async with front(engine=engine, care=OFTEN) as box:
        box.gate.open()
        asked = box.stream(path)
        engine.head()
        engine.say(OPENING)
        await heard(box, 2)
        engine.say(DONE)
        engine.stop()
        said = await asked
        first, *between, last, end = said.body.split(b"\n\n")
        assert (first, last, end) == (OPENING[:-2], DONE[:-2], b"")
        assert len(between) >= 2
        assert [json.loads(event[6:]) for event in between] == [{**SIGN, "choices": []}] * len(
            between
        )


@pytest.mark.parametrize(("path", "sign"), [(MESSAGES, PING), ("/v1/responses", COMMENT)])
async def test_a_gap_within_another_stream_is_filled_as_before_it(path: str, sign: bytes) -> None:
    engine = Paced()
    async with front(engine=engine, care=OFTEN) as box:
        box.gate.open()
        asked = box.stream(path)
        engine.head()
        engine.say(OPENING)
        await heard(box, 2)
        engine.say(DONE)
        engine.stop()
        said = await asked
        assert said.body.replace(sign, b"") == OPENING + DONE
        assert said.body.count(sign) == signs(box)


async def test_no_keep_alive_stands_within_an_event() -> None:
    engine = Paced()
    async with front(engine=engine, care=OFTEN) as box:
        box.gate.open()
        asked = box.stream()
        engine.head()
        engine.say(OPENING[:40])
        await heard(box, 2)
        engine.say(OPENING[40:])
        engine.stop()
        assert (await asked).said() == OPENING


@pytest.mark.parametrize(
    ("style", "path", "sign"),
    [("comment", CHAT, COMMENT), ("comment", MESSAGES, COMMENT), ("chunk", MESSAGES, PING)],
)
async def test_the_style_is_a_setting(style: str, path: str, sign: bytes) -> None:
    engine = Paced()
    async with front(engine=engine, care=Care(style, 0.02)) as box:
        box.gate.open()
        asked = box.stream(path)
        engine.head()
        engine.say(OPENING)
        await heard(box, 2)
        engine.stop()
        assert (await asked).body.replace(sign, b"") == OPENING


async def test_who_wants_no_keep_alives_hears_none() -> None:
    engine = Paced()
    async with front(engine=engine, care=Care("off", 0.001, Deadlines(idle_s=0.1))) as box:
        box.gate.open()
        asked = box.stream()
        engine.head()
        engine.say(OPENING)
        said = await asked  # a hundred keep-alives would have fitted into its silence
        assert said.body == OPENING
        assert signs(box) == 0


async def test_after_the_last_event_nothing_more_is_said() -> None:
    engine = Paced()
    care = Care("auto", 0.001, Deadlines(idle_s=0.1))
    async with front(engine=engine, care=care) as box:
        box.gate.open()
        asked = box.stream()
        engine.head()
        engine.say(OPENING + DONE)
        assert (await asked).body == OPENING + DONE


# ---- deadlines


@pytest.mark.parametrize(
    "deadlines",
    [Deadlines(first_byte_s=0.05), Deadlines(total_s=0.05)],
    ids=["first byte", "total"],
)
@pytest.mark.parametrize("streaming", [True, False])
async def test_no_head_in_time_is_a_504(deadlines: Deadlines, streaming: bool) -> None:
    engine = Paced()
    async with front(engine=engine, care=Care(deadlines=deadlines)) as box:
        box.gate.open()
        reply = await box.client.post(CHAT, json={"stream": streaming, "messages": []})
        assert reply.status_code == 504
        assert reply.json()["error"]["code"] == "upstream_timeout"
        await engine.gone.wait()


@pytest.mark.parametrize(
    ("deadlines", "events"),
    [
        (Deadlines(first_byte_s=0.05), []),
        (Deadlines(idle_s=0.05), [OPENING]),
        (Deadlines(total_s=0.05), [OPENING]),
    ],
    ids=["first byte", "idle", "total"],
)
async def test_a_stream_that_takes_too_long_is_broken_off(
    deadlines: Deadlines, events: list[bytes]
) -> None:
    engine = Paced()
    async with front(engine=engine, care=Care(deadlines=deadlines)) as box:
        box.gate.open()
        asked = box.stream()
        engine.head()
        engine.say(*events)
        said = await asked
        assert (said.status, said.ended_well) == (200, False)
        assert said.body == b"".join(events)
        await engine.gone.wait()
        assert box.count("requests", route=CHAT, outcome="broken") == 1


async def test_keep_alives_do_not_count_as_the_engines_word() -> None:
    engine = Paced()
    care = Care("auto", 0.01, Deadlines(idle_s=0.1))
    async with front(engine=engine, care=care) as box:
        box.gate.open()
        asked = box.stream()
        engine.head()
        engine.say(OPENING)
        assert not (await asked).ended_well
        assert signs(box) > 1


@pytest.mark.parametrize("deadlines", [Deadlines(idle_s=0.05), Deadlines(total_s=0.1)])
async def test_a_whole_reply_that_stops_within_its_body_is_a_504(deadlines: Deadlines) -> None:
    engine = Paced()
    async with front(engine=engine, care=Care(deadlines=deadlines)) as box:
        box.gate.open()
        engine.head(plain("200 OK", b'{"choices":[]}')[:-1])
        assert (await box.whole()).status_code == 504


# ---- redirects, and statuses


@pytest.mark.parametrize("status", ["301 Moved Permanently", "307 Temporary Redirect"])
async def test_a_redirect_is_not_followed(status: str) -> None:
    async with front() as box:
        box.gate.open()
        box.engine.reply = plain(status, b"").replace(
            b"content-type: application/json", b"location: http://127.0.0.1:9/elsewhere"
        )
        reply = await box.whole()
        assert reply.status_code == 502
        assert "elsewhere" in reply.json()["error"]["message"]
        assert "location" not in reply.headers
        assert box.engine.asked == [CHAT]


# ---- who waits for whom


async def test_a_client_that_does_not_read_holds_the_engine_back() -> None:
    total, piece = 256, b"data: " + b"x" * 65_000 + b"\n\n"
    engine = Paced()
    async with front(engine=engine, care=Care("auto", 0.01, Deadlines(idle_s=0.2))) as box:
        box.gate.open()
        body = {"stream": True, "messages": []}
        engine.head()
        async with box.client.stream("POST", CHAT, json=body) as reply:
            engine.say(*[piece] * total)
            await box.sees(lambda: box.relay.sending == 1, "the relay to wait for its client")
            held = box.relay.chunks_received
            assert held * HELD_LIMIT < 4 * total * len(piece)
            parts = [part async for part in take(reply, engine)]
        assert b"".join(parts).count(piece) == total  # its own silence did not end it
        assert box.relay.sending == 0


async def take(reply: httpx.Response, engine: Paced) -> Any:
    engine.stop()
    async for part in reply.aiter_raw():
        yield part


async def test_a_client_that_leaves_while_it_does_not_read_frees_the_engine() -> None:
    engine = Paced()
    async with front(engine=engine) as box:
        box.gate.open()
        body = {"stream": True, "messages": []}
        engine.head()
        async with box.client.stream("POST", CHAT, json=body):
            engine.say(*[b"data: " + b"x" * 65_000 + b"\n\n"] * 256)
            await box.sees(lambda: box.relay.sending == 1, "the relay to wait for its client")
        await engine.gone.wait()
        await box.runs(0)
        assert box.relay.sending == 0
        assert box.count("hang_ups", window="stream") == 1


# ---- a watch that ends a stream


class Third:
    """Ends a stream in place of its third piece."""

    def __init__(self) -> None:
        self.seen = 0

    def feed(self, events: bytes) -> bytes | None:
        """Count."""
        self.seen += 1
        return b"data: enough\n\n" + DONE if self.seen == 3 else None


async def test_a_watch_ends_a_stream_in_order_and_frees_the_engine() -> None:
    engine = Paced()

    def watch(_exchange: Exchange) -> Third:
        return Third()

    async with front(engine=engine, watch=watch) as box:
        box.gate.open()
        asked = box.stream()
        engine.head()
        for count in range(1, 4):
            engine.say(OPENING)
            await box.sees(lambda count=count: box.relay.chunks_received >= count, "a piece")  # type: ignore[misc]
        said = await asked
        assert said.ended_well
        assert said.body == OPENING * 2 + b"data: enough\n\n" + DONE
        await engine.gone.wait()
        assert box.count("requests", route=CHAT, outcome="ok") == 1


class Large(Third):
    """Ends a stream with more than a client that does not read has room for."""

    def feed(self, events: bytes) -> bytes | None:
        """End at once."""
        return b"data: " + b"x" * 50_000_000 + b"\n\n" + DONE


async def test_a_slow_client_gets_the_end_that_a_watch_made() -> None:
    engine = Paced()
    async with front(engine=engine, watch=lambda _exchange: Large()) as box:
        box.gate.open()
        engine.head()
        engine.say(OPENING, OPENING)
        said = await box.stream()
        assert said.ended_well
        assert len(said.body) > 50_000_000
        assert said.body.endswith(DONE)


async def test_without_a_gap_nothing_is_added() -> None:
    async with front() as box:
        box.gate.open()
        said = await box.stream()
        assert ANSWER.endswith(b"0\r\n\r\n")
        assert said.body.count(b"\n\n") == 2
        assert signs(box) == 0
