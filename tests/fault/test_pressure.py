"""Memory that runs low for real: who is let in, when the engine goes, and what comes back."""

from pathlib import Path

import pytest

from tests.appliance_tasks import Appliance, StartAppliance, eventually
from tests.fault.clients import (
    QUICK,
    Chronicle,
    argv_value,
    asking,
    incidents,
    lives,
    streaming,
    waiting,
)
from tests.fault.pressure import GIB, available_bytes, ballast, floors_below
from tests.fault.table import Faults

# The fake engine takes none of what the plan keeps for a real one.
FORCED = {"memory_force": True, "max_model_len": 24_576, **QUICK}


async def short(box: Appliance) -> None:
    """Wait until nobody more is let in."""

    async def there() -> bool:
        return box.snapshot.is_short

    await eventually(there, "memory to be short")


async def test_a_slow_shortage_stops_admission_then_the_engine_and_ends_smaller(
    start: StartAppliance, tmp_path: Path, faults: Faults
) -> None:
    floors = floors_below(available_bytes(), stop_gib=1, kill_gib=1.5)
    box = await start(*lives(tmp_path, "--chunk-delay 0.03"), **floors, **FORCED)
    chronicle = Chronicle(box)
    context = int(argv_value(box, "--max-model-len"))
    running = await streaming(box)
    # half a GiB below the kill floor: 2 GiB on a machine where nobody else moves
    with ballast(available_bytes() - floors["memory_kill_floor"] + GIB // 2) as weight:
        chronicle.mark()
        await short(box)
        assert box.snapshot.state == "ready", "admission stops before the engine does"
        health = await box.client.get("/health/ready")
        assert (health.status_code, health.json()["reason"]) == (503, "memory_floor")
        late = asking(box, stream=True)
        await waiting(box, 1)
        detected_s = await chronicle.until("stopping")
        assert (await running).is_cut
        await chronicle.until("backoff")
        weight.release()
        recovered_s = await chronicle.until("ready")
    assert (await late).is_true
    codes = [(state, code) for state, code in chronicle.codes if state != "starting"]
    assert codes == [
        *(("ready", "memory_floor"), ("stopping", "memory_floor"), ("backoff", "memory_floor")),
        *(("preparing", "preparing"), ("ready", "ready")),
    ]
    assert box.snapshot.rung == 1
    assert int(argv_value(box, "--max-model-len")) < context
    (incident,) = incidents(box.folder)
    assert (incident.code, incident.grade) == ("memory_floor", "memory")
    assert any(size > GIB for size in incident.processes.values()), "the ballast is named"
    faults.row(
        "memory falls below the floors (ballast of 2 GiB)",
        detected_s,
        recovered_s,
        "a running stream was broken off; who came meanwhile was answered by a smaller engine",
    )


async def test_a_shortage_that_passes_costs_nobody_anything(
    start: StartAppliance, faults: Faults
) -> None:
    floors = floors_below(available_bytes(), stop_gib=1, kill_gib=6)
    box = await start(**floors, **FORCED)
    with ballast(available_bytes() - floors["memory_stop_floor"] + GIB) as weight:
        await short(box)
        late = asking(box, stream=True)
        await waiting(box, 1)
        weight.release()
    assert (await late).is_true
    assert (box.snapshot.spawn, box.snapshot.state) == (1, "ready")
    assert incidents(box.folder) == []
    faults.row("memory falls below the admission floor, and comes back", None, None, "waited")


@pytest.mark.parametrize("state", ["starting", "ready"])
async def test_an_avalanche_kills_the_engine_at_once_in_any_state(
    start: StartAppliance, faults: Faults, state: str
) -> None:
    limit = available_bytes() - GIB
    names = ("warn_floor", "stop_floor", "kill_floor", "emergency")
    floors = {f"memory_{name}": limit for name in names}
    loading = ("--ready-after", "3600") if state == "starting" else ()
    slow = {**FORCED, "restart_backoff_s": 3}
    box = await start(*loading, state=state, **floors, **slow)
    chronicle = Chronicle(box)
    with ballast(2 * GIB) as weight:
        detected_s = await chronicle.until("stopping", "backoff")
        await chronicle.until("backoff")
        weight.release()
    (incident,) = incidents(box.folder)
    assert (incident.code, incident.grade) == ("memory_emergency", "memory")
    assert incident.exit == "signal 9"
    faults.row(
        f"memory falls below the emergency limit ({state})", detected_s, None, "killed at once"
    )
