"""Faults of the real engine: an appliance that runs it, its processes, and clients that watch."""

import contextlib
import json
import os
import re
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from appliance import tree
from tests import engines
from tests.appliances import ASKED, CHAT, CONTROL, LONG, ApplianceProcess, running_process
from tests.engines import CHECKPOINT, ENGINE_PYTHON, wait_until

LOAD_S = 300.0  # 23 s on a quiet machine, 118 s seen beside a long test run
GONE_S = 30.0  # from a death to its detection: vLLM takes up to 7 s to follow its core
ALLOWANCE_S = 8.0  # a tenth of it is the pause between two looks
SLACK_S = 5.0  # evidence takes up to 3 s, and the machine is loaded
SETTINGS: dict[str, Any] = {
    "engine_command": ENGINE_PYTHON.parent / "vllm",
    "model_dir": CHECKPOINT,
    "engine_extra_args": None,
    "start_timeout_s": LOAD_S,
    "stop_timeout_s": 10,
    "settle_timeout_s": 5,
    "restart_backoff_s": 1,  # long enough to be seen, by /health too
    "restart_backoff_cap_s": 1,
    "restart_max_failures": 30,
    "wedge_quiet_s": ALLOWANCE_S,
    "prefill_tokens_per_s": 1e6,  # the allowance is then the same for all bodies
    "admit_wait_s": LOAD_S,
}
STREAM = {**LONG, "stream": True}
GREET = {**ASKED, "stream": True}
TOKEN = b'"delta":{"content":'
SHM = Path("/dev/shm")
_TRANSITION = re.compile(
    r"^(\S+) .*engine\.transition .*reason=(\S+) spawn=(\d+) to=(\S+) was=(\S+)", re.MULTILINE
)


@dataclass(frozen=True)
class Transition:
    """One change of state as the appliance logged it; ``at`` is a Unix time."""

    at: float
    reason: str
    spawn: int
    to: str
    was: str


@dataclass
class Box:
    """An appliance over the real engine, and what its engines had: sessions, shared memory."""

    appliance: ApplianceProcess
    sessions: set[int] = field(default_factory=set)
    segments: set[Path] = field(default_factory=set)

    @property
    def leader(self) -> int:
        """The engine's API server, which leads the session of all its processes.

        The log tells of a start before there is a process.
        """
        wait_until(lambda: bool(self.leaders()), SLACK_S, "an engine")
        return self.leaders()[0]

    def leaders(self) -> list[int]:
        """Return the engine's leader; empty when there is no engine now."""
        ours = self.appliance.process.pid
        found = [p.pid for p in tree.processes() if p.parent == ours and p.session == p.pid]
        self.sessions.update(found)
        return [pid for pid in found if is_alive(pid)]

    def process(self, name: str) -> int:
        """Return the pid of ``server``, ``EngineCore`` or ``Worker``."""
        leader = self.leader
        if name == "server":
            return leader
        for pid in tree.members(leader):
            if f"VLLM::{name}" in proc(pid, "cmdline"):
                return pid
        raise AssertionError(f"the engine has no {name}:\n{engines.describe(tree.members(leader))}")

    @property
    def transitions(self) -> list[Transition]:
        """Every change of state so far, from the log: asking each 10 ms would slow the start."""
        found = _TRANSITION.findall(self.appliance.err)
        return [
            Transition(datetime.fromisoformat(at).timestamp(), reason, int(spawn), to, was)
            for at, reason, spawn, to, was in found
        ]

    def until(self, spawn: int, *states: str, within_s: float) -> Transition:
        """Wait until the log says that this spawn came to one of ``states``."""
        found: list[Transition] = []

        def there() -> bool:
            assert self.appliance.process.poll() is None, self.appliance.err
            found[:] = [t for t in self.transitions if t.spawn == spawn and t.to in states]
            return bool(found)

        wait_until(there, within_s, f"spawn {spawn} to be {states}")
        return found[-1]

    def serving(self) -> int:
        """Wait until an engine serves; return its spawn number, and note what it holds."""
        latest: list[Transition] = []

        def there() -> bool:
            assert self.appliance.process.poll() is None, self.appliance.err
            latest[:] = self.transitions[-1:]
            return bool(latest) and latest[0].to == "ready"

        wait_until(there, LOAD_S, "an engine that serves")
        self.segments |= shared_memory(self.leader)
        return latest[0].spawn

    def health(self) -> tuple[int, dict[str, Any]]:
        """Return status and body of /health."""
        with self.appliance.http() as http:
            reply = http.get("/health")
            return reply.status_code, reply.json()

    def command(self, verb: str) -> None:
        """Tell it what an operator tells it."""
        with self.appliance.http("operator") as http:
            http.post(f"{CONTROL}/{verb}").raise_for_status()

    def incidents(self) -> list[dict[str, Any]]:
        """Return what it kept, the newest by its spawn number."""
        with self.appliance.http("operator") as http:
            kept: list[dict[str, Any]] = http.get(f"{CONTROL}/incidents").json()["incidents"]
            return kept

    def incident(self, spawn: int) -> dict[str, Any]:
        """Return the incident of one spawn."""
        (found,) = [incident for incident in self.incidents() if incident["spawn"] == spawn]
        return found


