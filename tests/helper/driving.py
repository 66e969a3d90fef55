"""Run the built helper over a fake machine, answer its writes, and read what it said."""

import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helper.machine import Kernel, Machine

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build" / "helper"
SANITIZER = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
LIMIT_S = 60


@dataclass(frozen=True)
class Build:
    """One form of the helper: how it is started and where its stub libcuda lies."""

    name: str
    argv: tuple[str, ...]
    cuda: str

    def stub(self, kind: str) -> Path:
        """Return the folder of the stub: ``""`` is the whole one, ``old`` lacks an entry point."""
        return OUT / (f"cuda-{self.cuda}-{kind}" if kind else f"cuda-{self.cuda}")


BUILDS = {
    "native": Build("native", (str(OUT / "native"),), "native"),
    "sanitized": Build("sanitized", (str(OUT / "sanitized"),), "native"),
    "aarch64": Build(
        "aarch64",
        ("qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu", str(OUT / "aarch64")),
        "aarch64",
    ),
}


@dataclass
class Run:
    """One finished run: exit code, the report (None for --help), stderr and what was told."""

    exit_code: int
    report: dict[str, Any] | None
    stdout: str
    stderr: str
    told: list[str] = field(default_factory=list)

    def at(self, path: str) -> Any:
        """Return a field of the report: ``target.deficit``, ``candidates.0.reason``."""
        value: Any = self.report
        for part in path.split("."):
            if isinstance(value, list):
                value = len(value) if part == "len" else value[int(part)]
            else:
                value = value[part]
        return value


def plain_kernel(machine: Machine, target: str, text: str) -> tuple[int, int]:
    """A kernel of 6.16 or newer: it takes every form, and pages out what is asked."""
    machine.page_out(target, int(text.split()[0]))
    return 0, 20


def fake_roots(machine: Machine) -> list[str]:
    """Return the flags that put a fake machine in the place of the real one."""
    root = machine.root
    return [
        *("--proc-root", f"{root}/proc"),
        *("--sys-root", f"{root}/sys"),
        *("--cgroup-root", f"{root}/cgroup"),
    ]


def run(
    build: Build,
    args: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    machine: Machine | None = None,
    kernel: Kernel = plain_kernel,
    planned: Callable[[subprocess.Popen[bytes]], None] | None = None,
    user: int | None = None,
) -> Run:
    """Run to the end, at most ``LIMIT_S``; ``planned`` is called between plan and act."""
    ours, theirs = socket.socketpair()
    ours.settimeout(LIMIT_S)
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", **SANITIZER, **(env or {})}
    if machine is not None:
        environment["FORCE_SWAP_TEST_PAUSE_FD"] = str(theirs.fileno())
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, ours:
        process = subprocess.Popen(
            [*build.argv, *args],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment,
            pass_fds=[theirs.fileno()],
            user=user,
        )
        theirs.close()
        try:
            told = _answer(ours, process, machine, kernel, planned)
            code = process.wait(LIMIT_S)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait(LIMIT_S)
        out.seek(0)
        err.seek(0)
        text = out.read().decode("utf-8")
        return Run(code, _report(text), text, err.read().decode("utf-8", "replace"), told)


def _report(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    assert text.count("\n") == 1, "stdout is one line of JSON"
    report: dict[str, Any] = json.loads(text)
    return report


def _answer(
    ours: socket.socket,
    process: subprocess.Popen[bytes],
    machine: Machine | None,
    kernel: Kernel,
    planned: Callable[[subprocess.Popen[bytes]], None] | None,
) -> list[str]:
    """Answer each line of the helper until it hangs up; return the lines."""
    told: list[str] = []
    with ours.makefile("rwb") as stream:
        for raw in stream:
            line = raw.decode("utf-8", "surrogateescape").rstrip("\n")
            told.append(line)
            reply = (0, 0)
            if line == "planned" and planned is not None:
                planned(process)
            elif line.startswith("write ") and machine is not None:
                _, target, text = line.split(" ", 2)
                machine.writes.append((target, text))
                reply = kernel(machine, target.removesuffix("/memory.reclaim"), text)
            stream.write(f"{reply[0]} {reply[1]}\n".encode())
            stream.flush()
    return told
