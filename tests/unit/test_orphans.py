"""What an earlier life of the appliance left: found by its record, ended, and nobody else."""

import asyncio
import os
import signal
from dataclasses import replace

import msgspec
import pytest

from appliance import tree
from appliance.orphans import EngineRecord, end_orphans, find_orphans, record_of
from tests.unit.test_tree import TOKEN, Families, family, subreaper, wait_gone

__all__ = ["family", "subreaper"]  # fixtures

OTHER = "fedcba9876543210"
NOBODY = 65534  # the uid


def killed(families: Families, source: str, *names: str, token: str = TOKEN) -> EngineRecord:
    """Start an engine, write it down, kill its leader -9; return the record."""
    engine = families(source, *names, token=token)
    record = record_of(engine.pid, token)
    engine.process.kill()
    engine.process.wait(10)
    return record


def pids(families: Families, *names: str) -> set[int]:
    return {families.started[0].pids[name] for name in names}


def test_a_record_names_the_process_for_good(family: Families) -> None:
    engine = family("", token=TOKEN)
    record = record_of(engine.pid, TOKEN)
    assert record.start_ticks == tree.start_ticks(engine.pid)
    assert (record.pid, record.boot_id, record.token) == (engine.pid, tree.boot_id(), TOKEN)
    assert record.init_ticks == tree.start_ticks(1)
    assert find_orphans(record) == {engine.pid}


def test_a_record_survives_being_written_down() -> None:
    record = record_of(os.getpid(), TOKEN)
    assert msgspec.json.decode(msgspec.json.encode(record), type=EngineRecord) == record


def test_the_session_of_a_leader_that_is_gone_is_ours(family: Families) -> None:
    record = killed(family, "child('a'); orphan('b')", "a", "b", token="")
    assert find_orphans(record) == pids(family, "a", "b")


def test_a_leader_that_nobody_waited_for_does_not_hide_its_session(family: Families) -> None:
    engine = family("child('a')", "a")
    record = record_of(engine.pid, "")
    engine.process.kill()
    wait_gone(engine.pid)
    assert find_orphans(record) == pids(family, "a")


def test_a_stranger_with_the_number_of_the_leader_is_spared(
    family: Families, stranger: int
) -> None:
    family("orphan('a', os.setsid)", "a", token=TOKEN)
    record = replace(record_of(stranger, TOKEN), start_ticks=1)
    assert find_orphans(record) == pids(family, "leader", "a")
    assert find_orphans(replace(record, token=OTHER)) == set()


def test_a_spawn_that_was_decided_and_not_noted_is_found_by_its_token(family: Families) -> None:
    family("orphan('a', os.setsid)", "a", token=TOKEN)
    assert find_orphans(record_of(0, TOKEN)) == pids(family, "leader", "a")


def test_a_record_of_nothing_finds_nothing() -> None:
    assert find_orphans(record_of(0, "")) == set()


def test_a_reboot_left_nothing(family: Families) -> None:
    record = killed(family, "orphan('a')", "a")
    assert find_orphans(record)
    assert find_orphans(replace(record, boot_id="another")) == set()


def test_a_container_that_started_again_left_nothing(family: Families) -> None:
    record = killed(family, "orphan('a')", "a")
    assert find_orphans(replace(record, init_ticks=record.init_ticks + 1)) == set()


def test_a_record_without_the_start_of_pid_1_still_counts(family: Families) -> None:
    record = killed(family, "orphan('a')", "a")
    assert find_orphans(replace(record, init_ticks=0)) == pids(family, "a")


async def test_the_orphans_are_ended_and_the_stranger_is_not(
    family: Families, stranger: int
) -> None:
    source = "child('a', deaf); orphan('b', os.setsid, deaf); orphan('c', own_group)"
    record = killed(family, source, "a", "b", "c")
    left = find_orphans(record)
    assert left == pids(family, "a", "b", "c")
    assert await end_orphans(record, timeout_s=10)
    assert find_orphans(record) == set()
    for pid in left:
        wait_gone(pid)


async def test_a_stopped_orphan_is_ended(family: Families) -> None:
    record = killed(family, "orphan('a')", "a")
    (pid,) = find_orphans(record)
    os.kill(pid, signal.SIGSTOP)
    assert await end_orphans(record, timeout_s=10)


async def test_an_engine_whose_leader_still_lives_is_ended_whole(family: Families) -> None:
    engine = family("child('a')", "a", token=TOKEN)
    assert await end_orphans(record_of(engine.pid, TOKEN), timeout_s=10)
    wait_gone(engine.pid)
    assert engine.process.wait(10) == -signal.SIGKILL


async def test_orphans_that_fork_meanwhile_are_ended_too(family: Families) -> None:
    breed = "while True:\n  if os.fork() == 0: hang()\n  signal.sigtimedwait([], 0.01)"
    record = killed(family, f"if os.fork() == 0:\n say('a')\n exec({breed!r})", "a")
    assert await end_orphans(record, timeout_s=20)
    assert find_orphans(record) == set()


async def test_an_end_of_nothing_is_done_at_once() -> None:
    async with asyncio.timeout(5):
        assert await end_orphans(record_of(0, TOKEN), timeout_s=60)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody without the right")
async def test_survivors_are_told(family: Families) -> None:
    record = killed(family, "orphan('a')", "a")
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        assert not await end_orphans(record, timeout_s=0.2)
    finally:
        os.setresuid(0, 0, 0)
    assert find_orphans(record) == pids(family, "a")
