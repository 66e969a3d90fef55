"""Ends that somebody asked for: restart, drain, stop, idleness. No request is lost to them."""

import asyncio
from pathlib import Path

import pytest

from tests.appliance_tasks import StartAppliance, running_here
from tests.appliances import CONTROL, engines_of
from tests.fault.clients import (
    QUICK,
    Chronicle,
    ask,
    asking,
    incidents,
    streaming,
    waiting,
)
from tests.fault.table import Faults


async def test_a_restart_loses_no_waiting_request(start: StartAppliance, faults: Faults) -> None:
    box = await start(max_num_seqs=1, drain_timeout_s=20, **QUICK)
    box.fake.be(chunk_delay=0.02)
    running = asking(box, stream=True)
    crowd = [asking(box, stream=number % 2 == 0) for number in range(20)]
    await waiting(box, 20)
    chronicle = Chronicle(box)
    await box.operator.post(f"{CONTROL}/restart")
    drained_s = await chronicle.until("stopping")
    recovered_s = await chronicle.until("ready")
    assert (await running).is_true
    assert [heard.is_true for heard in await asyncio.gather(*crowd)] == [True] * 20
    assert box.snapshot.spawn == 2
    assert incidents(box.folder) == []
    seen = "what ran ended well, and all 20 that waited were answered"
    faults.row("appliance restart", drained_s, recovered_s, seen)


async def test_a_drain_lets_a_stream_end_and_refuses_what_comes(
    start: StartAppliance, faults: Faults
) -> None:
    box = await start(drain_timeout_s=20, **QUICK)
    box.fake.be(chunk_delay=0.05)
    going = asking(box, stream=True)
    async with asyncio.timeout(20):
        while box.running.gate.running == 0:
            await box.metric("appliance_requests_running")
    chronicle = Chronicle(box)
    await box.operator.post(f"{CONTROL}/drain")
    await chronicle.until("draining")
    for stream in (False, True):
        told = await ask(box.client, stream=stream)
        assert told.is_turned_away
        assert told.status == 503
    assert (await going).is_true
    took_s = await chronicle.until("stopped")
    assert not engines_of(box.folder)
    assert box.snapshot.reason.code == "stopped_by_operator"
    assert (await box.client.get("/health/live")).status_code == 200
    faults.row("appliance drain", None, None, f"the stream ended well, after {took_s:.1f} s")


async def test_a_drain_has_a_deadline_and_what_it_cuts_does_not_look_whole(
    start: StartAppliance, faults: Faults
) -> None:
    box = await start(drain_timeout_s=0.5, **QUICK)
    box.fake.be(chunk_delay=0.02)
    going = await streaming(box)
    chronicle = Chronicle(box)
    await box.operator.post(f"{CONTROL}/drain")
    cut_s = await chronicle.until("stopping")
    assert cut_s >= 0.5
    assert (await going).is_cut
    await chronicle.until("stopped")
    faults.row("drain deadline passes", cut_s, None, "the stream broke off, without [DONE]")


@pytest.mark.parametrize("deaf", [(), ("--deaf-to-sigterm",)])
async def test_a_stop_in_mid_stream_cuts_it_without_done(
    start: StartAppliance, deaf: tuple[str, ...]
) -> None:
    box = await start(*deaf, **QUICK)
    box.fake.be(chunk_delay=0.02)
    going = await streaming(box)
    await box.operator.post(f"{CONTROL}/stop")
    assert (await going).is_cut
    await box.until("stopped")
    assert (box.running.gate.running, box.running.gate.waiting) == (0, 0)


async def test_a_stop_outlives_the_appliance_and_a_start_brings_it_back(tmp_path: Path) -> None:
    async with running_here(tmp_path, **QUICK) as box:
        await box.until("ready")
        await box.operator.post(f"{CONTROL}/stop")
        await box.until("stopped")
    async with running_here(tmp_path, **QUICK) as box:
        chronicle = Chronicle(box)
        assert (await ask(box.client)).code == "engine_failed"
        assert box.snapshot.state == "stopped"
        assert await box.metric("appliance_engine_spawns_total") == 0
        await box.operator.post(f"{CONTROL}/start")
        await chronicle.until("ready")
    async with running_here(tmp_path, **QUICK) as box:
        await box.until("ready")


async def test_the_end_of_the_appliance_is_no_stop_that_is_kept(tmp_path: Path) -> None:
    for _ in range(2):
        async with running_here(tmp_path, **QUICK) as box:
            await box.until("ready")


async def test_an_idle_engine_stops_and_the_next_request_starts_it(
    start: StartAppliance, faults: Faults
) -> None:
    box = await start(idle_stop_after_s=0.6, wedge_quiet_s=1.5, **QUICK)
    chronicle = Chronicle(box)
    for stream in (True, False):
        await chronicle.until("stopped")
        assert chronicle.codes[-1] == ("stopped", "idle")
        assert not engines_of(box.folder)
        chronicle.mark()
        assert (await ask(box.client, stream=stream)).is_true
        started_s = await chronicle.until("ready")
    assert incidents(box.folder) == []
    faults.row("stopped for idleness", None, started_s, "the next request waited for its start")


async def test_an_engine_that_is_used_does_not_idle(start: StartAppliance) -> None:
    box = await start(idle_stop_after_s=0.5, wedge_quiet_s=1.5, **QUICK)
    chronicle = Chronicle(box)
    box.fake.be(chunk_delay=0.02)
    going = await streaming(box)
    done, _ = await asyncio.wait({going}, timeout=1.2)
    assert not done
    assert chronicle.states == []
    going.cancel()
    await chronicle.until("stopped")
    await asyncio.wait({going})


async def test_a_reply_that_is_torn_or_no_http_costs_one_request_and_no_engine(
    start: StartAppliance, faults: Faults
) -> None:
    box = await start(**QUICK)
    chronicle = Chronicle(box)
    box.fake.be(tear_after=3)
    assert (await ask(box.client, stream=True)).is_cut
    torn = await ask(box.client)
    assert (torn.status, torn.code) == (502, "upstream_error")
    box.fake.be(gibberish=True)
    for stream in (False, True):
        told = await ask(box.client, stream=stream)
        assert (told.status, told.code) == (502, "upstream_error")
    box.fake.be()
    assert (await ask(box.client)).is_true
    assert chronicle.states == []
    faults.row("torn stream", None, None, "it broke off, without [DONE]; the engine serves on")
    faults.row("engine speaks no HTTP", None, None, "502; the engine serves on")


async def test_an_engine_that_talks_nonsense_serves_and_is_called_degraded(
    start: StartAppliance, faults: Faults
) -> None:
    box = await start("--garbage", **QUICK)
    assert (await box.health())["degraded"] == ["output_suspect"]
    assert (await ask(box.client)).status == 200
    faults.row("engine answers nonsense", None, None, "it; /health and status call it degraded")
