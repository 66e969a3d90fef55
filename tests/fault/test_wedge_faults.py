"""Engines that live and do nothing, and those that only look so: a busy one is never killed."""

import asyncio

from appliance.vitals import parse_counters
from tests.appliance_tasks import Appliance, StartAppliance
from tests.appliances import CHAT, WEB
from tests.fault.clients import (
    ASKED,
    QUICK,
    Chronicle,
    ask,
    asking,
    incidents,
)
from tests.fault.table import Faults

ALLOWED_S = 1.5
WATCHED = {
    **QUICK,
    "wedge_quiet_s": ALLOWED_S,
    "prefill_tokens_per_s": 1e9,  # a prompt allows nothing on top
    "probe_every_s": 600,
}


def probes(box: Appliance) -> int:
    """Count the probes that the engine has seen."""
    return sum(request["body"].get("max_tokens") == 1 for request in box.fake.requests(CHAT))


async def test_an_engine_that_is_deaf_to_its_requests_is_wedged(
    start: StartAppliance, faults: Faults
) -> None:
    box = await start(**WATCHED)
    box.fake.be(deaf=True)
    chronicle = Chronicle(box)
    streamed, whole = asking(box, stream=True), asking(box)
    detected_s = await chronicle.until("stopping")
    recovered_s = await chronicle.until("ready")
    assert ("stopping", "wedged") in chronicle.codes
    assert ("backoff", "wedged") in chronicle.codes
    assert detected_s >= ALLOWED_S
    assert (await streamed).is_true  # it had seen nothing yet, so the next engine answers
    told = await whole
    assert (told.status, told.code) == (502, "upstream_error")
    (incident,) = incidents(box.folder)
    assert (incident.code, incident.metrics["in_flight"]) == ("wedged", 2)
    assert await box.metric("appliance_engine_wedges_total") == 1
    seen = "a stream was answered by the next engine, a whole request got a 502"
    faults.row("ready, then deaf, with requests", detected_s, recovered_s, seen)


async def test_an_engine_that_is_deaf_while_idle_is_found_by_the_probe(
    start: StartAppliance, faults: Faults
) -> None:
    box = await start(**WATCHED | {"probe_every_s": 0.5})
    box.fake.be(deaf=True)
    chronicle = Chronicle(box)
    detected_s = await chronicle.until("stopping")
    recovered_s = await chronicle.until("ready")
    assert ("stopping", "wedged") in chronicle.codes
    assert (await ask(box.client)).is_true
    faults.row("ready, then deaf, idle", detected_s, recovered_s, "nothing of it")


async def test_an_engine_that_answers_its_probes_is_left_alone(start: StartAppliance) -> None:
    box = await start(**WATCHED | {"probe_every_s": 0.1})
    chronicle = Chronicle(box)

    async def asked() -> None:
        while probes(box) < 3:
            await box.metric("appliance_engine_probes_total")

    async with asyncio.timeout(20):
        await asked()
    assert chronicle.states == []


async def test_a_stream_that_stalls_for_good_is_cut_and_its_engine_replaced(
    start: StartAppliance, faults: Faults
) -> None:
    box = await start(**WATCHED)
    box.fake.be(stall_after=3)
    chronicle = Chronicle(box)
    cut = asking(box, stream=True)
    detected_s = await chronicle.until("stopping")
    recovered_s = await chronicle.until("ready")
    assert (await cut).is_cut
    assert b"data: " in (await cut).body
    assert detected_s >= ALLOWED_S
    assert (await ask(box.client)).is_true
    assert [incident.code for incident in incidents(box.folder)] == ["wedged"]
    faults.row("stream stalls", detected_s, recovered_s, "it broke off, without [DONE]")


def heartbeat(box: Appliance) -> tuple[float, ...]:
    """Return the engine's progress counters, as it tells them itself."""
    counters = parse_counters(WEB.get(f"{box.fake.url}/metrics").content)
    assert counters is not None
    return counters.heartbeat


async def test_one_long_step_within_the_allowance_is_neither_killed_nor_probed(
    start: StartAppliance, faults: Faults
) -> None:
    box = await start(**WATCHED | {"probe_every_s": 0.1})
    chronicle = Chronicle(box)
    box.fake.be(stall_after=3, stall_s=0.9 * ALLOWED_S)
    streamed = asking(box, stream=True)

    async def in_its_step() -> None:
        while WEB.get(f"{box.fake.url}/load").json()["server_load"] == 0:
            await box.metric("appliance_engine_probes_total")

    async with asyncio.timeout(20):
        await in_its_step()
    asked, before = probes(box), heartbeat(box)
    await asyncio.wait({streamed}, timeout=0.6 * ALLOWED_S)
    assert not streamed.done()
    assert heartbeat(box) == before, "this step shows no progress"
    assert probes(box) == asked, "a probe to a busy engine waits in its queue and calls it dead"
    assert (await streamed).is_true
    assert chronicle.states == []
    assert box.snapshot.spawn == 1
    faults.row("one silent step of 0.9 x the allowance", None, None, "a gap, then the true answer")


async def test_a_slow_stream_outlives_the_allowance(start: StartAppliance) -> None:
    box = await start(**WATCHED | {"probe_every_s": 0.1})
    box.fake.be(chunk_delay=ALLOWED_S / 4)
    chronicle = Chronicle(box)
    asked = probes(box)
    assert (await ask(box.client, stream=True, max_tokens=8)).is_done
    assert probes(box) <= asked + 1  # one may be under way as it begins
    assert chronicle.states == []


async def test_a_long_prompt_is_given_the_time_to_be_read(start: StartAppliance) -> None:
    # 16 KB are 4000 tokens, which at 1000 a second add 4 s to the allowance
    limits = {"prefill_tokens_per_s": 1000, "max_model_len": 8192}
    box = await start(**WATCHED | limits)
    chronicle = Chronicle(box)
    box.fake.be(silent_prefill=2 * ALLOWED_S)
    told = {"role": "user", "content": "wait " * 3200}
    messages = [told, {"role": "assistant", "content": "yes"}, *ASKED["messages"]]
    assert (await ask(box.client, stream=True, messages=messages)).is_done
    assert chronicle.states == []
