"""The appliance itself: how it ends, how it is killed, and what its next life makes of that."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance import tree
from tests.appliances import (
    ASKED,
    CHAT,
    COMMAND,
    LONG,
    ApplianceProcess,
    RunAppliance,
    clean_environment,
    engines_of,
    environment,
)
from tests.engines import ROOT, wait_until

BLABBER = ROOT / "tests" / "fault" / "blabbing_engine.py"
PACED = ("--chunk-delay", "0.02")
GONE_S = 20.0


class Reader:
    """A client that reads a stream beside the test; ``text`` is what has come."""

    def __init__(self, box: ApplianceProcess, **more: object) -> None:
        self.text = ""
        self.broken = False
        self._box = box
        self._body = {**LONG, "stream": True, **more}
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        wait_until(lambda: self.text.count("data:") > 2, 20, "the stream to run")

    def _read(self) -> None:
        try:
            with self._box.http() as http, http.stream("POST", CHAT, json=self._body) as reply:
                for part in reply.iter_text():
                    self.text += part
        except httpx.HTTPError:
            self.broken = True

    def end(self) -> bool:
        """Wait for its end; tell whether it was whole."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.text.endswith("data: [DONE]\n\n") and not self.broken


def next_life(run: RunAppliance, first: ApplianceProcess, **settings: Any) -> ApplianceProcess:
    """Start an appliance on the state folder, and for the model, of another."""
    same: dict[str, Any] = {"state_dir": first.state_dir, "model_dir": first.folder / "model"}
    return run(**same, **settings)


def killed(box: ApplianceProcess) -> dict[int, int | None]:
    """Kill the appliance -9; return what it leaves behind, each by pid and start."""
    left = {pid: tree.start_ticks(pid) for pid in engines_of(box.folder)}
    box.process.kill()
    box.process.wait(10)
    assert left
    return left


def are_gone(left: dict[int, int | None]) -> bool:
    """Tell whether none of these processes lives on: its number may be another's by now."""
    living = {p.pid: p.start_ticks for p in tree.processes() if p.is_alive}
    return not any(living.get(pid) == ticks for pid, ticks in left.items())


# ---- signals


