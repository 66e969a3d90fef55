"""``appliance top`` beside a running appliance: on a terminal until q, elsewhere one look."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from appliance.cli import main
from tests.appliances import COMMAND, ApplianceProcess, clean_environment
from tests.engines import ROOT, wait_until


def test_in_a_pipe_it_is_one_look_without_colour(
    box: ApplianceProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in box.env.items():
        monkeypatch.setenv(name, value)
    assert main(["top"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("READY  Nikola")
    assert "Application startup complete" in out
    assert "\x1b" not in out
    assert main(["top", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["status"]["state"] == "ready"


def test_without_an_appliance_it_ends_with_1_and_says_what_to_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", "--state-dir", str(tmp_path)]) == 1
    assert "appliance run" in capsys.readouterr().err


class Terminal:
    """``appliance top`` on a terminal of 80 by 24."""

    def __init__(self, box: ApplianceProcess, term: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        env = clean_environment() | dict(box.env) | {"PYTHONPATH": str(ROOT), "TERM": term}
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        os.set_blocking(self.master, False)
        self.process = subprocess.Popen(
            [*COMMAND, "top"], env=env, stdin=slave, stdout=slave, stderr=slave
        )
        self.seen = b""

    def shows(self, text: bytes) -> bool:
        with suppress(BlockingIOError):
            self.seen += os.read(self.master, 65536)
        return text in self.seen

    def until(self, text: bytes) -> None:
        wait_until(lambda: self.shows(text), 20, f"{text!r} in {self.seen[-2000:]!r}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


def test_on_a_terminal_it_draws_until_q_and_leaves_the_terminal_as_it_was(
    box: ApplianceProcess,
) -> None:
    terminal = Terminal(box, "xterm-256color")
    try:
        terminal.until(b"q leaves")
        os.write(terminal.master, b"xq")
        terminal.until(b"\x1b[?1049l")  # back from the screen of its own
        assert terminal.process.wait(20) == 0
        assert termios.tcgetattr(terminal.slave) == terminal.before
    finally:
        terminal.close()


def test_ctrl_c_ends_it_with_130_and_no_traceback(box: ApplianceProcess) -> None:
    terminal = Terminal(box, "xterm-256color")
    try:
        terminal.until(b"q leaves")
        os.write(terminal.master, b"\x03")
        # the terminal sends SIGINT only to who leads a session on it: do what it would
        terminal.process.send_signal(2)
        terminal.until(b"\x1b[?1049l")
        assert terminal.process.wait(20) == 130
        assert b"Traceback" not in terminal.seen
        assert termios.tcgetattr(terminal.slave) == terminal.before
    finally:
        terminal.close()


def test_a_dumb_terminal_gets_one_look(box: ApplianceProcess) -> None:
    terminal = Terminal(box, "dumb")
    try:
        terminal.until(b"Application startup complete")
        assert terminal.process.wait(20) == 0
        assert b"\x1b[?1049h" not in terminal.seen
    finally:
        terminal.close()
