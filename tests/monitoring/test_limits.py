"""What alerts compare with: the gate's limits, the memory floors, and the appliance's own start."""

import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.appliances import running_process

MIB = 2**20


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], float]:
    """Return the samples of an appliance over a fake engine, by name and last label's value."""
    chosen: dict[str, Any] = {
        "max_num_seqs": 3,
        "max_waiting": 7,
        "memory_warn_floor": "400MiB",
        "memory_stop_floor": "300MiB",
        "memory_kill_floor": "200MiB",
        "memory_emergency": "100MiB",
    }
    folder: Path = tmp_path_factory.mktemp("limits") / "box"
    with running_process(folder, **chosen) as appliance:
        appliance.until("ready")
        with appliance.http() as http:
            text = http.get("/metrics").text
    return {
        (sample.name, "".join(list(sample.labels.values())[-1:])): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_most_that_may_run_and_wait_is_shown(shown: dict[tuple[str, str], float]) -> None:
    limits = {what: v for (name, what), v in shown.items() if name == "appliance_requests_limit"}
    assert limits == {"running": 3, "waiting": 7}


def test_the_floors_of_the_plan_are_shown(shown: dict[tuple[str, str], float]) -> None:
    floors = {of: v for (name, of), v in shown.items() if name == "appliance_memory_floor_bytes"}
    assert floors == {
        "warn": 400 * MIB,
        "stop": 300 * MIB,
        "kill": 200 * MIB,
        "emergency": 100 * MIB,
    }


def test_the_process_that_is_shown_is_the_appliance_and_not_the_engine(
    shown: dict[tuple[str, str], float],
) -> None:
    began = shown["appliance_process_start_time_seconds", ""]
    assert abs(time.time() - began) < 3600
    assert 10 * MIB < shown["appliance_process_resident_memory_bytes", ""] < 1024 * MIB
    assert not any(name.startswith("process_") for name, _ in shown)
