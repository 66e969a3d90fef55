"""What one node asks of the other: the values of an order, of a state, and of the facts. Pure.

An order holds values alone, which the worker checks against its own settings: never a command
line, a path or an environment. A spawn is named by its number, which is the head's.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Protocol

import msgspec

from appliance.errors import ApplianceError
from appliance.restart import Reason

Spawn = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
Token = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32,64}\Z")]
Count = Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
Bytes = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
Word = Annotated[str, msgspec.Meta(max_length=200)]
Words = Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)]


class PeerError(ApplianceError):
    """The other node did not do what it was asked."""

    status = 503
    code = "peer"


class PeerLost(PeerError):
    """The other node does not answer: it, its appliance, or the link is gone."""

    is_passing = True
    code = "peer_lost"


class OrderRefused(PeerError):
    """The other node answers, and will not: ``code`` says why."""

    status = 409
    code = "order_refused"


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value of the wire: what it does not know, it does not take."""


class SpawnOrder(Value, frozen=True):
    """Start your part of the engine, once. ``token`` marks this spawn's processes.

    ``master_addr`` is the head's address on the cable, where torch meets. What follows
    ``master_port`` is the head's plan, which both nodes must have alike; None: the engine's own.
    """

    spawn: Spawn
    token: Token
    tensor_parallel_size: Annotated[int, msgspec.Meta(ge=2, le=64)]
    master_addr: Annotated[str, msgspec.Meta(max_length=45)]
    master_port: Annotated[int, msgspec.Meta(ge=1024, le=65535)]
    max_model_len: Count | None = None
    max_num_seqs: Count | None = None
    kv_bytes: Bytes | None = None


class Idle(Value, frozen=True, tag="idle"):
    """No child is there, and none has been since this node's appliance started."""


class Alive(Value, frozen=True, tag="alive"):
    """A child runs. ``since_s`` is how long, in seconds: no clock is compared."""

    spawn: Spawn
    pid: int
    since_s: float


class Exited(Value, frozen=True, tag="exited"):
    """The last child is gone, with its whole tree. ``code`` is negative for a signal."""

    spawn: Spawn
    code: int
    diagnosis: Reason


NodeState = Idle | Alive | Exited


class NodeFacts(Value, frozen=True):
    """What both nodes must have alike, or should. What could not be seen is empty, or None.

    ``checkpoint`` is the SHA-256 of the index and the shards' headers. ``engine_settings`` are
    the settings that shape the engine, as (variable, value). ``clock_skew_s`` is this node's
    clock less that of the one who asked, known to half of ``round_trip_s``.
    """

    appliance_version: Word = ""
    engine_version: Word = ""
    patches: Words = ()
    checkpoint: Word = ""
    machine: Word = ""  # "aarch64", "x86_64"
    accelerator: Word = ""
    driver: Word = ""
    interface: Word = ""
    mtu: int | None = None
    link_mbps: int | None = None
    rdma_devices: Words = ()
    memory_total_bytes: Bytes = 0
    memory_available_bytes: Bytes = 0
    engine_settings: Annotated[tuple[tuple[Word, Word], ...], msgspec.Meta(max_length=64)] = ()
    clock_skew_s: float = 0.0
    round_trip_s: float = 0.0


class Peer(Protocol):
    """The other node. Every call raises PeerLost where it does not answer in time."""

    async def facts(self) -> NodeFacts:
        """Return what it has seen of itself, a moment ago at most."""
        ...

    async def spawn(self, order: SpawnOrder) -> None:
        """Start its child; returns once the process is there. Raises OrderRefused.

        Refused while a child lives, for a spawn or token that was used, and for what its own
        settings do not agree to.
        """
        ...

    async def stop(self, spawn: int, *, grace_s: float) -> None:
        """End the child of ``spawn``, by force after ``grace_s``; returns once it is gone.

        No error where none runs. Raises OrderRefused where another spawn runs.
        """
        ...

    async def state(self) -> NodeState:
        """Return what its child does now."""
        ...

    def watch(self) -> AsyncIterator[NodeState]:
        """Yield its state now and at each change. Raises PeerLost when it is lost.

        While somebody watches, the worker keeps the child of the last ``spawn``: it ends a child
        that nobody has asked after for longer than the lease.
        """
        ...
