"""The load program (``load.cpp``) as Python sees it: build it, start it, ask it for runs."""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from appliance.probes import WARMUP_ANSWER
from tests.bench.gateway.bodies import BODIES, MODEL

HERE = Path(__file__).parent
SOURCES = ("load.cpp", "runs.cpp", "engine.cpp")
CONTEXT = 8 * 2**20  # tokens: a body of 5 MB must fit, or the context check is what is measured
PROXY_CORE, BENCH_CORE = 0, 1
PRIORITY = 10  # SCHED_RR: shuts out what else runs on the machine


@dataclass(frozen=True)
class Run:
    """One run: its mode and options, as README.md lists them."""

    mode: str
    options: dict[str, str | int]

    def line(self, **more: str | int) -> str:
        """Return the command."""
        words = [f"{name}={value}" for name, value in {**self.options, **more}.items()]
        return " ".join([self.mode, *words])


def build(folder: Path) -> Path:
    """Compile the load program if it is older than its sources."""
    program = folder / "load"
    newest = max(path.stat().st_mtime for path in HERE.iterdir() if path.suffix in (".cpp", ".hpp"))
    if not program.exists() or program.stat().st_mtime < newest:
        folder.mkdir(parents=True, exist_ok=True)
        flags = ("-O2", "-std=c++20", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pthread")
        sources = [str(HERE / name) for name in SOURCES]
        made = folder / f"load.{os.getpid()}"
        subprocess.run(["g++", *flags, "-o", str(made), *sources], check=True)
        made.replace(program)
    return program


def pin(pid: int, core: int, *, real_time: bool) -> None:
    """Keep every thread of a process on one core, and before all other work where that is let."""
    cores = {core} & os.sched_getaffinity(0) or os.sched_getaffinity(0)
    policy = os.SCHED_RR if real_time else os.SCHED_OTHER
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), cores)
            os.sched_setscheduler(int(task.name), policy, os.sched_param(PRIORITY * real_time))
        except (PermissionError, ProcessLookupError):
            continue


class Load:
    """The running load program; its fake engine listens on ``port``."""

    def __init__(self, folder: Path, *, real_time: bool, awake: bool) -> None:
        self._process = subprocess.Popen(
            [str(build(folder)), MODEL, str(CONTEXT), WARMUP_ANSWER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        pin(self._process.pid, BENCH_CORE, real_time=real_time)
        self.port = int(self._read()["port"])
        for core in (PROXY_CORE, BENCH_CORE) if awake else ():
            self.ask(f"awake core={core}")
        with tempfile.TemporaryDirectory() as passing:
            for name, make in BODIES.items():
                path = Path(passing) / name
                path.write_bytes(make())
                self.ask(f"load name={name} path={path}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()

    def ask(self, line: str) -> dict[str, Any]:
        """Send one command; return what it measured. Lengths are nanoseconds."""
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load program ended with {self._process.wait()}")
        told: dict[str, Any] = json.loads(line)
        return told
