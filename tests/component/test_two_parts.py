"""Two children as one engine: a head's supervisor, and a worker's node over TLS on the loopback.

The engines are stand-ins, so each law is shown in a second; tests/cluster shows them with vLLM.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.cluster.identity import ensure_identity
from appliance.cluster.joindesk import JoinDesk
from appliance.cluster.membership import HeadKept, Kept, WorkerKept, digest_of
from appliance.cluster.node import Node, Terms
from appliance.cluster.nodeengine import EnginePart
from appliance.cluster.nodelook import look_at_node
from appliance.cluster.noderun import listening
from appliance.cluster.nodeserver import NodeServer
from appliance.cluster.peer import Alive, Exited, NodeFacts, SpawnOrder
from appliance.cluster.wiring import worker_part
from appliance.engine import Request
from appliance.errors import SettingsError
from appliance.host import find_extras
from appliance.metrics import Metrics
from appliance.part import part_of
from appliance.preparation import Preparation
from appliance.settings import Settings, load_settings
from appliance.tree import members
from tests.appliance_tasks import Appliance, eventually, running_here
from tests.appliances import environment

KEY = "9d" * 32
HEAD = "192.168.100.1"
CABLE: dict[str, Any] = {
    "cluster_head": HEAD,
    "cluster_worker": "192.168.100.2",
    "cluster_interface": "lo",
    "cluster_patience_s": 0.5,
    "restart_backoff_s": 0.1,
    "restart_backoff_cap_s": 0.1,
}
LEASE_S = 20.0
# Not /dev/null for an engine: it is there until somebody ends it.
WAITS = "import signal; signal.signal(15, signal.SIG_DFL); signal.pause()"


@dataclass
class Worker:
    """A worker's node, which may be away: ``door`` is open while it answers."""

    folder: Path
    port: int
    part: EnginePart
    script: Path

    @contextlib.asynccontextmanager
    async def door(self, *, ranks: int = 2, key: str = KEY) -> AsyncIterator[None]:
        """Answer within the block; at its end the part is ended with the node."""
        kept, identity = Kept(self.folder), ensure_identity(self.folder / "cluster")
        if kept.head() is None:
            kept.keep_head(HeadKept("head", digest_of(key)))
        desk = JoinDesk(identity.fingerprint, secrets.token_bytes)
        node = Node(self.part, kept, desk, Terms(HEAD, ranks), LEASE_S)
        with socket.create_server(("127.0.0.1", self.port)) as listener:
            async with listening(node, NodeServer(node, 0.0), identity, listener):
                yield

    @property
    def pid(self) -> int:
        state = self.part.state
        assert isinstance(state, Alive), state
        return state.pid

    @property
    def is_alive(self) -> bool:
        return isinstance(self.part.state, Alive)


def make_worker(folder: Path) -> Worker:
    folder.mkdir()
    script = folder / "part.py"
    script.write_text(WAITS)
    command = f"{sys.executable} {script}"
    variables = environment(folder, cluster_role="worker", **CABLE, engine_command=command)
    settings, metrics = load_settings(variables), Metrics()
    preparation = Preparation(
        settings, find_extras(), folder, metrics, os.environ, None, lambda: None,
        part=part_of(settings),
    )  # fmt: skip
    part = worker_part(settings, preparation, metrics)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    return Worker(folder / "state", port, part, script)


@contextlib.asynccontextmanager
async def head_of(
    folder: Path, worker: Worker, *faults: str, **more: object
) -> AsyncIterator[Appliance]:
    """Run a head that has joined this worker."""
    text = ensure_identity(worker.folder / "cluster").file.read_text()
    certificate = text[text.index("-----BEGIN CERTIFICATE") :]
    Kept(folder / "state").keep_worker(WorkerKept(f"127.0.0.1:{worker.port}", certificate, KEY))
    settings = CABLE | {"cluster_role": "head"} | more
    async with running_here(folder, *faults, **settings) as head:
        yield head


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return make_worker(tmp_path / "worker")


