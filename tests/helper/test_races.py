"""Between plan and act the world may change: what was judged must still be what is written to."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helper.driving import Build, Run, fake_roots, run
from tests.helper.machine import MIB, Machine, Proc
from tests.helper.machines import GDM, SESSION

GOAL = ("--target-available", "111G", "--apply")


def evict(build: Build, machine: Machine, change: Callable[[], None], *flags: str) -> Run:
    machine.save()
    args = ["evict", *GOAL, *flags, *fake_roots(machine), "--lock", f"{machine.root}/lock"]
    return run(build, args, machine=machine, planned=lambda _process: change())


def refused_for(done: Run, reason: str) -> None:
    assert (done.exit_code, done.at("stop_reason")) == (3, reason), done.stderr
    assert done.at("recorded") == []
    assert done.at("mechanisms") == []


def swap_for_link(folder: Path, target: Path) -> None:
    folder.rename(folder.with_name("moved-away"))
    folder.symlink_to(target)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_component_that_becomes_a_link_is_not_followed(
    native: Build, machine: Machine, parts: int
) -> None:
    folder = machine.root.joinpath("cgroup", *Path(SESSION).parts[:parts])

    done = evict(
        native,
        machine,
        lambda: swap_for_link(folder, folder.with_name("moved-away")),
        *("--cgroup", SESSION),
    )

    refused_for(done, "unsafe_path")


def test_a_knob_that_becomes_a_link_is_not_followed(native: Build, machine: Machine) -> None:
    knob = machine.root / "cgroup" / SESSION / "memory.reclaim"

    done = evict(
        native, machine, lambda: swap_for_link(knob, Path("/dev/null")), "--cgroup", SESSION
    )

    refused_for(done, "unsafe_path")


def test_another_folder_of_the_same_name_is_refused(native: Build, machine: Machine) -> None:
    folder = machine.root / "cgroup" / SESSION

    def replace() -> None:
        folder.rename(folder.with_name("moved-away"))
        machine.save_group(SESSION)

    refused_for(evict(native, machine, replace, "--cgroup", SESSION), "changed")


def test_a_daemon_that_moves_in_protects_the_cgroup(native: Build, machine: Machine) -> None:
    def move_in() -> None:
        machine.save_process(3000, Proc("sshd"))
        machine.groups[SESSION].pids = (2001, 2002, 3000)
        machine.save_group(SESSION)

    refused_for(evict(native, machine, move_in, "--cgroup", SESSION), "protected")


def test_an_engine_that_starts_ends_it(native: Build, machine: Machine) -> None:
    done = evict(
        native,
        machine,
        lambda: machine.save_process(4242, Proc("VLLM::EngineCor")),
        *("--cgroup", SESSION),
    )

    assert (done.exit_code, done.at("stop_reason")) == (6, "engine_started")
    assert done.at("recorded") == []


def test_one_that_changed_leaves_the_others_usable(native: Build, machine: Machine) -> None:
    folder = machine.root / "cgroup" / SESSION

    done = evict(
        native,
        machine,
        lambda: swap_for_link(folder, folder.with_name("moved-away")),
        *("--cgroup", SESSION, "--cgroup", GDM),
    )

    assert done.exit_code == 0
    assert {one["object"] for one in done.at("mechanisms")} == {GDM}


def test_a_pid_that_was_given_away_is_refused(native: Build, machine: Machine) -> None:
    def reuse() -> None:
        machine.procs[2002].start += 1
        machine.save_process(2002, machine.procs[2002])

    refused_for(evict(native, machine, reuse, "--pid", "2002"), "changed")


def test_a_pid_that_is_still_itself_is_paged_out(native: Build, machine: Machine) -> None:
    done = evict(native, machine, lambda: None, "--pid", "2002", "--step", f"{256 * MIB}")

    assert done.exit_code == 0
    assert done.at("mechanisms.0.object") == SESSION
