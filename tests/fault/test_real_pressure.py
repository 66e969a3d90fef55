"""Memory that runs low under the real engine, for real."""

import time
from pathlib import Path

import pytest

from appliance.checkpoint.folder import read_model_facts
from appliance.host import memory_snapshot
from appliance.memory import plan_memory
from appliance.observe import observe
from appliance.settings import load_settings
from tests.appliances import environment
from tests.engines import CHECKPOINT, wait_until
from tests.fault.pressure import GIB, available_bytes, ballast, floors_below
from tests.fault.real import GREET, LOAD_S, SETTINGS, STREAM, TOKEN, Client, real_box
from tests.fault.table import Faults

pytestmark = [pytest.mark.engine, pytest.mark.long, pytest.mark.timeout(900)]

CHOSEN = {**SETTINGS, "restart_backoff_s": 5, "restart_backoff_cap_s": 5}


def steady_bytes(folder: Path) -> int:
    """Return what the plan says will be available once this engine serves."""
    settings = load_settings(environment(folder, **CHOSEN))
    host = observe((), settings.cgroup_base)
    return plan_memory(settings, host, read_model_facts(CHECKPOINT)).steady_available_bytes


def test_a_real_shortage_stops_admission_then_the_engine_and_ends_smaller(
    tmp_path: Path, faults: Faults
) -> None:
    floors = floors_below(steady_bytes(tmp_path), stop_gib=1, kill_gib=1.5)
    with real_box(tmp_path, **CHOSEN, **floors) as box:
        spawn = box.serving()
        context = box.appliance.status()["max_model_len"]
        running = Client(box, STREAM)
        running.until(TOKEN)
        began = time.time()
        with ballast(available_bytes() - floors["memory_kill_floor"] + GIB // 2) as weight:
            weight.until_held()
            wait_until(lambda: box.health()[1]["reason"] == "memory_floor", 60, "the first floor")
            assert box.health()[0] == 503
            waiting = Client(box, GREET)
            fell = box.until(spawn, "stopping", within_s=60)
            box.until(spawn, "backoff", within_s=60)
            weight.release()
        running.until_end()
        assert running.is_broken, running.received[-500:]
        back = box.until(spawn + 1, "ready", within_s=LOAD_S)
        waiting.until_end()
        assert waiting.is_whole, waiting.received[-500:]
        status = box.appliance.status()
        assert (fell.reason, status["safer_plans"]) == ("memory_floor", 1)
        assert status["max_model_len"] < context
        incident = box.incident(spawn)
    assert (incident["code"], incident["grade"]) == ("memory_floor", "memory")
    assert incident["memory"]["before"]["MemAvailable"] < memory_snapshot()["MemTotal"]
    faults.row(
        "real: memory falls below the floors",
        fell.at - began,
        back.at - began,
        f"a running stream: broken off; one that came at the first floor: keep-alives, and the "
        f"answer after {waiting.answered_s:.0f} s; context {context}, then "
        f"{status['max_model_len']}",
    )
