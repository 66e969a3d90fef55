"""A signal ends the helper soon, and the report is still written."""

import signal
import subprocess

import pytest

from tests.helper.driving import OUT, SANITIZER, Build, fake_roots, run
from tests.helper.machine import MIB, Machine
from tests.helper.machines import SESSION


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_plan_and_act_writes_the_report_and_nothing_else(
    native: Build, machine: Machine, number: signal.Signals
) -> None:
    machine.save()
    args = ["evict", "--apply", "--target-available", "112G", "--cgroup", SESSION]

    done = run(
        native,
        [*args, *fake_roots(machine), "--lock", f"{machine.root}/lock"],
        machine=machine,
        planned=lambda process: process.send_signal(number),
    )

    assert done.exit_code == 128 + number
    assert done.at("stop_reason") == "signal"
    assert done.at("recorded") == []


def test_a_signal_while_it_works_reports_what_was_done(native: Build, machine: Machine) -> None:
    machine.save()
    running: list[subprocess.Popen[bytes]] = []

    def kernel(machine: Machine, target: str, text: str) -> tuple[int, int]:
        machine.page_out(target, int(text.split()[0]))
        if len(machine.writes) == 3:
            running[0].send_signal(signal.SIGTERM)
        return 0, 20

    args = ["evict", "--apply", "--target-available", "112G", "--cgroup", SESSION]
    done = run(
        native,
        [*args, *fake_roots(machine), "--lock", f"{machine.root}/lock"],
        machine=machine,
        kernel=kernel,
        planned=running.append,
    )

    assert done.exit_code == 143
    assert done.at("mechanisms.0.steps") == 3
    assert done.at("delta.MemAvailable") == 3 * 64 * MIB


def test_what_sits_in_the_kernel_is_cut_by_a_signal_and_leaves_no_child(
    built: dict[str, Build],
) -> None:
    done = subprocess.run(
        [OUT / "bounded"], capture_output=True, text=True, timeout=60, env=SANITIZER
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == 7
