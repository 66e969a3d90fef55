"""The emergency guard over a file that the test writes: when it kills, and when it must not."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.floors import GuardPolicy
from appliance.guards import Emergency, EmergencyGuard, Meminfo

GIB = 2**30
LIMIT = 2 * GIB
POLICY = GuardPolicy(emergency_every_s=0.01, window_s=0.04)
LONG_S = 20.0


class Machine:
    """A made-up machine whose memory the test sets."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "meminfo"
        self.set(16.0)
        self.deeds: list[str] = []
        self.found: list[Emergency] = []
        self.fired = threading.Event()

    def set(self, gib: float) -> None:
        # one write of one length: the reader never sees half of it
        text = f"MemTotal:       127601452 kB\nMemAvailable: {int(gib * 2**20):12d} kB\nX: 1 kB\n"
        with self.path.open("r+b" if self.path.exists() else "wb", buffering=0) as file:
            file.write(text.encode())

    def guard(self, policy: GuardPolicy = POLICY) -> EmergencyGuard:
        return EmergencyGuard(self.path, LIMIT, policy, self._kill, self._on_fired)

    def _kill(self) -> None:
        self.deeds.append("kill")

    def _on_fired(self, emergency: Emergency) -> None:
        self.deeds.append("tell")
        self.found.append(emergency)
        self.fired.set()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def armed(machine: Machine) -> Iterator[EmergencyGuard]:
    guard = machine.guard()
    guard.start()
    yield guard
    guard.stop()


def test_below_the_limit_it_kills_and_then_tells(machine: Machine, armed: EmergencyGuard) -> None:
    machine.set(1.5)
    assert machine.fired.wait(LONG_S)
    assert machine.deeds == ["kill", "tell"]
    assert machine.found == [Emergency(int(1.5 * GIB), LIMIT, is_projected=False)]


def test_it_kills_once(machine: Machine, armed: EmergencyGuard) -> None:
    machine.set(1.0)
    assert machine.fired.wait(LONG_S)
    armed.stop()
    assert machine.deeds.count("kill") == 1


def test_a_fall_while_it_loads_is_no_emergency(machine: Machine, armed: EmergencyGuard) -> None:
    for gib in (14, 12, 9, 6, 4, 2.5):
        machine.set(gib)
        assert not machine.fired.wait(0.03)
    armed.stop()
    assert machine.deeds == []


def test_a_slide_while_it_serves_is_taken_to_go_on(machine: Machine, armed: EmergencyGuard) -> None:
    armed.serving(True)
    gib = 16.0
    while not machine.fired.wait(POLICY.emergency_every_s) and gib > 3:
        gib -= 0.05
        machine.set(gib)
    assert machine.fired.is_set()
    assert machine.found[0].is_projected
    assert gib > 3, "long before the limit"


def test_one_step_is_no_slide(machine: Machine, armed: EmergencyGuard) -> None:
    armed.serving(True)
    for gib in (12.0, 8.0, 4.0):
        machine.set(gib)
        assert not machine.fired.wait(0.2)
    armed.stop()
    assert machine.deeds == []


def test_an_engine_that_is_stopped_is_not_judged_by_its_slide(
    machine: Machine, armed: EmergencyGuard
) -> None:
    armed.serving(True)
    armed.serving(False)
    for step in range(40):
        machine.set(16 - step * 0.3)
        assert not machine.fired.wait(POLICY.emergency_every_s)
    armed.stop()
    assert machine.deeds == []


def test_the_fall_of_the_load_is_not_held_against_it(machine: Machine) -> None:
    guard = machine.guard()
    guard.start()
    machine.set(6.0)
    assert not machine.fired.wait(0.1)
    guard.serving(True)
    assert not machine.fired.wait(0.1)
    guard.stop()
    assert machine.deeds == []


def test_one_that_was_disarmed_does_not_kill(machine: Machine, armed: EmergencyGuard) -> None:
    armed.stop()
    machine.set(0.5)
    armed.stop()
    assert machine.deeds == []


def test_one_that_was_never_armed_lets_go_of_its_file(machine: Machine) -> None:
    machine.guard().stop()


def test_what_cannot_be_read_is_no_emergency(machine: Machine, armed: EmergencyGuard) -> None:
    for text in (b"", b"MemAvailable:", b"MemAvailable: some kB\n", b"MemTotal: 5 kB\n"):
        machine.path.write_bytes(text)
        assert not machine.fired.wait(0.03)
    machine.set(1.0)
    assert machine.fired.wait(LONG_S), "and it goes on looking"


def test_the_real_file_is_read(tmp_path: Path) -> None:
    meminfo = Meminfo(Path("/proc/meminfo"))
    try:
        available = meminfo.available_bytes()
        assert available is not None
        assert available > 64 * 2**20
        assert meminfo.available_bytes() is not None, "again through the same file"
    finally:
        meminfo.close()


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Meminfo(tmp_path / "none")


def test_pages_are_pinned_or_it_is_said_why() -> None:
    code = (
        "import re; from appliance.guards import pin_memory; why = pin_memory();"
        "locked = int(re.search(r'VmLck:\\s+(\\d+)', open('/proc/self/status').read())[1]);"
        "assert bool(why) != (locked > 0), (why, locked)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
