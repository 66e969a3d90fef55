"""The sums of one memory budget: what is used, what the engine takes, what is left. Pure.

Everything is in bytes. All sums are over MemTotal, so that the rows always add up to it.
"""

import math
from dataclasses import dataclass

from appliance.budget import BudgetRow
from appliance.facts import HostFacts, ModelFacts
from appliance.floors import GuardPolicy
from appliance.kvcache import CacheShape
from appliance.overheads import GIB, MIB, Amount, Overheads
from appliance.settings import Settings
from appliance.sizes import format_size

# The least that a box without a desktop uses; what is used beyond it may be pushed out.
MIN_OS_BYTES = 5 * GIB // 2
SWAP_RESERVE_BYTES = 2 * GIB  # of swap, that force_swap leaves free
EVICT_SLACK_BYTES = 128 * MIB  # force_swap is content within 2 % or 64 MiB
OPENING = 1 + GuardPolicy.slack  # a floor is left that much above itself
# Between what is left at worst and the KV cache, by profile.
MARGINS = {"wide": 0, "default": GIB, "safe": 7 * GIB // 2}


@dataclass(frozen=True)
class Reckoning:
    """A choice of KV cache and context on a machine.

    ``fraction`` is the utilization that the operator chose, None where it follows from the rest.
    ``shape`` is None where the KV cache cannot be computed: the engine measures for itself.
    """

    settings: Settings
    host: HostFacts
    model: ModelFacts
    weights: Amount
    parts: Overheads
    shape: CacheShape | None
    on_cpu: bool
    kv_bytes: int = 0
    context: int = 0
    fraction: float | None = None

    # ---- the machine

    @property
    def total(self) -> int:
        """MemTotal."""
        return self.host.memory_total_bytes

    @property
    def used(self) -> int:
        """What is in use before the start, by whomever."""
        used = self.total - self.host.memory_available_bytes
        return used if self.on_cpu else max(used, MIN_OS_BYTES)

    @property
    def available(self) -> int:
        """What of MemTotal is for the engine and its reserves, if nothing is pushed out."""
        return self.total - self.used

    @property
    def swap_room(self) -> int:
        """What swap on a disk would take; swap in memory makes no room."""
        devices = (device for device in self.host.swap if device.kind != "zram")
        free = sum(device.size_bytes - device.used_bytes for device in devices)
        return max(0, free - SWAP_RESERVE_BYTES)

    @property
    def evictable(self) -> int:
        """What may be pushed out of the chosen cgroups, at most."""
        if self.settings.swap == "off":
            return 0
        anon = sum(group.anon_bytes for group in self.host.evictable)
        spare = self.used - MIN_OS_BYTES
        return max(0, min(anon, self.swap_room, self.settings.evict_max, spare))

    # ---- the engine

    @property
    def fixed(self) -> int:
        """What the engine takes inside the utilization, without the KV cache."""
        parts = self.parts
        inside = (self.weights, parts.activations, parts.cuda_graphs, parts.non_torch)
        return sum(amount.bytes for amount in inside)

    @property
    def engine(self) -> int:
        """All that the engine takes."""
        return self.fixed + self.kv_bytes + self.parts.engine_host.bytes

    @property
    def reserves(self) -> int:
        """What must stay free once it serves: its growth, and the floor of the guards."""
        return self.settings.memory_growth + self.settings.memory_kill_floor

    @property
    def opening(self) -> int:
        """MemAvailable above which the guards let requests in; 0 without guards."""
        settings = self.settings
        return math.ceil(settings.memory_stop_floor * OPENING) * settings.memory_guards

    @property
    def kept_free(self) -> int:
        """What must be available once it serves: the reserves, and enough to let requests in."""
        return max(self.reserves, self.opening)

    @property
    def room(self) -> int:
        """What the KV cache may take at most, if nothing is pushed out. It may be negative."""
        return self.available - self.fixed - self.parts.engine_host.bytes - self.kept_free

    @property
    def margin(self) -> int:
        """What the profile leaves of that room."""
        return 0 if self.on_cpu else MARGINS[self.settings.memory_profile]

    @property
    def utilization(self) -> float | None:
        """The fraction of vLLM's own check, None on a CPU; rounded down, to ask for no more."""
        if self.on_cpu or self.fraction is not None:
            return self.fraction
        return math.floor((self.fixed + self.kv_bytes) / self.total * 10_000) / 10_000

    # ---- what must be available before the start

    @property
    def checked(self) -> int:
        """What vLLM asks for before it loads, with what it has taken by then; 0 on a CPU."""
        if self.utilization is None:
            return 0
        return math.ceil(self.total * self.utilization) + self.parts.before_check.bytes

    @property
    def needed(self) -> int:
        """MemAvailable that the start needs, with the profile's margin; as far as it can be had."""
        slack = EVICT_SLACK_BYTES if self.evictable else 0
        held = self.engine + self.kept_free + self.margin + slack
        return min(max(self.checked, held), self.available + self.evictable)

    @property
    def deficit(self) -> int:
        """What is missing of it now: so much is to be pushed out."""
        return max(0, self.needed - self.available)

    @property
    def steady(self) -> int:
        """MemAvailable once it serves, before it grows."""
        return self.available + self.deficit - self.engine

    @property
    def left(self) -> int:
        """What nobody takes. Negative: so much is missing."""
        return self.steady - self.reserves

    # ---- the table

    def rows(self) -> tuple[BudgetRow, ...]:
        """Return the budget; the rows sum to MemTotal."""
        settings, parts, hugepages = self.settings, self.parts, self.host.hugepages_bytes
        hugepages = min(hugepages, self.used - self.deficit)
        kept = [
            BudgetRow("huge_pages", hugepages, "set aside by the kernel, for nobody else")
        ] * bool(hugepages)
        return (
            BudgetRow("weights", self.weights.bytes, self.weights.how),
            BudgetRow("kv_cache", self.kv_bytes, self._kv_words()),
            BudgetRow("activations", parts.activations.bytes, parts.activations.how),
            BudgetRow("cuda_graphs", parts.cuda_graphs.bytes, parts.cuda_graphs.how),
            BudgetRow("non_torch", parts.non_torch.bytes, parts.non_torch.how),
            BudgetRow("engine_host", parts.engine_host.bytes, parts.engine_host.how),
            BudgetRow("os", self.used - self.deficit - hugepages, self._os_words()),
            *kept,
            BudgetRow("growth", settings.memory_growth, "what serving may yet take on top"),
            BudgetRow("kill_floor", settings.memory_kill_floor, "the guards end the engine there"),
            BudgetRow("left", self.left, self._left_words()),
        )

    def _kv_words(self) -> str:
        if self.shape is None:
            return "not computed: the engine measures for itself"
        tokens = self.shape.tokens_in(self.kv_bytes, self.settings.max_num_seqs)
        return f"{tokens:,} tokens; {self.shape.arithmetic}"

    def _os_words(self) -> str:
        now = self.total - self.host.memory_available_bytes
        words = f"in use before the start: {gib(self.total)} - {gib(self.total - now)} available"
        if now < self.used:
            words += f", and {gib(MIN_OS_BYTES)} at least"
        return f"{words}, less {gib(self.deficit)} to be pushed out" if self.deficit else words

    def _left_words(self) -> str:
        if self.left < 0:
            return "MISSING"
        if self.on_cpu:
            return "for others"
        return f"the profile {self.settings.memory_profile} would leave {gib(self.margin)}"


def gib(size_bytes: int) -> str:
    """Return a size in GiB, as the budget speaks of it."""
    return (
        f"{size_bytes / GIB:.1f} GiB" if abs(size_bytes) >= GIB // 10 else format_size(size_bytes)
    )
