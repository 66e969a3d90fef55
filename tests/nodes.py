"""Worker nodes for tests: the real door and node over TLS, in front of a plain child."""

import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from appliance.child import Child, spawn
from appliance.cluster.identity import Identity, ensure_identity
from appliance.cluster.joindesk import JoinDesk
from appliance.cluster.membership import HeadKept, Kept, WorkerKept, digest_of
from appliance.cluster.node import Node, Terms
from appliance.cluster.noderun import listening
from appliance.cluster.nodeserver import NodeServer
from appliance.cluster.peer import Alive, Exited, Idle, NodeFacts, NodeState, SpawnOrder
from appliance.httpserver import ClientProtocol
from appliance.listeners import Listeners
from appliance.restart import Reason

HEAD_ADDR = "10.77.0.1"
KEY = "5a" * 32
TERMS = Terms(HEAD_ADDR, 2)
FACTS = NodeFacts(engine_version="0.32.0", mtu=1500)
# It says so when it is asked to end, and ends.
PLAIN_CHILD = "import signal, sys; signal.signal(15, lambda *_: sys.exit(7)); signal.pause()"


def an_order(spawn: int = 1) -> SpawnOrder:
    """Return an order that a worker with ``TERMS`` takes."""
    return SpawnOrder(spawn, f"{spawn:032x}", 2, HEAD_ADDR, 29501)


class PlainEngine:
    """The child side, with a plain process for an engine."""

    def __init__(self, facts: NodeFacts = FACTS) -> None:
        self.state: NodeState = Idle()
        self.orders: list[SpawnOrder] = []
        self._facts = facts
        self._child: Child | None = None
        self._listeners: Listeners[NodeState] = Listeners()

    async def facts(self) -> NodeFacts:
        return self._facts

    def listen(self, told: Callable[[NodeState], None]) -> Callable[[], None]:
        return self._listeners.add(told)

    async def spawn(self, order: SpawnOrder) -> None:
        self.orders.append(order)
        argv = (sys.executable, "-c", PLAIN_CHILD)
        self._child = spawn(argv, {}, lambda _line: None)
        self._be(Alive(order.spawn, self._child.pid, 0.0))

    async def stop(self, *, grace_s: float) -> None:
        if not isinstance(self.state, Alive) or self._child is None:
            return
        await self._child.sweep()
        code = await self._child.wait()
        self._be(Exited(self.state.spawn, code, Reason("stopped")))

    async def die(self) -> None:
        """End the child as if by itself."""
        await self.stop(grace_s=0)

    def _be(self, state: NodeState) -> None:
        self.state = state
        self._listeners.tell(state)


@dataclass
class Worker:
    """A worker that listens on the loopback."""

    engine: PlainEngine
    node: Node
    desk: JoinDesk
    identity: Identity
    kept: Kept
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def certificate(self) -> str:
        text = self.identity.file.read_text()
        return text[text.index("-----BEGIN CERTIFICATE") :]

    def known(self, key: str = KEY) -> WorkerKept:
        """Return what a head keeps that has joined with ``key``."""
        return WorkerKept(self.address, self.certificate, key)


@contextlib.asynccontextmanager
async def worker(
    folder: Path,
    *,
    joined: bool = True,
    lease_s: float = 20.0,
    wrong_key_s: float = 0.0,
    desk: JoinDesk | None = None,
    http: type[ClientProtocol] = ClientProtocol,
) -> AsyncIterator[Worker]:
    """Run a worker that keeps all in ``folder``; ``joined``: with a head whose key is ``KEY``."""
    kept, identity = Kept(folder), ensure_identity(folder / "cluster")
    if joined and kept.head() is None:
        kept.keep_head(HeadKept("head", digest_of(KEY)))
    engine = PlainEngine()
    desk = desk or JoinDesk(identity.fingerprint, lambda count: b"\x11" * count)
    node = Node(engine, kept, desk, TERMS, lease_s)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with listening(node, NodeServer(node, wrong_key_s), identity, listener, http):
            yield Worker(engine, node, desk, identity, kept, port)


def is_alive(pid: int) -> bool:
    """Tell whether there is such a process."""
    return Path(f"/proc/{pid}").exists()