def test_a_first_signal_lets_a_stream_end_whole_and_exits_with_zero(run: RunAppliance) -> None:
    box = run(*PACED, drain_timeout_s=30)
    box.until("ready")
    reader = Reader(box, max_tokens=60)
    box.signal(signal.SIGTERM)
    box.until("draining")
    assert reader.end()
    assert box.code() == 0
    assert not engines_of(box.folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once_and_leaves_nothing(
    run: RunAppliance, number: signal.Signals
) -> None:
    faults = (*PACED, "--deaf-to-sigterm", "--fork-grandchild")
    box = run(*faults, drain_timeout_s=300, stop_timeout_s=300)
    box.until("ready")
    reader = Reader(box)
    assert len(engines_of(box.folder)) == 2
    box.signal(number)
    box.until("draining")
    began = time.monotonic()
    box.signal(number)
    assert box.code() == 128 + number
    assert time.monotonic() - began < 30  # and not the five minutes of either deadline
    assert not reader.end()
    assert not engines_of(box.folder)
    assert not (box.state_dir / "control.sock").exists()
    assert json.loads((box.state_dir / "engine.json").read_bytes())["engine"] is None


# ---- killed, and born again


@pytest.mark.parametrize("faults", [(), ("--deaf-to-sigterm", "--fork-grandchild")])
def test_an_engine_orphaned_in_mid_stream_is_ended_by_the_next_life(
    run: RunAppliance, faults: tuple[str, ...]
) -> None:
    box = run(*PACED, *faults)
    box.until("ready")
    reader = Reader(box)
    left = killed(box)
    assert not reader.end()
    assert not are_gone(left)
    again = next_life(run, box)
    again.until("ready")
    assert are_gone(left)
    assert "engine.orphans" in again.err
    assert f"processes={len(left)}" in again.err
    with again.http() as http:
        assert http.post(CHAT, json=ASKED).status_code == 200


def test_an_engine_orphaned_while_it_loads_is_ended_by_the_next_life(run: RunAppliance) -> None:
    box = run("--never-ready", "--deaf-to-sigterm")
    # at its first sign, when its pid may not have been written down yet
    wait_until(lambda: bool(engines_of(box.folder)), 20, "the engine")
    left = killed(box)
    again = next_life(run, box)
    again.until("ready")
    assert are_gone(left)
    # mostly the next life has ended it; one that wrote to the broken pipe first, ended by itself


def test_a_life_that_ended_well_leaves_no_orphan_to_be_told_of(run: RunAppliance) -> None:
    box = run()
    box.until("ready")
    box.signal(signal.SIGTERM)
    assert box.code() == 0
    again = next_life(run, box)
    again.until("ready")
    assert "engine.orphans" not in again.err


# ---- what the state folder says


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """Somebody else's process, leader of its own session."""
    command = [sys.executable, "-c", "import signal; signal.pause()"]
    process = subprocess.Popen(command, start_new_session=True)
    yield process
    process.kill()
    process.wait(10)


def record(folder: Path, pid: int, start_ticks: int) -> None:
    """Write by hand what a killed appliance leaves."""
    init_ticks = tree.start_ticks(1)
    engine = {"pid": pid, "start_ticks": start_ticks, "token": "0" * 16, "init_ticks": init_ticks}
    kept = {"version": 1, "boot_id": tree.boot_id(), "choice": "", "engine": engine}
    folder.mkdir(mode=0o700)
    (folder / "engine.json").write_text(json.dumps(kept))


def test_a_stranger_that_has_the_recorded_pid_is_spared(
    run: RunAppliance, tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    ticks = tree.start_ticks(stranger.pid)
    assert ticks
    record(tmp_path / "state", stranger.pid, ticks - 1)
    box = run(state_dir=tmp_path / "state")
    box.until("ready")
    assert stranger.poll() is None
    assert "engine.orphans" not in box.err


def test_the_recorded_process_itself_is_not(
    run: RunAppliance, tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    # or the test above would show nothing
    ticks = tree.start_ticks(stranger.pid)
    assert ticks
    record(tmp_path / "state", stranger.pid, ticks)
    box = run(state_dir=tmp_path / "state")
    assert stranger.wait(GONE_S) == -signal.SIGKILL
    box.until("ready")
    assert "engine.orphans" in box.err


@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff\xfe", b"[" * 5000, b'{"version": 99}', b'{"version": 1, "rung": -1}', b""],
    ids=["cut", "binary", "deep", "of another version", "out of range", "empty"],
)
def test_a_state_file_that_means_nothing_is_set_aside(
    run: RunAppliance, tmp_path: Path, content: bytes
) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    (folder / "engine.json").write_bytes(content)
    box = run(state_dir=folder)
    box.until("ready")
    assert (folder / "engine.json.damaged").read_bytes() == content
    assert "state.not_read" in box.err
    assert json.loads((folder / "engine.json").read_bytes())["version"] == 1


def test_failures_are_kept_in_seconds_since_boot(run: RunAppliance) -> None:
    # a clock that is set, at boot above all, must not make an old failure new or a new one old
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    box = run("--never-ready", "--exit-code", "1", restart_backoff_s=0.1, restart_max_failures=2)
    box.until("failed")
    after = time.clock_gettime(time.CLOCK_BOOTTIME)
    path = box.state_dir / "engine.json"
    wait_until(lambda: bool(json.loads(path.read_bytes())["gave_up"]), 10, "it to be kept")
    failures = json.loads(path.read_bytes())["failures"]
    assert len(failures) == 2
    assert before < failures[0] < failures[1] < after


# ---- PID 1


def may_unshare() -> bool:
    """Tell whether a PID namespace can be made here."""
    argv = ["unshare", "-pf", "--mount-proc", "true"]
    with suppress(OSError):
        return subprocess.run(argv, capture_output=True, timeout=10).returncode == 0
    return False


@contextmanager
def as_pid_1(folder: Path, **settings: object) -> Iterator[tuple[ApplianceProcess, int]]:
    """Run an appliance as PID 1 of its own namespace; yield it with its pid out here."""
    folder.mkdir()
    env = environment(folder, **settings)
    with (folder / "out.log").open("wb") as out, (folder / "err.log").open("wb") as err:
        process = subprocess.Popen(
            ["unshare", "-pf", "--mount-proc", "--kill-child", *COMMAND, "run"],
            env=clean_environment() | env | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder,
            start_new_session=True,
        )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    box = ApplianceProcess(process, folder, env)
    try:
        box.until("ready")
        yield box, int(children.read_text())
    finally:
        # the kernel ends a namespace with its PID 1, which unshare takes along
        process.kill()
        process.wait(10)


def pids_there(pid: int) -> str:
    """Return a process's numbers from the outermost namespace to its own; "" when it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return line.partition(":")[2].strip()
    return ""


@pytest.mark.skipif(not may_unshare(), reason="no PID namespace can be made here")
def test_as_pid_1_it_reaps_orphans_and_ends_with_zero(tmp_path: Path) -> None:
    note = tmp_path / "orphan"
    command = f"{sys.executable} {BLABBER} --leave-orphan {note}"
    with as_pid_1(tmp_path / "box", engine_command=command) as (box, pid):
        assert pids_there(pid).split()[-1] == "1"
        there = note.read_text()
        (orphan,) = (
            process
            for process in tree.processes()
            if process.parent == pid and pids_there(process.pid).split()[-1:] == [there]
        )
        os.kill(orphan.pid, signal.SIGKILL)
        wait_until(lambda: pids_there(orphan.pid) == "", GONE_S, "the orphan to be reaped")
        with box.http() as http:
            assert http.post(CHAT, json=ASKED).status_code == 200
        os.kill(pid, signal.SIGTERM)
        assert box.code() == 0, box.err
        assert not engines_of(box.folder)
        assert "Traceback" not in box.err