async def gone(pid: int) -> None:
    async def over() -> bool:
        return not members(pid)

    await eventually(over, f"{pid} to be gone")


async def spawned_again(head: Appliance, spawn: int) -> None:
    """Wait until a later spawn serves."""

    async def there() -> bool:
        return head.snapshot.state == "ready" and head.snapshot.spawn > spawn

    await eventually(there, "a later spawn to serve")


# ---- together


async def test_both_parts_start_together_and_stop_together(worker: Worker, tmp_path: Path) -> None:
    async with worker.door(), head_of(tmp_path / "head", worker) as head:
        await head.until("ready")
        state = worker.part.state
        assert isinstance(state, Alive)
        assert state.spawn == head.snapshot.spawn
        assert await head.metric("appliance_node_up", node="worker") == 1
        head.running.engine.request(Request.STOP)
        await head.until("stopped")
        assert not worker.is_alive
        assert await head.metric("appliance_node_up", node="worker") == 0
        assert await head.metric("appliance_node_up", node="head") == 0


async def test_the_end_of_the_heads_appliance_ends_the_worker(
    worker: Worker, tmp_path: Path
) -> None:
    async with worker.door():
        async with head_of(tmp_path / "head", worker) as head:
            await head.until("ready")
            pid = worker.pid
        assert not worker.is_alive
        assert not members(pid)


# ---- one of them ends


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_worker_that_ends_while_idle_restarts_both(
    worker: Worker, tmp_path: Path, number: signal.Signals
) -> None:
    async with worker.door(), head_of(tmp_path / "head", worker) as head:
        first = await head.until("ready")
        pid, plan = worker.pid, head.running.engine.plan
        os.kill(pid, number)
        await spawned_again(head, first.spawn)
        reasons = [reason for state, reason in head.history if state == "backoff"]
        assert reasons[0].startswith("worker_")
        assert worker.pid != pid
        assert head.running.engine.plan != plan


async def test_a_head_that_ends_with_code_0_failed_and_its_worker_goes_with_it(
    worker: Worker, tmp_path: Path
) -> None:
    async with worker.door(), head_of(tmp_path / "head", worker) as head:
        first = await head.until("ready")
        pid = worker.pid
        head.fake.be(exit_code=0, exit_after=0)
        await spawned_again(head, first.spawn)
        assert ("backoff", "engine_died") in head.history
        assert worker.pid != pid
        assert not members(pid)


async def test_both_boxes_have_one_breaker(worker: Worker, tmp_path: Path) -> None:
    worker.script.write_text("raise SystemExit(3)")
    async with worker.door(), head_of(tmp_path / "head", worker, restart_max_failures=2) as head:
        snapshot = await head.until("failed")
        assert snapshot.reason.code == "gave_up"
        assert "on the worker" in snapshot.reason.what


# ---- the worker is away


async def test_a_worker_that_is_away_is_waited_for_and_not_counted(
    worker: Worker, tmp_path: Path
) -> None:
    async with head_of(tmp_path / "head", worker, restart_max_failures=1) as head:
        snapshot = await head.until("backoff")
        assert snapshot.reason.code == "peer_lost"
        assert "appliance node" in snapshot.reason.hint
        async with worker.door():
            await head.until("ready")
            shown = (await head.operator.get("/appliance/v1/incidents")).json()["incidents"]
            assert shown == []
            head.running.engine.request(Request.STOP)
            await head.until("stopped")


