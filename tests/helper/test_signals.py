"""A signal ends the helper soon, and the report is still written."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests import engines
from tests.helper.driving import OUT, SANITIZER, Build, fake_roots, run
from tests.helper.machine import MIB, Machine
from tests.helper.machines import SESSION


def has_child(pid: int) -> bool:
    return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


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


def test_a_signal_ends_a_probe_that_waits_for_a_driver(native: Build, machine: Machine) -> None:
    machine.save()
    env = {**os.environ, "LD_LIBRARY_PATH": str(native.stub("")), "STUB_HANG": "1"}
    argv = [*native.argv, "probe", *fake_roots(machine)]
    with subprocess.Popen(
        argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as probe:
        engines.wait_until(lambda: has_child(probe.pid), 20.0, "the probe to ask its driver")
        probe.terminate()
        out, _ = probe.communicate(timeout=20)

    assert probe.returncode == 143
    assert json.loads(out)["stop_reason"] == "signal"


def test_a_driver_that_hangs_does_not_hang_us(native: Build, machine: Machine) -> None:
    machine.save()
    env = {"LD_LIBRARY_PATH": str(native.stub("")), "STUB_HANG": "1"}

    done = run(native, ["probe", *fake_roots(machine)], env=env)

    assert done.exit_code == 0
    assert done.at("uma.cuda") == "error"
    assert "did not answer" in done.at("uma.error")
