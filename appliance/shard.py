"""What one rank of a tensor-parallel model holds, and how two boxes agree on one KV cache. Pure.

Read in vLLM 0.32 and 0.33: attention, experts, the dense layers, the embeddings and the head are
split over the ranks; routers and norms stay whole on each, and so does what is not known here. A
KV head is never split: with fewer of them than ranks each rank keeps one.
"""

import math
from dataclasses import dataclass, replace

from appliance.errors import DoesNotFit
from appliance.facts import CacheLayers, HostFacts, ModelFacts, WeightPart
from appliance.memory import Learned, MemoryPlan, plan_memory
from appliance.reckoning import gib
from appliance.settings import Settings

SPLIT = frozenset({"experts", "attention", "dense", "embeddings", "head"})
_INSIDE = ("weights", "activations", "cuda_graphs", "non_torch")


@dataclass(frozen=True)
class Bound:
    """What both boxes must have alike: the KV cache of a rank, its tokens and the context."""

    kv_bytes: int
    kv_tokens: int
    max_model_len: int


def shard_of(model: ModelFacts, ranks: int) -> ModelFacts:
    """Return what one of ``ranks`` holds of a model: parts and KV heads, split or whole."""
    if ranks == 1:
        return model
    if not model.parts:  # nothing is known of them: most of any model is split
        return replace(
            model, weights_bytes=_share(model.weights_bytes, ranks), cache=_cache(model, ranks)
        )
    parts = tuple(_part(part, ranks) for part in model.parts)
    whole = sum(part.bytes for part in model.parts)
    apart = max(0, model.weights_bytes - whole)  # what no part claims stays whole
    return replace(
        model,
        weights_bytes=sum(part.bytes for part in parts) + apart,
        weights_by_dtype=_dtypes(parts),
        cache=_cache(model, ranks),
        parts=parts,
    )


def plan_part(
    settings: Settings,
    host: HostFacts,
    model: ModelFacts,
    learned: Learned | None = None,
    rung: int = 0,
) -> MemoryPlan:
    """Return the memory plan of one box's part, before the boxes agree. Raises DoesNotFit."""
    return plan_memory(
        settings, host, shard_of(model, settings.tensor_parallel_size), learned, rung
    )


def plan_nodes(
    settings: Settings,
    host: HostFacts,
    worker: HostFacts,
    model: ModelFacts,
    learned: Learned | None = None,
    rung: int = 0,
) -> tuple[MemoryPlan, MemoryPlan]:
    """Return the head's and the worker's plans, with one KV cache: that of the fuller box.

    What was learned of overheads is the head's, and says nothing of the worker's. Raises
    DoesNotFit, and says of which box.
    """
    own = plan_part(settings, host, model, learned, rung)
    try:
        other = plan_part(settings, worker, model, None, rung)
    except DoesNotFit as error:
        raise DoesNotFit(
            f"on the worker: {error.what}",
            error.hint,
            shortfalls=error.shortfalls,
            table=error.table,
        ) from None
    bound = _lesser(own, other)
    return bounded(own, bound), bounded(other, bound)


def _lesser(one: MemoryPlan, other: MemoryPlan) -> Bound:
    return Bound(
        min(one.kv_bytes, other.kv_bytes),
        min(one.kv_tokens, other.kv_tokens),
        min(one.max_model_len, other.max_model_len),
    )


def bounded(plan: MemoryPlan, bound: Bound) -> MemoryPlan:
    """Return the plan with no more than the bound: what is left over stays free on this box.

    Raises DoesNotFit for a bound that is more than the plan has room for.
    """
    if plan.kv_bytes < bound.kv_bytes or plan.max_model_len < bound.max_model_len:
        raise DoesNotFit(
            f"the other box plans {gib(bound.kv_bytes)} of KV cache and a context of "
            f"{bound.max_model_len:,} tokens, and this one has room for {gib(plan.kv_bytes)} and "
            f"{plan.max_model_len:,}",
            "appliance plan on this box shows what takes its memory",
            table=plan.rows,
        )
    freed = plan.kv_bytes - bound.kv_bytes
    grows = {"kv_cache": -freed, "left": freed}
    rows = tuple(replace(row, bytes=row.bytes + grows.get(row.name, 0)) for row in plan.rows)
    fraction = plan.gpu_memory_utilization
    if fraction is not None and freed:
        total = sum(row.bytes for row in rows)
        inside = sum(row.bytes for row in rows if row.name in _INSIDE) + bound.kv_bytes
        fraction = math.floor(inside / total * 10_000) / 10_000
    return replace(
        plan,
        rows=rows,
        gpu_memory_utilization=fraction,
        max_model_len=bound.max_model_len,
        kv_bytes=bound.kv_bytes,
        kv_tokens=min(plan.kv_tokens, bound.kv_tokens),
        steady_available_bytes=plan.steady_available_bytes + freed,
    )


# ---- the shares


def _part(part: WeightPart, ranks: int) -> WeightPart:
    if part.name not in SPLIT:
        return part
    return replace(
        part,
        bytes=_share(part.bytes, ranks),
        token_bytes=_share(part.token_bytes, ranks),
        bf16_bytes=_share(part.bf16_bytes, ranks),
        by_dtype=tuple((name, _share(size, ranks)) for name, size in part.by_dtype),
    )


def _dtypes(parts: tuple[WeightPart, ...]) -> tuple[tuple[str, int], ...]:
    sums: dict[str, int] = {}
    for part in parts:
        for name, size in part.by_dtype:
            sums[name] = sums.get(name, 0) + size
    return tuple(sorted(sums.items(), key=lambda item: item[1], reverse=True))


def _cache(model: ModelFacts, ranks: int) -> tuple[CacheLayers, ...]:
    return tuple(_layers(layers, ranks) for layers in model.cache)


def _layers(layers: CacheLayers, ranks: int) -> CacheLayers:
    # 0: not known how many there are, so nothing is promised to be split
    share = min(ranks, layers.kv_heads) if layers.kv_heads else 1
    return replace(
        layers,
        values_per_token=_share(layers.values_per_token, share),
        state_bytes=_share(layers.state_bytes, ranks) if layers.kind == "linear" else 0,
    )


def _share(size: int, ranks: int) -> int:
    return -(-size // ranks)
