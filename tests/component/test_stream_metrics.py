"""What is counted of requests and streams: statuses, bytes, tokens, and the gaps between pieces."""

from appliance.stream import Care
from tests.appliances import CHAT, metric
from tests.component.test_engine_replies import DONE, PIECE, chunked, plain
from tests.component.test_streams import OPENING, Paced
from tests.relays import front


async def test_tokens_are_counted_from_a_streams_last_events_and_from_whole_replies() -> None:
    usage = (
        b'"usage":{"prompt_tokens":7,"completion_tokens":3,'
        b'"prompt_tokens_details":{"cached_tokens":4}}'
    )
    async with front() as box:
        box.gate.open()
        told = b'data: {"choices":[],' + usage + b"}\n\n"
        box.engine.reply = chunked(PIECE, PIECE, told, DONE)
        assert (await box.stream()).ended_well
        box.engine.reply = plain("200 OK", b'{"choices":[],' + usage + b"}")
        assert (await box.whole()).status_code == 200
        counted = {kind: box.count("tokens", kind=kind) for kind in ("prompt", "completion")}
        assert counted == {"prompt": 14, "completion": 6}
        assert box.count("tokens", kind="cached") == 8


async def test_each_request_is_counted_by_its_route_and_status_and_its_bytes() -> None:
    async with front() as box:
        box.gate.open()
        said = [(await box.stream()).body]
        box.engine.reply = plain("400 Bad Request", b'{"error":{"message":"m"}}')
        said.append((await box.whole()).content)
        assert box.count("responses", route=CHAT, code="200") == 1
        assert box.count("responses", route=CHAT, code="400") == 1
        assert box.count("response_body_bytes") == sum(map(len, said))
        assert box.count("request_body_bytes") > 0


async def test_between_pieces_that_come_apart_there_is_a_gap() -> None:
    engine = Paced()
    async with front(engine=engine) as box:
        box.gate.open()
        asked = box.stream()
        engine.head()
        for count in range(1, 5):
            engine.say(OPENING)
            await box.sees(lambda count=count: box.relay.chunks_received == count, "a piece")  # type: ignore[misc]
        engine.stop()
        assert (await asked).ended_well
        text = box.metrics.text().decode()
        assert metric(text, "appliance_inter_chunk_seconds_count") == 3
        assert metric(text, "appliance_ttft_seconds_count", route=CHAT) == 1


async def test_a_gap_is_the_engines_silence_whatever_was_said_in_it() -> None:
    engine = Paced()
    async with front(engine=engine, care=Care(keepalive_s=0.01)) as box:
        box.gate.open()
        asked = box.stream()
        engine.head()
        engine.say(OPENING)
        await box.sees(lambda: box.relay.chunks_received == 1, "a piece")
        await box.sees(lambda: box.count("keepalives") >= 4, "keep-alives")
        engine.say(OPENING)
        engine.stop()
        assert (await asked).ended_well
        text = box.metrics.text().decode()
        assert metric(text, "appliance_inter_chunk_seconds_sum") >= 0.03
