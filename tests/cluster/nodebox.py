"""A worker box as a process: its door on the cable, in front of its own part of the engine."""

import asyncio
import os
import secrets
import signal
import socket
import sys

from appliance.allocator import keep_large_blocks
from appliance.cluster.identity import ensure_identity
from appliance.cluster.joindesk import JoinDesk
from appliance.cluster.membership import Kept
from appliance.cluster.node import Node, Terms
from appliance.cluster.noderun import listening
from appliance.cluster.nodeserver import NodeServer
from appliance.cluster.wiring import worker_part
from appliance.host import StateFolder, find_extras
from appliance.logs import configure
from appliance.metrics import Metrics
from appliance.part import part_of
from appliance.preparation import Preparation
from appliance.settings import load_settings
from appliance.tree import become_subreaper


async def main() -> None:
    settings = load_settings(os.environ)
    configure("console")
    keep_large_blocks()
    become_subreaper()
    state, metrics = StateFolder(settings.state_dir), Metrics()
    preparation = Preparation(
        settings, find_extras(), state.evidence, metrics, os.environ, None, lambda: None,
        part=part_of(settings),
    )  # fmt: skip
    engine = worker_part(settings, preparation, metrics)
    kept, identity = Kept(state.path), ensure_identity(state.path / "cluster")
    desk = JoinDesk(identity.fingerprint, secrets.token_bytes)
    terms = Terms(settings.cluster_head or "", settings.tensor_parallel_size)
    node = Node(engine, kept, desk, terms, settings.cluster_patience_s * 2)
    if "LINES" in os.environ:
        engine.log.listen(lambda line: print(line.text, flush=True))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with socket.create_server((settings.cluster_worker or "", settings.cluster_port)) as listener:
        async with listening(node, NodeServer(node, 0.0), identity, listener):
            await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit(0)
