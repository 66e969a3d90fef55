"""One run at a time, and rights are tested before anything is done."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helper.driving import Build, Run, fake_roots, run
from tests.helper.machine import Machine
from tests.helper.machines import SESSION, spark

NOBODY = 65534


def evict(build: Build, machine: Machine, *flags: str, user: int | None = None) -> Run:
    args = ["evict", "--target-available", "112G", "--cgroup", SESSION, *flags]
    return run(build, [*args, *fake_roots(machine)], machine=machine, user=user)


def test_a_held_lock_refuses(native: Build, machine: Machine) -> None:
    machine.save()
    lock = machine.root / "lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = evict(native, machine, "--apply", "--lock", str(lock))

    assert (done.exit_code, done.at("stop_reason")) == (3, "locked")
    assert done.at("dry_run") is False
    assert done.at("recorded") == []


def test_a_dry_run_asks_for_no_lock(native: Build, machine: Machine) -> None:
    machine.save()
    lock = machine.root / "lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = evict(native, machine)

    assert (done.exit_code, done.at("stop_reason")) == (0, "feasible")


def test_a_link_as_lock_is_refused(native: Build, machine: Machine) -> None:
    machine.save()
    (machine.root / "lock").symlink_to("elsewhere")
    (machine.root / "elsewhere").write_text("")

    done = evict(native, machine, "--apply", "--lock", f"{machine.root}/lock")

    assert (done.exit_code, done.at("stop_reason")) == (8, "no_lock")
    assert "--lock" in done.stderr


def test_fake_roots_create_no_lock(native: Build, machine: Machine) -> None:
    machine.save()

    assert evict(native, machine, "--apply", "--lock", f"{machine.root}/lock").exit_code == 0
    assert not (machine.root / "lock").exists()


def test_without_fake_roots_no_hook_is_read(native: Build, tmp_path: Path) -> None:
    """The pause is for fake roots alone: a real run tells the test nothing."""
    shard = tmp_path / "a.safetensors"
    shard.write_bytes(b"x" * 4096)

    done = run(native, ["drop-cache", str(shard)], machine=Machine(tmp_path))

    assert done.exit_code == 0
    assert (done.told, done.at("recorded")) == ([], [])


@pytest.fixture
def open_machine() -> Iterator[Machine]:
    """A machine in a folder that another user may enter; pytest's own folders are private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        machine = spark(Path(folder))
        machine.save()
        yield machine


@pytest.mark.parametrize("mode", [0o444, 0o200], ids=["read only", "delegated"])
def test_only_who_may_write_the_knob_may_evict(
    native: Build, open_machine: Machine, mode: int
) -> None:
    """Run as nobody where we are root; else as ourselves, who own the file."""
    knob = open_machine.root / "cgroup" / SESSION / "memory.reclaim"
    user = NOBODY if os.geteuid() == 0 else None
    if user is not None:
        os.chown(knob, user, -1)
    knob.chmod(mode)

    done = evict(native, open_machine, user=user)

    expected = (8, "no_permission") if mode == 0o444 else (0, "feasible")
    assert (done.exit_code, done.at("stop_reason")) == expected
