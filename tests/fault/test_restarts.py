"""When a failed engine is tried again and when not: backoff, breaker, and who may clear it."""

from pathlib import Path

import pytest

from appliance.incidents import Incident
from tests.appliance_tasks import Appliance, StartAppliance, running_here
from tests.appliances import CONTROL
from tests.fault.clients import QUICK, Chronicle, argv_value, ask, incidents, lives
from tests.fault.table import Faults

ILL = "--never-ready --exit-code 1"


async def gives_up(folder: Path, failures: int, **settings: object) -> list[Incident]:
    """Let an appliance give up after so many failures; return them, newest first."""
    settings = QUICK | {"restart_max_failures": failures} | settings
    async with running_here(folder, *lives(folder, *[ILL] * failures), **settings) as box:
        await box.until("failed")
        assert_gave_up(box, failures)
        assert box.snapshot.spawn == failures
        told = await ask(box.client)
        assert (told.status, told.code) == (503, "engine_failed")
        assert b"appliance reset" in told.body
    return incidents(folder)


def assert_gave_up(box: Appliance, failures: int = 3) -> None:
    assert (box.snapshot.state, box.snapshot.reason.code) == ("failed", "gave_up")
    assert (
        "after a failure" if failures == 1 else f"after {failures} failures"
    ) in box.snapshot.reason.what


async def test_three_failures_end_it_for_the_next_appliance_too_until_a_reset(
    tmp_path: Path, faults: Faults
) -> None:
    found = await gives_up(tmp_path, 3)
    assert [incident.code for incident in found] == ["engine_died_loading"] * 3
    assert "appliance reset" in found[0].next
    flags = lives(tmp_path)  # the cause is gone, but nobody knows
    async with running_here(tmp_path, *flags, **QUICK) as box:
        await box.until("failed")
        assert_gave_up(box)
        chronicle = Chronicle(box)
        await box.operator.post(f"{CONTROL}/start")
        await box.operator.post(f"{CONTROL}/restart")
        assert set(chronicle.states) <= {"failed"}
        assert await box.metric("appliance_engine_spawns_total") == 0
        await box.operator.post(f"{CONTROL}/reset")
        await box.until("ready")
        assert (await ask(box.client)).is_true
    faults.row("three failures", None, None, "503 that says: appliance reset")


async def test_another_choice_of_the_operator_clears_the_breaker(tmp_path: Path) -> None:
    await gives_up(tmp_path, 1, max_model_len=16384)
    again = {**QUICK, "restart_max_failures": 1, "max_model_len": 8192}
    async with running_here(tmp_path, *lives(tmp_path), **again) as box:
        await box.until("ready")
        assert box.snapshot.max_model_len == 8192


async def test_another_client_key_or_port_is_no_other_choice(tmp_path: Path) -> None:
    await gives_up(tmp_path, 1)
    again = {**QUICK, "restart_max_failures": 1, "max_waiting": 7, "api_key": "another-key"}
    async with running_here(tmp_path, *lives(tmp_path), **again) as box:
        await box.until("failed")
        assert_gave_up(box, 1)


async def test_three_deaths_with_other_readings_of_the_host_still_end_it(tmp_path: Path) -> None:
    ill = lives(tmp_path, *[ILL] * 9)
    settings = QUICK | {"restart_backoff_s": 600, "restart_backoff_cap_s": 600}
    ports, ballast = set(), []
    for death in (1, 2, 3):
        async with running_here(tmp_path, *ill, **settings) as box:
            await box.until("backoff", "failed")
            ports.add(argv_value(box, "--port"))
            assert box.snapshot.spawn == 1
            if death == 3:
                assert_gave_up(box)
        ballast.append(b"\1" * (16 + 16 * death) * 2**20)  # less memory is available next time
    assert len(ports) == 3
    free = {incident.memory["after"]["MemAvailable"] for incident in incidents(tmp_path)}
    assert len(free) == 3, "the readings of the host differed"


async def test_the_wait_after_a_failure_doubles_up_to_its_cap(
    start: StartAppliance, tmp_path: Path
) -> None:
    limits = {"restart_backoff_s": 0.2, "restart_backoff_cap_s": 0.5, "restart_max_failures": 5}
    box = await start(*lives(tmp_path, *[ILL] * 9), state=None, **QUICK | limits)
    chronicle = Chronicle(box)
    await chronicle.until("failed")
    waits = [now.next_at - now.since for now in chronicle.of("backoff") if now.next_at]
    assert [min(wait, wait / 1.1) for wait in waits] == pytest.approx(
        [0.19, 0.38, 0.475, 0.475], rel=0.06
    )
    for wait, least in zip(waits, [0.2, 0.4, 0.5, 0.5], strict=True):
        assert least - 0.01 <= wait <= 1.1 * least + 0.01


async def test_a_failure_long_ago_does_not_count(start: StartAppliance, tmp_path: Path) -> None:
    limits = {"restart_window_s": 0.1, "restart_max_failures": 2}
    box = await start(*lives(tmp_path, *[ILL] * 4), state=None, **QUICK | limits)
    await box.until("ready")
    assert box.snapshot.spawn == 5
