"""Which plan a start takes after memory ran out. Pure.

A fixed ladder of contexts, until the memory plan computes what fits.
"""

from dataclasses import dataclass

from appliance.budget import BudgetRow
from appliance.floors import Floors
from appliance.settings import Settings

CONTEXTS = (49_152, 32_768, 16_384)  # tokens; a shorter one needs less KV cache
RUNGS = len(CONTEXTS)


def safer(settings: Settings, rung: int) -> Settings:
    """Return the settings of a start after ``rung`` deaths for want of memory.

    Rung 0 is what was chosen; each further one caps the context at the ladder's next step.
    """
    if rung == 0:
        return settings
    context = CONTEXTS[min(rung, RUNGS - 1)]
    chosen = settings.max_model_len
    capped = context if chosen is None else min(chosen, context)
    return settings.model_copy(update={"max_model_len": capped})


@dataclass(frozen=True)
class MemoryPlan:
    """One start's share of the machine's memory, in bytes where nothing else is said.

    ``rows`` sum to MemTotal. ``needed_available_bytes`` is the MemAvailable that the start needs,
    ``deficit_bytes`` what is missing of it now: to be evicted before the spawn.
    """

    rows: tuple[BudgetRow, ...]
    gpu_memory_utilization: float | None  # None on the CPU engine
    max_model_len: int
    max_num_seqs: int
    kv_bytes: int
    kv_tokens: int
    kv_is_computed: bool  # False: the engine measures for itself, within the utilization
    needed_available_bytes: int
    deficit_bytes: int
    steady_available_bytes: int
    growth_bytes: int
    floors: Floors
    warnings: tuple[str, ...]
    is_forced: bool