@contextmanager
def real_box(folder: Path, **settings: object) -> Iterator[Box]:
    """Run an appliance over the real engine; at the end nothing of it is left."""
    engines.require_real()
    box: Box | None = None
    try:
        with running_process(folder, **(SETTINGS | settings)) as appliance:
            box = Box(appliance)
            engines.shared_groups.add(appliance.process.pid)
            try:
                yield box
            finally:
                box.leaders()  # notes it, should the appliance leave it behind
    finally:
        if box is not None:
            engines.shared_groups.discard(box.appliance.process.pid)
            # for a test that failed: the next one must not meet what this one left
            for session in box.sessions:
                tree.signal_all(tree.find(session).values(), signal.SIGKILL)


class Client:
    """One client on a raw socket: what has come, and whether the connection has ended."""

    def __init__(self, box: Box, body: Mapping[str, object]) -> None:
        where = urlsplit(box.appliance.base_url)
        payload = json.dumps(body).encode()
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: {where.netloc}\r\nConnection: close\r\n"
            f"Authorization: Bearer {box.appliance.key('client')}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        self.asked_at = time.monotonic()
        self.answered_s: float | None = None
        self.ended = False
        self._received = b""
        self._socket = socket.create_connection((where.hostname, where.port), timeout=10)
        self._socket.sendall(head.encode() + payload)

    @property
    def received(self) -> bytes:
        """What has come by now; never waits."""
        while not self.ended and select.select([self._socket], [], [], 0)[0]:
            data = b""
            with contextlib.suppress(ConnectionResetError):
                data = self._socket.recv(1 << 20)
            self.ended = not data
            self._received += data
            if self.answered_s is None and TOKEN in self._received:
                self.answered_s = time.monotonic() - self.asked_at
        if self.ended:
            self._socket.close()
        return self._received

    @property
    def is_whole(self) -> bool:
        """Whether the answer ended as it must."""
        return self.received.endswith(b"0\r\n\r\n") and b"data: [DONE]" in self.received

    @property
    def is_broken(self) -> bool:
        """Whether the connection ended without an end: what a client retries."""
        received = self.received
        is_unmarked = b"[DONE]" not in received and b'"error"' not in received
        return self.ended and is_unmarked and not received.endswith(b"0\r\n\r\n")

    def until(self, mark: bytes, within_s: float = 60.0) -> None:
        """Wait until ``mark`` has come."""
        wait_until(lambda: mark in self.received, within_s, f"{mark!r} for a client")

    def until_more(self, within_s: float = 60.0) -> None:
        """Wait until more has come than now."""
        before = len(self.received)
        wait_until(lambda: len(self.received) > before, within_s, "more for a client")

    def until_end(self, within_s: float = 60.0) -> None:
        """Wait until the connection ends."""

        def over() -> bool:
            return bool(self.received) and self.ended

        wait_until(over, within_s, "a client's connection to end")

    def leave(self) -> None:
        """Close the connection."""
        self._socket.close()


@dataclass(frozen=True)
class Survived:
    """What came of a fault: the fall as logged, the /health of then, and lengths in seconds."""

    spawn: int
    fell: Transition
    health: dict[str, Any]
    detected_s: float
    recovered_s: float
    clients: str


def survive(box: Box, fault: Callable[[], None], detect_s: float = GONE_S) -> Survived:
    """Cause a fault under a running stream, see the engine replaced, and what clients saw of it."""
    spawn = box.serving()
    old = box.leader
    running = Client(box, STREAM)
    running.until(TOKEN)
    began = time.time()
    fault()
    fell = box.until(spawn, "backoff", "stopping", within_s=detect_s)
    status, health = box.health()
    waiting = Client(box, GREET)
    running.until_end(within_s=GONE_S)
    assert running.is_broken, running.received[-500:]
    back = box.until(spawn + 1, "ready", within_s=LOAD_S)
    waiting.until_end()
    assert waiting.is_whole, waiting.received[-500:]
    assert status == 503, health
    assert not tree.members(old), engines.describe(tree.members(old))
    assert box.serving() == spawn + 1
    clients = (
        "a running stream: broken off, no [DONE]; a stream that waits: keep-alives, and the "
        f"answer after {waiting.answered_s:.0f} s"
    )
    return Survived(spawn, fell, health, fell.at - began, back.at - began, clients)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Hold a process with SIGSTOP."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def proc(pid: int, name: str) -> str:
    """Return what /proc says of a process; "" when it is gone: one that loads forks helpers."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


def has_core(box: Box) -> bool:
    """Tell whether the engine has forked its core: from then on vLLM loses a SIGTERM."""
    return any("VLLM::EngineCore" in proc(pid, "cmdline") for pid in tree.members(box.leader))


def is_alive(pid: int) -> bool:
    """Tell whether a process lives; a zombie does not."""
    process = tree.read_process(pid)
    return process is not None and process.is_alive


def holds(law: Callable[[], bool], for_s: float, what: str) -> None:
    """Assert that something holds all the time of a length."""
    end = time.monotonic() + for_s

    def over() -> bool:
        assert law(), f"not all of {for_s:.1f} s: {what}"
        return time.monotonic() >= end

    wait_until(over, for_s + SLACK_S, what)


def shared_memory(session: int) -> set[Path]:
    """Return the named shared memory that an engine's processes have mapped.

    By inode: a semaphore is mapped under a name of which it was relieved at once.
    """
    inodes = set()
    for pid in tree.members(session):
        for line in proc(pid, "maps").splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[5].startswith(f"{SHM}/"):
                inodes.add(int(fields[4]))
    return {Path(entry.path) for entry in os.scandir(SHM) if entry.inode() in inodes}


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    rows = proc(pid, "status").splitlines()
    (row,) = [row for row in rows if row.startswith("VmRSS:")]
    return int(row.split()[1]) * 1024
