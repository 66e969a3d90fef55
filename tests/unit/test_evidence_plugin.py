"""The evidence plug-in: it needs no vLLM, so it is shown on plain Python processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines import ROOT, wait_until

PLUGIN = ROOT / "unglitched_vllm" / "plugin"
# A thread that holds the interpreter's lock in C code: only a C handler still runs.
BODY = """
import re, sys
from unglitched_vllm_plugin.evidence import register
register()
register()
print("up", flush=True)
def stuck():
    re.match(r"(a*)*b", "a" * 60)
def sleeps():
    sys.stdin.read()
{}()
"""


def process(folder: Path | None, function: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(PLUGIN)}
    env.pop("UNGLITCHED_EVIDENCE_DIR", None)
    if folder:
        env["UNGLITCHED_EVIDENCE_DIR"] = str(folder)
    started = subprocess.Popen(
        [sys.executable, "-c", BODY.format(function)],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == b"up\n"
    return started


def end(started: subprocess.Popen[bytes]) -> None:
    started.kill()
    started.communicate()


@pytest.mark.parametrize("function", ["stuck", "sleeps"])
def test_a_process_tells_where_it_is_even_when_it_hangs(tmp_path: Path, function: str) -> None:
    started = process(tmp_path, function)
    stacks = tmp_path / f"stacks-{started.pid}.txt"
    try:

        def told() -> bool:
            started.send_signal(signal.SIGUSR2)  # again: the first may come before the call
            return f"in {function}" in stacks.read_text()

        wait_until(told, 10, "the stacks")
        assert started.poll() is None
    finally:
        end(started)


@pytest.mark.parametrize("folder", [None, Path("/nowhere/at/all")])
def test_without_a_folder_the_process_is_left_alone(folder: Path | None) -> None:
    started = process(folder, "sleeps")
    try:
        caught = Path(f"/proc/{started.pid}/status").read_text().split("SigCgt:")[1].split()[0]
        assert not int(caught, 16) & (1 << (signal.SIGUSR2 - 1))
    finally:
        end(started)
