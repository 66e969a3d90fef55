"""What takes long with the real engine: stops while it loads, wedges, our own deaths, cycles."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from appliance import tree
from tests import engines
from tests.engines import wait_until
from tests.fault.real import (
    ALLOWANCE_S,
    LOAD_S,
    SLACK_S,
    STREAM,
    TOKEN,
    Box,
    Client,
    has_core,
    real_box,
    rss_bytes,
    shared_memory,
    stopped,
    survive,
)
from tests.fault.table import Faults

pytestmark = [pytest.mark.engine, pytest.mark.long, pytest.mark.timeout(1800)]

STOPPED_WITHIN_S = 20.0  # 5 s of grace while it loads, 10 s once it is ready, then SIGKILL
NAMES = {"server": "API server"}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """One appliance over the real engine, for the tests that leave the appliance alive."""
    with real_box(tmp_path_factory.mktemp("long")) as box:
        box.until(1, "starting", within_s=60)
        yield box


# ---- a stop while it loads


@pytest.mark.parametrize("after_s", [4, 11, 13, 16, None])
def test_a_stop_while_it_loads_ends_it_in_time(
    box: Box, faults: Faults, after_s: int | None
) -> None:
    latest = box.transitions[-1]
    spawn = latest.spawn + (latest.to == "stopped")  # the first finds it loading
    box.command("start")
    begun = box.until(spawn, "starting", within_s=60)
    leader = box.leader
    if after_s is None:
        wait_until(lambda: has_core(box), LOAD_S, "the engine to fork its core")
    else:
        wait_until(lambda: time.time() >= begun.at + after_s, after_s + 1, "it to load a while")
    asked_at = time.time()
    box.command("stop")
    ended = box.until(spawn, "stopped", within_s=STOPPED_WITHIN_S)
    assert not tree.members(leader), engines.describe(tree.members(leader))
    assert ended.reason == "stopped_by_operator"
    when = "as its core was forked" if after_s is None else f"after {after_s} s"
    seen = f"stopped {ended.at - asked_at:.1f} s later, no process left"
    faults.row(f"real: stop while it loads, {when}", None, None, seen)


def test_sigterm_while_it_loads_ends_the_appliance_with_0(tmp_path: Path, faults: Faults) -> None:
    with real_box(tmp_path / "box") as box:
        box.until(1, "starting", within_s=60)
        wait_until(lambda: has_core(box), LOAD_S, "the engine to fork its core")
        leader, asked_at = box.leader, time.time()
        box.appliance.signal(signal.SIGTERM)
        assert box.appliance.code(within_s=STOPPED_WITHIN_S) == 0, box.appliance.err
        assert not tree.members(leader), engines.describe(tree.members(leader))
    seen = f"exit code 0 after {time.time() - asked_at:.1f} s, no process left"
    faults.row("real: SIGTERM of the appliance while its engine loads", None, None, seen)


# ---- wedges


@pytest.mark.parametrize("name", ["server", "Worker"])
def test_an_engine_with_a_stopped_process_is_killed_with_the_stacks_of_the_others(
    box: Box, faults: Faults, name: str
) -> None:
    box.command("start")
    box.serving()
    pids = {each: box.process(each) for each in ("server", "EngineCore", "Worker")}
    with ExitStack() as held:
        survived = survive(
            box,
            lambda: held.enter_context(stopped(pids[name])),
            detect_s=1.2 * ALLOWANCE_S + SLACK_S,
        )
    assert survived.detected_s > 0.7 * ALLOWANCE_S
    assert survived.health["reason"] == "wedged"
    incident = box.incident(survived.spawn)
    assert incident["code"] == "wedged"
    stacks = {int(who.split()[0]): told for who, told in incident["stacks"].items()}
    assert stacks.keys() >= set(pids.values())
    for each, pid in pids.items():
        if each == name:
            assert stacks[pid].startswith("no answer: stopped"), stacks[pid]
        else:
            assert 'File "' in stacks[pid], stacks[pid]
    what = f"real: SIGSTOP of the {NAMES.get(name, name)} (allowance {ALLOWANCE_S:.0f} s)"
    faults.row(what, survived.detected_s, survived.recovered_s, survived.clients)


# ---- again and again


def test_cycles_of_death_and_restart_leave_nothing(box: Box, faults: Faults) -> None:
    box.command("start")
    box.serving()
    appliance = box.appliance.process.pid
    rss: list[int] = []
    handles: list[int] = []
    for name in ("server", "EngineCore", "Worker"):
        victim = box.process(name)
        survive(box, lambda pid=victim: os.kill(pid, signal.SIGKILL))  # type: ignore[misc]
        rss.append(rss_bytes(appliance))
        handles.append(open_handles(appliance))
    wait_until(lambda: open_handles(appliance) <= handles[0], 30, f"no more handles: {handles}")
    assert rss[-1] <= 1.05 * rss[0], rss
    for session in box.sessions - {box.leader}:
        assert not tree.members(session), engines.describe(tree.members(session))
    seen = f"no process, no socket left; RSS {rss[0] / 2**20:.1f} -> {rss[-1] / 2**20:.1f} MiB"
    faults.row("real: 3 deaths and restarts in a row", None, None, seen)


def open_handles(pid: int) -> int:
    """Return how many files and sockets a process holds."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_no_dead_engine_left_shared_memory(box: Box) -> None:
    box.command("start")
    box.serving()
    dead = box.segments - shared_memory(box.leader)
    assert not {path.name for path in dead if path.exists()}


# ---- our own deaths


def test_an_engine_that_outlived_its_appliance_is_ended_by_the_next_life(
    tmp_path: Path, faults: Faults
) -> None:
    state = tmp_path / "state"
    with ExitStack() as lives:
        first = lives.enter_context(real_box(tmp_path / "first", state_dir=state))
        first.until(1, "starting", within_s=60)
        wait_until(lambda: has_core(first), LOAD_S, "the engine to fork its core")
        second = next_life(lives, first, tmp_path / "second", "while it loads", faults)
        second.serving()
        client = Client(second, STREAM)
        client.until(TOKEN)
        next_life(lives, second, tmp_path / "third", "during a stream", faults)
        client.until_end()
        assert client.is_broken, client.received[-500:]
        held = first.segments | second.segments
        assert not {path.name for path in held if path.exists()}


def next_life(lives: ExitStack, box: Box, folder: Path, when: str, faults: Faults) -> Box:
    """Kill an appliance, see its engine outlive it, and the next life end that and serve."""
    leader = box.leader
    box.segments |= shared_memory(leader)
    box.appliance.process.kill()
    box.appliance.process.wait()
    killed_at = time.time()
    assert tree.members(leader), "the engine is expected to outlive its appliance"
    state = box.appliance.state_dir
    begun_at = time.time()
    after = lives.enter_context(real_box(folder, state_dir=state))
    found = "engine.orphans"
    wait_until(lambda: found in after.appliance.err, 30, "the orphans to be found")
    gone_s = after.until(1, "starting", within_s=60).at - begun_at
    assert not tree.members(leader), engines.describe(tree.members(leader))
    log = after.appliance.err
    assert log.index(found) < log.index("engine.settled") < log.index("to=starting"), log
    ready = after.until(1, "ready", within_s=LOAD_S)
    fault = f"real: kill -9 of the appliance {when}"
    seen = "cut off; the next life ends the old engine, awaits its memory, and serves"
    faults.row(fault, gone_s, ready.at - killed_at, seen)
    return after
