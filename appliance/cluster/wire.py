"""The messages between head and worker, and their bounds: JSON over TLS. Pure.

Nothing in a message is a command, a path or a variable. A serial counts the orders of a spawn
that a worker has ever taken: an old order is one with an old serial, whoever sends it, and
whatever clocks say.
"""

from typing import Annotated, TypeVar

import msgspec

from appliance.cluster.peer import NodeFacts, NodeState, PeerError, SpawnOrder, Value
from appliance.errors import ApplianceError

JOIN, FACTS, STATE = "/node/v1/join", "/node/v1/facts", "/node/v1/state"
SPAWN, STOP = "/node/v1/spawn", "/node/v1/stop"
PORT = 9001
MOST_BYTES = 64 * 2**10  # of any message, either way
WAIT_S = 2.0  # for which a look at the state waits for news, at most
MOST_GRACE_S = 600.0

Serial = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
Hex32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:-]{1,100}\Z")]

T = TypeVar("T")


class JoinAsk(Value, frozen=True):
    """A head proves that it knows the code, and sees the certificate that the worker shows."""

    head: Name
    nonce: Hex32
    proof: Hex32


class JoinReply(Value, frozen=True):
    """The worker gives the cluster key, and proves that it knows the code, too."""

    key: Hex32
    proof: Hex32


class Look(Value, frozen=True):
    """What is asked of the state: news since ``seen``, and the spawn that is to be kept."""

    seen: Annotated[str, msgspec.Meta(max_length=64)] = ""
    token: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{0,64}\Z")] = ""


class SpawnAsk(Value, frozen=True):
    """An order, with the serial that follows the worker's last one."""

    serial: Serial
    order: SpawnOrder


class StopAsk(Value, frozen=True):
    """End the child that the order of this serial started."""

    serial: Serial
    grace_s: Annotated[float, msgspec.Meta(ge=0, le=MOST_GRACE_S)]


class StateReply(Value, frozen=True):
    """The state, the last serial, and a word that changes with either."""

    seen: str
    serial: Serial
    state: NodeState


class FactsReply(Value, frozen=True):
    """The facts, and the worker's clock when it sent them, in seconds since 1970."""

    facts: NodeFacts
    clock_s: float


class Refusal(Value, frozen=True):
    """Why not: a stable code, what failed, what to type next."""

    code: Annotated[str, msgspec.Meta(max_length=64)]
    what: Annotated[str, msgspec.Meta(max_length=2000)]
    hint: Annotated[str, msgspec.Meta(max_length=2000)] = ""


class BadMessage(PeerError):
    """What came is no message of this version."""

    status = 400
    code = "bad_message"


def encode(message: Value) -> bytes:
    """Return a message as it travels."""
    return msgspec.json.encode(message)


def decode(body: bytes, kind: type[T]) -> T:
    """Return the message. Raises BadMessage for anything else, without its values."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise BadMessage(
            f"this is no {kind.__name__}: {cause}",
            "both boxes must run the same version of the appliance",
        ) from cause


def refusal_of(error: ApplianceError) -> Refusal:
    """Return what the other node is told of an error."""
    return Refusal(error.code, error.what[:2000], error.hint[:2000])
