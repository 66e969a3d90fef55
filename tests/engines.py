"""Engines for tests: start one in a process group of its own, and leave nothing behind."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from appliance.launch import Extras, LaunchPlan, plan_launch
from appliance.settings import load_settings

ROOT = Path(__file__).resolve().parents[1]
FAKE = ROOT / "tests" / "fakes" / "engine.py"
ENGINE_PYTHON = ROOT / ".demo" / "engine" / "bin" / "python"
CHECKPOINT = ROOT / ".demo" / "checkpoint"
EXTRAS = ROOT / "extras"
MODEL = "Nikola"

# All that we start inherits this from us: so an orphan can be told from other people's processes.
MARK = "UNGLITCHED_TEST_RUN"
os.environ[MARK] = secrets.token_hex(8)

# Process groups that outlive a test on purpose.
shared_groups: set[int] = set()


@dataclass
class EngineHandle:
    """One engine that runs: where it is and what it has said.

    ``before_ready`` holds what clients met until the first 200: ``refused`` or a status.
    """

    base_url: str
    key: str
    process: subprocess.Popen[bytes]
    log: Path
    before_ready: set[str] = field(default_factory=set)

    @property
    def pid(self) -> int:
        """The process that serves; it leads the group."""
        return self.process.pid

    @property
    def pgid(self) -> int:
        """The process group: the engine and all its children."""
        return self.process.pid

    @property
    def headers(self) -> dict[str, str]:
        """The header that opens /v1."""
        return {"Authorization": f"Bearer {self.key}"}

    def client(self, timeout_s: float = 60.0) -> httpx.Client:
        """Return a client with the key, which ignores proxies of the environment."""
        return httpx.Client(
            base_url=self.base_url, headers=self.headers, timeout=timeout_s, trust_env=False
        )

    def wait_ready(self, within_s: float) -> None:
        """Wait for 200 on /health."""
        wait_until(self._ready, within_s, f"the engine to be ready; its log ends:\n{self.tail()}")

    def tail(self, lines: int = 30) -> str:
        """Return the end of what the engine printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the engine ended with {self.process.returncode}:\n{self.tail()}")
        try:
            status = httpx.get(f"{self.base_url}/health", timeout=5, trust_env=False).status_code
        except httpx.ConnectError:
            self.before_ready.add("refused")
            return False
        if status != 200:
            self.before_ready.add(str(status))
        return status == 200


class StartFake(Protocol):
    """Starts a fake engine with these fault flags; ``ready=False`` does not wait for it."""

    def __call__(self, *flags: str, ready: bool = True) -> EngineHandle:
        """Return the running engine."""


def wait_until(condition: Callable[[], bool], within_s: float, what: str) -> None:
    """Wait for a state, with a deadline."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within_s} s in vain for {what}")
        time.sleep(0.01)


def free_port() -> int:
    """Return a TCP port of the loopback that nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def running(
    argv: list[str], log: Path, env: dict[str, str] | None = None
) -> Iterator[EngineHandle]:
    """Run an engine whose arguments end at ``--port``; at the end kill its whole group."""
    port, key = free_port(), secrets.token_hex(16)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*argv, "--host", "127.0.0.1", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | (env or {}) | {"VLLM_API_KEY": key},
            start_new_session=True,
        )
    try:
        yield EngineHandle(f"http://127.0.0.1:{port}", key, process, log)
    finally:
        kill_group(process)


@contextmanager
def shared(
    argv: list[str], log: Path, env: dict[str, str] | None = None, ready_within_s: float = 20.0
) -> Iterator[EngineHandle]:
    """Run an engine for several tests: wait for it, and tell the leak check to let it live."""
    with running(argv, log, env) as engine:
        shared_groups.add(engine.pgid)
        engine.wait_ready(ready_within_s)
        yield engine
    shared_groups.discard(engine.pgid)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process's group and see it gone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=10)
    left = f"group {process.pid} to be gone"
    wait_until(lambda: not group_members(process.pid), 10, left)


def fake_argv(*flags: str) -> list[str]:
    """Return the command of a fake engine, without its port."""
    return [sys.executable, str(FAKE), *flags, "serve", "tiny", "--served-model-name", MODEL]


def real_plan(**chosen: str) -> LaunchPlan:
    """Return the appliance's own plan for the real engine on the CPU; its port is overridden.

    ``chosen`` are further settings.
    """
    overrides = {
        **chosen,
        "profile": "demo",
        "model_dir": CHECKPOINT,
        "engine_command": (str(ENGINE_PYTHON.parent / "vllm"),),
    }
    extras = Extras(
        EXTRAS / "chat_template.jinja", EXTRAS / "minimax_m2_optthink_reasoning_parser.py"
    )
    settings = load_settings({}, overrides)
    return plan_launch(settings, extras, port=0, api_key="", base_env={})


def real_argv() -> list[str]:
    """Return the command of the real engine on the CPU, without its port."""
    return list(real_plan().argv)


REAL_ENV = {name: value for name, value in real_plan().env.items() if name != "VLLM_API_KEY"}
REAL_READY_S = 240.0  # 23 s on a quiet machine, 82 s seen under load


def require_real() -> None:
    """Skip where the real engine is not installed; in CI that is a failure."""
    for path in (ENGINE_PYTHON, CHECKPOINT / "config.json"):
        if path.exists():
            continue
        lacks = f"the real engine is not here: no {path.relative_to(ROOT)} (make setup)"
        if os.environ.get("CI") == "true":
            pytest.fail(lacks)
        pytest.skip(lacks)


# Who is alive: read from /proc, where a zombie is dead.


def group_members(pgid: int) -> set[int]:
    """Return the processes of a group that are alive."""
    return {pid for pid, _, group in _processes() if group == pgid}


def leaked(before: set[int]) -> set[int]:
    """Return our living descendants that were not there before, but for the shared engines.

    Children are found by their parent; orphans, whose parent is gone, by the inherited mark.
    """
    me, mark = os.getpid(), f"{MARK}={os.environ[MARK]}".encode()
    found = set()
    for pid, parent, group in _processes():
        if pid == me or group in shared_groups:
            continue
        if parent == me or mark in _environment(pid):
            found.add(pid)
    return found - before


def describe(pids: set[int]) -> str:
    """Return the command lines of processes, for a message."""
    lines = []
    for pid in sorted(pids):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        lines.append(f"{pid}: {command}")
    return "\n".join(lines)


def _processes() -> Iterator[tuple[int, int, int]]:
    """Yield (pid, parent, group) of everything alive."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The command's name is in brackets and may hold anything, so cut behind the last one.
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if stat[0] not in "ZX":
            yield int(entry.name), int(stat[1]), int(stat[2])


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