async def test_a_node_that_goes_away_ends_the_head_and_comes_back_with_both(
    worker: Worker, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with worker.door():
            head = await stack.enter_async_context(head_of(tmp_path / "head", worker))
            first = await head.until("ready")
            pid = worker.pid
        await head.until("backoff")
        assert not members(pid)
        async with worker.door():
            await spawned_again(head, first.spawn)
            head.running.engine.request(Request.STOP)
            await head.until("stopped")


async def test_a_start_ends_what_an_earlier_life_left_on_the_worker(
    worker: Worker, tmp_path: Path
) -> None:
    left = SpawnOrder(7, secrets.token_hex(16), 2, HEAD, 29501)
    async with worker.door():
        await worker.part.spawn(left)
        pid = worker.pid
        async with head_of(tmp_path / "head", worker) as head:
            await head.until("ready")
            assert not members(pid)
            assert worker.pid != pid


# ---- a worker that will not


async def test_a_wrong_key_is_told_and_not_tried_again(worker: Worker, tmp_path: Path) -> None:
    async with worker.door(key="00" * 32), head_of(tmp_path / "head", worker) as head:
        snapshot = await head.until("failed")
        assert snapshot.reason.code == "wrong_cluster_key"
        assert not worker.is_alive


async def test_a_worker_that_was_set_up_for_another_split_is_named(
    worker: Worker, tmp_path: Path
) -> None:
    async with worker.door(ranks=4), head_of(tmp_path / "head", worker) as head:
        snapshot = await head.until("backoff")
        assert snapshot.reason.code == "worker_other_parallel_size"
        assert not worker.is_alive


async def test_another_checkpoint_on_the_worker_is_refused_before_any_start(
    worker: Worker, tmp_path: Path
) -> None:
    config = worker.script.parent / "model" / "config.json"
    config.write_text(config.read_text() + "\n")
    async with worker.door(), head_of(tmp_path / "head", worker) as head:
        snapshot = await head.until("failed")
        assert snapshot.reason.code == "nodes_differ"
        assert "checkpoint" in snapshot.reason.what
        assert "rsync" in snapshot.reason.hint
        assert not worker.is_alive
        assert head.running.engine.plan is None


async def test_another_version_on_the_worker_is_refused_and_named(
    worker: Worker, tmp_path: Path
) -> None:
    def look(settings: Settings) -> NodeFacts:
        return msgspec.structs.replace(look_at_node(settings), appliance_version="0.0.9")

    worker.part = EnginePart(replace(worker.part._means, look=look))
    async with worker.door(), head_of(tmp_path / "head", worker) as head:
        snapshot = await head.until("failed")
        assert snapshot.reason.code == "nodes_differ"
        assert "0.0.9 on the worker" in snapshot.reason.what
        assert not worker.is_alive


async def test_a_head_that_has_not_joined_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="appliance cluster join"):
        async with running_here(tmp_path / "head", cluster_role="head", **CABLE):
            pass


# ---- the worker's own part


async def test_a_part_tells_why_it_ended(worker: Worker) -> None:
    told: list[object] = []
    worker.part.listen(told.append)
    worker.script.write_text("print('RuntimeError: no such device'); raise SystemExit(1)")
    await worker.part.spawn(SpawnOrder(1, secrets.token_hex(16), 2, HEAD, 29501))

    async def over() -> bool:
        return isinstance(worker.part.state, Exited)

    await eventually(over, "the part to end")
    state = worker.part.state
    assert isinstance(state, Exited)
    assert (state.spawn, state.code) == (1, 1)
    assert "no such device" in state.diagnosis.what
    assert [type(entry) for entry in told] == [Alive, Exited]


async def test_a_part_that_is_deaf_is_killed_after_its_grace(worker: Worker) -> None:
    worker.script.write_text("import signal; signal.signal(15, signal.SIG_IGN)\nprint('deaf')\n"
                             "while True: signal.pause()")  # fmt: skip
    await worker.part.spawn(SpawnOrder(1, secrets.token_hex(16), 2, HEAD, 29501))

    async def deaf() -> bool:
        return worker.part.log.count > 0

    await eventually(deaf, "the part to be deaf")
    pid = worker.pid
    async with asyncio.timeout(10):
        await worker.part.stop(grace_s=0.1)
    assert not members(pid)
    assert not worker.is_alive
