"""``appliance node``: a worker box that shows a code until it has a head, then takes its orders."""

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import Callable

import structlog

from appliance.allocator import keep_large_blocks
from appliance.cluster.identity import ensure_identity
from appliance.cluster.joincode import SECRET_BYTES, spell
from appliance.cluster.joindesk import CODE_S, JoinDesk
from appliance.cluster.membership import Kept
from appliance.cluster.node import Node, Terms
from appliance.cluster.nodeengine import mark_of
from appliance.cluster.noderun import listening
from appliance.cluster.nodeserver import NodeServer
from appliance.cluster.wiring import worker_part
from appliance.errors import SettingsError
from appliance.host import StateFolder, bind, find_extras
from appliance.metrics import Metrics
from appliance.orphans import end_orphans, record_of
from appliance.part import part_of
from appliance.preparation import Preparation
from appliance.settings import Settings
from appliance.swap import find_swap
from appliance.tree import become_subreaper

log = structlog.get_logger()

CODE_EVERY_S = 1.0
ORPHANS_S = 10.0
LEASES = 2  # the head gives up first, and then the worker: it may have been the cable alone


async def serve_node(settings: Settings, say: Callable[[str], None]) -> int:
    """Run the worker until a signal. Raises ApplianceError for what keeps it from listening."""
    if settings.cluster_role != "worker":
        raise SettingsError(
            f"this box is no worker: APPLIANCE_CLUSTER_ROLE={settings.cluster_role}",
            "set APPLIANCE_CLUSTER_ROLE=worker here, and =head on the box that serves",
        )
    keep_large_blocks()
    become_subreaper()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with (
        contextlib.closing(StateFolder(settings.state_dir)) as state,
        bind(settings.cluster_worker or "", settings.cluster_port) as listener,
    ):
        kept, identity = Kept(state.path), ensure_identity(state.path / "cluster")
        desk = JoinDesk(identity.fingerprint, secrets.token_bytes)
        node = _node(settings, state, kept, desk)
        await _end_earlier(kept)
        async with listening(node, NodeServer(node), identity, listener):
            log.info("node.listening", at=settings.cluster_worker, port=settings.cluster_port)
            codes = asyncio.create_task(show_codes(node, desk, say))
            try:
                await stop.wait()
                log.info("node.stopping")
            finally:
                codes.cancel()
    return 0


def _node(settings: Settings, state: StateFolder, kept: Kept, desk: JoinDesk) -> Node:
    metrics = Metrics()
    swap = find_swap(settings.swap, settings.swap_command, state.swap_lock)
    preparation = Preparation(
        settings, find_extras(), state.evidence, metrics, os.environ, swap, lambda: None,
        part=part_of(settings),
    )  # fmt: skip
    engine = worker_part(settings, preparation, metrics)
    terms = Terms(
        settings.cluster_head or "", settings.tensor_parallel_size, settings.cluster_master_port
    )
    return Node(engine, kept, desk, terms, LEASES * settings.cluster_patience_s)


async def _end_earlier(kept: Kept) -> None:
    """End what a killed life of this node left: its last order's mark is on it."""
    head = kept.head()
    if head is not None and head.token:
        await end_orphans(record_of(0, mark_of(head.token)), ORPHANS_S)


async def show_codes(node: Node, desk: JoinDesk, say: Callable[[str], None]) -> None:
    """Show a code, and a new one when it is over, until a head has joined."""
    loop = asyncio.get_running_loop()
    while node.head is None:
        if desk.wants_code(loop.time()):
            secret = secrets.token_bytes(SECRET_BYTES)
            desk.issue(secret, loop.time())
            say(
                "this node has no head yet. On the head, within "
                f"{CODE_S / 60:.0f} minutes:\n  appliance cluster join {spell(secret)}"
            )
        await asyncio.sleep(CODE_EVERY_S)
    say(f"joined: orders come from {node.head.head}")
