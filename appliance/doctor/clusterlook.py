"""Looks at the other box of a cluster, and at this host's packet rule."""

import asyncio

from appliance.cluster.compare import compare
from appliance.cluster.hostports import HostPorts
from appliance.cluster.membership import Kept
from appliance.cluster.nodeclient import NodeClient
from appliance.cluster.nodelook import look_at_node
from appliance.doctor.clusterrows import Joined, Rule
from appliance.settings import Settings

ANSWER_S = 20.0  # a look at the other box: it reads its checkpoint's headers


def look_at_other_box(settings: Settings) -> Joined | None:
    """Return what is known of the other box; None before a join. Raises ApplianceError."""
    kept = Kept(settings.state_dir)
    if settings.cluster_role == "worker":
        head = kept.head()
        return Joined(head.head) if head else None
    worker = kept.worker()
    if worker is None:
        return None

    async def compared() -> Joined:
        async with NodeClient(worker) as peer:
            theirs = await peer.facts()
        own = await asyncio.to_thread(look_at_node, settings)
        return Joined(worker.address, compare(own, theirs))

    return asyncio.run(compared())


def look_at_rule(host: HostPorts | None = None) -> Rule:
    """Return the packet rule of this host. Raises HostError for a file that is not ours."""
    host = host or HostPorts()
    kept = host.installed()
    if kept is None or host.euid != 0:
        return Rule(kept)
    return Rule(kept, host.is_in_force(kept))
