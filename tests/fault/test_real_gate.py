"""Deaths of one real engine: each is seen, told, survived, and leaves nothing behind."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.appliances import LONG
from tests.engines import wait_until
from tests.fault.real import (
    ALLOWANCE_S,
    SLACK_S,
    TOKEN,
    Box,
    Client,
    holds,
    is_alive,
    real_box,
    stopped,
    survive,
)
from tests.fault.table import Faults

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

TOKENS = 600
COUNTED = {
    **LONG,
    "max_tokens": TOKENS,
    "stream": True,
    "stream_options": {"include_usage": True},
}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """One appliance over the real engine, for all faults of this file."""
    with real_box(tmp_path_factory.mktemp("gate")) as box:
        box.serving()
        yield box


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("EngineCore", {"engine_core_died"}),
        # a start of the real engine each, and seen as the one above
        pytest.param("server", {"engine_killed"}, marks=pytest.mark.long),
        pytest.param("Worker", {"engine_core_died"}, marks=pytest.mark.long),
    ],
)
def test_an_engine_that_loses_a_process_is_replaced(
    box: Box, faults: Faults, name: str, reasons: set[str]
) -> None:
    box.serving()
    victim = box.process(name)
    survived = survive(box, lambda: os.kill(victim, signal.SIGKILL))
    assert survived.fell.to == "backoff"
    assert survived.fell.reason in reasons
    assert survived.health["reason"] in reasons
    assert survived.health["message"]
    assert box.incident(survived.spawn)["code"] in reasons
    what = {"server": "API server"}.get(name, name)
    faults.row(
        f"real: kill -9 of the {what}",
        survived.detected_s,
        survived.recovered_s,
        survived.clients,
    )


def test_a_silent_engine_that_goes_on_in_time_is_not_killed(box: Box, faults: Faults) -> None:
    spawn = box.serving()
    core = box.process("EngineCore")
    client = Client(box, COUNTED)
    client.until(TOKEN)
    for share in (0.5, 0.7):
        with stopped(core):
            holds(lambda: is_alive(core), share * ALLOWANCE_S, f"alive at {share}")
        client.until_more()
    client.until_end()
    assert client.is_whole, client.received[-500:]
    assert f'"completion_tokens":{TOKENS}'.encode() in client.received
    assert box.appliance.status()["state"] == "ready"
    assert box.serving() == spawn
    assert not [incident for incident in box.incidents() if incident["spawn"] == spawn]
    seen = f"a running stream: a pause, then its whole answer, {TOKENS} tokens"
    faults.row("real: SIGSTOP of EngineCore, 0.5 and 0.7 of the allowance", None, None, seen)


def test_an_engine_that_is_silent_for_longer_is_killed_with_evidence(
    box: Box, faults: Faults
) -> None:
    box.serving()
    pids = {name: box.process(name) for name in ("server", "EngineCore", "Worker")}
    within_s = 1.2 * ALLOWANCE_S + SLACK_S
    with ExitStack() as held:
        survived = survive(
            box, lambda: held.enter_context(stopped(pids["EngineCore"])), detect_s=within_s
        )
    assert survived.detected_s > 0.7 * ALLOWANCE_S
    assert survived.fell.to == "stopping"
    assert survived.health["reason"] == "wedged"
    assert "no token" in survived.health["message"]
    incident = box.incident(survived.spawn)
    assert incident["code"] == "wedged"
    assert incident["metrics"]["in_flight"] >= 1
    stacks = {int(who.split()[0]): told for who, told in incident["stacks"].items()}
    assert stacks.keys() >= set(pids.values())
    assert stacks[pids["EngineCore"]].startswith("no answer: stopped")
    for name in ("server", "Worker"):
        assert 'File "' in stacks[pids[name]], json.dumps(incident["stacks"], indent=1)
    faults.row(
        f"real: SIGSTOP of EngineCore (allowance {ALLOWANCE_S:.0f} s)",
        survived.detected_s,
        survived.recovered_s,
        survived.clients,
    )


def test_no_dead_engine_left_shared_memory(box: Box) -> None:
    spawn = box.serving()
    held = set(box.segments)
    assert held, "the engines are expected to hold named shared memory"
    box.command("stop")
    box.until(spawn, "stopped", within_s=60)
    wait_until(lambda: not box.appliance.status()["requests"]["running"], 5, "nobody to be served")
    assert not {path.name for path in held if path.exists()}
