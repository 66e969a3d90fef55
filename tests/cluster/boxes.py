"""Two boxes over the real CPU engine, each in a network namespace of its own."""

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance import tree
from appliance.cluster.identity import ensure_identity
from appliance.cluster.membership import HeadKept, Kept, WorkerKept, digest_of
from tests import engines
from tests.appliances import COMMAND, ApplianceProcess, clean_environment, environment
from tests.cluster.wires import CABLE, HEAD_ADDR, PORT, WORKER_ADDR, Wires
from tests.engines import ROOT, wait_until
from tests.fault.real import SETTINGS, Box

KEY = "c7" * 32
NODE = [*COMMAND, "node"]
PATIENCE_S = 10.0
TIMEOUT_S = 20
CLUSTER: dict[str, Any] = {
    "port": 9000,  # not one that the packet rule closes
    "cluster_head": HEAD_ADDR,
    "cluster_worker": WORKER_ADDR,
    "cluster_interface": CABLE,
    "cluster_execute_timeout_s": TIMEOUT_S,
    "cluster_patience_s": PATIENCE_S,
    "wedge_quiet_s": 120,
    "probe_every_s": 5,
}


@dataclass
class WorkerBox:
    """The worker's appliance; ``start`` again after it was killed."""

    wires: Wires
    folder: Path
    env: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    sessions: set[int] = field(default_factory=set)

    @property
    def said(self) -> str:
        """What it has logged, over all its lives."""
        return (self.folder / "err.log").read_text(errors="replace")

    def kill(self) -> None:
        """Kill its appliance: what it had started lives on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        """Start its appliance."""
        with (self.folder / "err.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.wires.within(self.wires.worker), *NODE],
                env=clean_environment() | self.env | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        engines.shared_groups.add(self.process.pid)

    def leaders(self) -> list[int]:
        """Return the leader of its part; empty where there is none."""
        assert self.process is not None
        ours = self.process.pid
        found = [p for p in tree.processes() if p.parent == ours and p.session == p.pid]
        self.sessions.update(p.pid for p in found)
        return [p.pid for p in found if p.is_alive]

    def part(self) -> int:
        """Return the leader of its part of the engine."""
        wait_until(lambda: bool(self.leaders()), 20, "a part on the worker")
        return self.leaders()[0]

    def end(self) -> None:
        """End it in order."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=60)


@dataclass
class Pair:
    """Both boxes, and the cable between them."""

    wires: Wires
    head: Box
    worker: WorkerBox

    def nothing_left(self) -> None:
        """Fail for anything of an engine that lives on either box."""
        for sessions in (self.head.sessions, self.worker.sessions):
            for session in sessions:
                left = tree.members(session)
                assert not left, engines.describe(left)


@contextmanager
def pair(
    folder: Path, wires: Wires, *, key: str = KEY, on_worker: dict[str, Any] | None = None
) -> Iterator[Pair]:
    """Run both boxes, joined; at the end nothing of them is left.

    ``key`` is what the worker takes its head's to be, ``on_worker`` holds settings of its alone.
    """
    engines.require_real()
    chosen = SETTINGS | CLUSTER
    worker = _worker(folder / "worker", wires, chosen | (on_worker or {}), key)
    try:
        with _head(folder / "head", wires, worker, chosen) as head:
            worker.start()
            made = Pair(wires, Box(head), worker)
            engines.shared_groups.add(head.process.pid)
            try:
                yield made
            finally:
                made.head.leaders()
                made.worker.leaders()
                head.process.terminate()
                head.process.wait(timeout=60)
                worker.end()
        made.nothing_left()
    finally:
        _clean(worker)


def _worker(folder: Path, wires: Wires, chosen: dict[str, Any], key: str) -> WorkerBox:
    folder.mkdir(parents=True)
    env = environment(folder, **chosen, cluster_role="worker")
    Kept(folder / "state").keep_head(HeadKept("head", digest_of(key)))
    return WorkerBox(wires, folder, env)


@contextmanager
def _head(
    folder: Path, wires: Wires, worker: WorkerBox, chosen: dict[str, Any]
) -> Iterator[ApplianceProcess]:
    folder.mkdir(parents=True)
    text = ensure_identity(worker.folder / "state" / "cluster").file.read_text()
    certificate = text[text.index("-----BEGIN CERTIFICATE") :]
    Kept(folder / "state").keep_worker(WorkerKept(f"{WORKER_ADDR}:{PORT}", certificate, KEY))
    env = environment(folder, **chosen, cluster_role="head", host=wires.front_addr)
    with (folder / "out.log").open("wb") as out, (folder / "err.log").open("wb") as err:
        process = subprocess.Popen(
            [*wires.within(wires.head), *COMMAND, "run"],
            env=clean_environment() | env | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder,
            start_new_session=True,
        )
    try:
        yield ApplianceProcess(process, folder, env)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        engines.shared_groups.discard(process.pid)


def _clean(worker: WorkerBox) -> None:
    process = worker.process
    if process is None:
        return
    if process.poll() is None:
        process.kill()
        process.wait()
    engines.shared_groups.discard(process.pid)
    for session in worker.sessions:
        with contextlib.suppress(OSError):
            tree.signal_all(tree.find(session).values(), signal.SIGKILL)
