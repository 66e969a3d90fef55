"""What comes before a spawn: look at the machine, make room, and make the plan.

Nothing here touches memory once the engine is spawned: vLLM takes a reading as it begins, and
aborts when more is free later on.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import structlog

from appliance.checkpoint.folder import read_model_facts
from appliance.errors import SwapError
from appliance.facts import HostFacts, ModelFacts
from appliance.host import free_port
from appliance.launch import Extras, LaunchPlan, plan_launch
from appliance.memory import MemoryPlan, plan_memory
from appliance.metrics import Metrics
from appliance.observe import observe
from appliance.overheads import Learned
from appliance.part import Part
from appliance.reckoning import MIN_OS_BYTES
from appliance.settings import Settings
from appliance.sizes import format_size
from appliance.supervisor import Order
from appliance.swap import Report, Swap

log = structlog.get_logger()

AVAILABLE = "available"  # once it serves
RESETTLE_S = 5.0  # what was pushed out and is in use comes back within this


Fit = Callable[[Settings, HostFacts, ModelFacts, Learned | None, int], MemoryPlan]


@dataclass(frozen=True)
class Preparation:
    """Makes the plan of each start. ``swap`` is None where force_swap is off or not there.

    ``learned`` returns what the last start taught about overheads. ``fit`` plans the memory, of
    ``part`` alone where the engine spans two boxes.
    """

    settings: Settings
    extras: Extras
    evidence: Path
    metrics: Metrics
    base_env: Mapping[str, str]
    swap: Swap | None
    learned: Callable[[], Learned | None]
    resettle_s: float = RESETTLE_S
    look: Callable[[Sequence[str], Path], HostFacts] = observe
    fit: Fit = plan_memory
    part: Part | None = None

    async def prepare(self, order: Order) -> LaunchPlan:
        """Return the plan for an order. Raises ApplianceError: DoesNotFit with all shortfalls."""
        model = await asyncio.to_thread(read_model_facts, self.settings.model_dir)
        await self.drop_cache()
        memory = await self._fit(model, order.rung)
        for row in memory.rows:
            self.metrics.plan_bytes.labels(row.name).set(row.bytes)
        self.metrics.plan_bytes.labels(AVAILABLE).set(memory.steady_available_bytes)
        for name, size in asdict(memory.floors).items():
            self.metrics.floor_bytes.labels(name.removesuffix("_bytes")).set(size)
        return plan_launch(
            self.settings,
            self.extras,
            memory,
            port=free_port(),
            api_key=order.api_key,
            base_env=self.base_env,
            token=order.token,
            evidence=self.evidence,
            part=self.part,
        )

    async def drop_cache(self) -> int:
        """Drop the page cache of the model's folder; return the bytes that were freed.

        It costs reading the shards again, and nothing else: no failure of it ends a start.
        """
        if self.swap is None:
            return 0
        try:
            report = await self.swap.drop_cache([self.settings.model_dir])
        except SwapError as error:
            log.warning("swap.failed", what=error.what, next=error.hint)
            return 0
        return self._count(report)

    async def _fit(self, model: ModelFacts, rung: int) -> MemoryPlan:
        host = await self._observe()
        plan = self._plan(host, model, rung)
        if plan.deficit_bytes == 0 or self.swap is None:
            return plan
        settings = self.settings
        log.info("memory.evicting", deficit=format_size(plan.deficit_bytes))
        try:
            report = await self.swap.evict(
                plan.needed_available_bytes,
                settings.evict_cgroups,
                settings.cgroup_base,
                max_bytes=settings.evict_max,
                reserve_bytes=MIN_OS_BYTES,
            )
        except SwapError as error:  # then it fits without, or says what is short
            log.warning("swap.failed", what=error.what, next=error.hint)
        else:
            self._count(report)
        await asyncio.sleep(self.resettle_s)
        # now it must fit as it is: a second eviction would push out the same pages again
        return self._plan(replace(await self._observe(), evictable=()), model, rung)

    def _plan(self, host: HostFacts, model: ModelFacts, rung: int) -> MemoryPlan:
        return self.fit(self.settings, host, model, self.learned(), rung)

    async def _observe(self) -> HostFacts:
        settings = self.settings
        cgroups = settings.evict_cgroups if self.swap else ()
        return await asyncio.to_thread(self.look, cgroups, settings.cgroup_base)

    def _count(self, report: Report) -> int:
        for mechanism, size in report.freed.items():
            self.metrics.freed_bytes.labels(mechanism).inc(size)
        return report.freed_bytes
