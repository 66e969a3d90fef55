"""Puts the cluster's parts together: the head's hold on its worker, and the worker's own part."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from appliance.cluster.head import HeadPreparation
from appliance.cluster.membership import Kept
from appliance.cluster.nodeclient import NodeClient
from appliance.cluster.nodeengine import EnginePart, Means
from appliance.cluster.twin import Tie
from appliance.errors import SettingsError
from appliance.memorywatch import MemoryCare
from appliance.metrics import Metrics
from appliance.part import part_of
from appliance.preparation import Preparation
from appliance.settings import Settings


@dataclass(frozen=True)
class Pair:
    """What makes two boxes one engine: before a start, at the start, and at the very end."""

    preparation: HeadPreparation
    tie: Tie
    close: Callable[[], Awaitable[None]]


def join_pair(
    settings: Settings,
    state_dir: Path,
    preparation: Preparation,
    metrics: Metrics,
) -> Pair | None:
    """Return the hold on the worker; None where this box serves alone.

    Raises SettingsError for a worker's box, and for a head without a worker.
    """
    if settings.cluster_role == "worker":
        raise SettingsError(
            "this box is a worker (APPLIANCE_CLUSTER_ROLE=worker): it serves nobody itself",
            "appliance node takes its head's orders; appliance run is for the head",
        )
    part = part_of(settings)
    if part is None or part.executor == "ray":
        return None
    kept = Kept(state_dir).worker()
    if kept is None:
        raise SettingsError(
            f"this head has not joined its worker at {settings.cluster_worker}",
            "on the worker: appliance node shows a code; here: appliance cluster join CODE",
        )
    peer = NodeClient(kept, patience_s=settings.cluster_patience_s)

    def show(node: str, is_up: bool) -> None:
        metrics.node_up.labels(node).set(is_up)

    return Pair(HeadPreparation(preparation, peer), Tie(peer, part, show), peer.close)


def worker_part(
    settings: Settings,
    preparation: Preparation,
    metrics: Metrics,
) -> EnginePart:
    """Return the worker's own part of the engine, for who takes the head's orders."""
    memory = MemoryCare(
        metrics,
        is_armed=settings.memory_guards,
        drop_cache=preparation.drop_cache if preparation.swap else None,
        load_free_bytes=settings.load_free_floor,
    )
    part = EnginePart(Means(preparation, memory, settings.settle_timeout_s))
    part.log.gate.debug = settings.engine_debug
    return part
