"""What comes before a start over two boxes: the worker clear and alike, and one memory plan."""

import asyncio
from dataclasses import dataclass, replace

import structlog

from appliance.cluster.compare import Verdict, compare, refuse
from appliance.cluster.nodelook import look_at_node
from appliance.cluster.peer import Alive, NodeFacts, Peer
from appliance.cluster.twin import GRACE_S
from appliance.facts import HostFacts, ModelFacts
from appliance.launch import LaunchPlan
from appliance.memory import Learned, MemoryPlan
from appliance.preparation import Preparation
from appliance.settings import Settings
from appliance.shard import plan_nodes
from appliance.supervisor import Order

log = structlog.get_logger()


@dataclass(frozen=True)
class HeadPreparation:
    """Makes the plan of the head's part. ``inner`` is what one box does before a start."""

    inner: Preparation
    peer: Peer

    async def prepare(self, order: Order) -> LaunchPlan:
        """Return the plan for an order.

        Raises ApplianceError: PeerLost while it must wait, NodesDiffer for what breaks the engine.
        """
        await self._clear()
        facts = await self.peer.facts()
        await self._compare(facts)
        worker = host_of(facts)

        def fit(
            settings: Settings,
            host: HostFacts,
            model: ModelFacts,
            learned: Learned | None,
            rung: int,
        ) -> MemoryPlan:
            return plan_nodes(settings, host, worker, model, learned, rung)[0]

        return await replace(self.inner, fit=fit).prepare(order)

    async def _compare(self, worker: NodeFacts) -> None:
        own = await asyncio.to_thread(look_at_node, self.inner.settings)
        rows = compare(own, worker)
        refuse(rows)
        for row in rows:
            if row.verdict is Verdict.WARNS:
                log.warning(
                    "cluster.differs",
                    what=row.name,
                    head=row.head,
                    worker=row.worker,
                    next=row.next,
                )

    async def _clear(self) -> None:
        """End what an earlier life of this head left on the worker: vLLM would wait for it."""
        state = await self.peer.state()
        if isinstance(state, Alive):
            log.info("cluster.clearing", spawn=state.spawn, pid=state.pid)
            await self.peer.stop(state.spawn, grace_s=GRACE_S)


def host_of(facts: NodeFacts) -> HostFacts:
    """Return of the worker what its memory plan takes. Pure."""
    return HostFacts(
        machine=facts.machine,
        cpu_count=0,
        memory_total_bytes=facts.memory_total_bytes,
        memory_available_bytes=facts.memory_available_bytes,
    )
