"""The memory plan: one start's share of the machine, or every reason why it does not fit. Pure.

All of a unified memory is one pool, so the plan reckons from the host's side: MemTotal, less what
is in use before the start, less what the engine takes, less what it may yet grow by, less the
floor at which the guards end it. What is left is for the KV cache.

vLLM is told the KV cache's bytes, and a utilization. With the bytes given it does not measure,
and sizes nothing by the utilization; but its check before it loads is made with it all the same:
MemAvailable, once the CUDA context and the handles are there, must be ceil(total x utilization)
at least. So the utilization here is what the engine takes, and no knob.
"""

from dataclasses import dataclass, replace

from appliance.budget import BudgetRow, Shortfall
from appliance.decode import DecodePlan, plan_decode
from appliance.errors import DoesNotFit
from appliance.facts import HostFacts, ModelFacts
from appliance.floors import Floors
from appliance.kvcache import CacheShape, NotComputable, cache_shape
from appliance.overheads import GIB, LOGGED, MIB, Amount, Learned, learn, overheads
from appliance.profiles import BOX_PROFILES
from appliance.reckoning import Reckoning, gib
from appliance.settings import Settings
from appliance.shortfalls import hard_shortfalls, soft_shortfalls, warnings

__all__ = ["RUNGS", "Learned", "MemoryPlan", "learn", "plan_memory"]

RUNGS = 3  # the plan that was chosen, and two safer ones
CONTEXTS = {"safe": 24_576, "default": 49_152, "wide": 65_536}  # tokens, at most
MIN_CONTEXT = 16_384  # an agent's prompt and tools take 10,000 tokens before it is asked anything
LEAST_CONTEXT = 4096  # of a safer plan: short prompts are served, and the box does not freeze
STEP = 1024
CPU_CACHE_BYTES = GIB  # enough for the tiny model; the CPU engine takes whole GiB


@dataclass(frozen=True)
class MemoryPlan:
    """One start's share of the machine's memory, in bytes where nothing else is said.

    ``rows`` sum to MemTotal. ``needed_available_bytes`` is the MemAvailable that the start needs,
    ``deficit_bytes`` what is missing of it now: to be evicted before the spawn. ``decode`` is None
    where the model's parts are not known.
    """

    rows: tuple[BudgetRow, ...]
    gpu_memory_utilization: float | None  # None on the CPU engine
    max_model_len: int
    max_num_seqs: int
    kv_bytes: int
    kv_tokens: int  # 0 where it is not computed
    kv_is_computed: bool  # False: the engine measures for itself, within the utilization
    needed_available_bytes: int
    deficit_bytes: int
    steady_available_bytes: int
    growth_bytes: int
    floors: Floors
    warnings: tuple[str, ...]
    is_forced: bool
    decode: DecodePlan | None = None


def plan_memory(
    settings: Settings,
    host: HostFacts,
    model: ModelFacts,
    learned: Learned | None = None,
    rung: int = 0,
) -> MemoryPlan:
    """Return the plan of a start. ``rung`` is how many safer steps to take: less KV cache.

    Raises DoesNotFit with every shortfall at once, also for what cannot be computed, and where a
    safer step has nothing left to give up.
    """
    case = _case(settings, host, model, learned)
    first = _chosen(case)
    case = _safer(first, min(rung, RUNGS - 1))
    hard, soft = hard_shortfalls(case), soft_shortfalls(case)
    if hard or (soft and not settings.memory_force):
        raise _refusal(case, hard + soft)
    told = warnings(case, 0 if rung else CONTEXTS[settings.memory_profile])
    if rung:
        told = (f"step {rung} of safer plans: {gib(case.kv_bytes)} of KV cache instead of "
                f"{gib(first.kv_bytes)}", *_little_room(case), *told)  # fmt: skip
    return _plan(case, tuple(f"forced: {short.what}" for short in soft) + told, bool(soft))


def _little_room(case: Reckoning) -> tuple[str, ...]:
    if case.context >= MIN_CONTEXT:
        return ()
    return (
        f"a context of {case.context:,} tokens leaves a coding agent little room: "
        "its prompt and tools take 10,000",
    )


def _plan(case: Reckoning, told: tuple[str, ...], is_forced: bool) -> MemoryPlan:
    settings = case.settings
    return MemoryPlan(
        rows=case.rows(),
        gpu_memory_utilization=case.utilization,
        max_model_len=case.context,
        max_num_seqs=settings.max_num_seqs,
        kv_bytes=case.kv_bytes,
        kv_tokens=_tokens(case),
        kv_is_computed=case.shape is not None,
        needed_available_bytes=case.needed,
        deficit_bytes=case.deficit,
        steady_available_bytes=case.steady,
        growth_bytes=settings.memory_growth,
        floors=Floors(
            settings.memory_warn_floor,
            settings.memory_stop_floor,
            settings.memory_kill_floor,
            settings.memory_emergency,
        ),
        warnings=told,
        is_forced=is_forced,
        decode=plan_decode(settings, case.model, case.context),
    )


def _refusal(case: Reckoning, shortfalls: tuple[Shortfall, ...]) -> DoesNotFit:
    worst = max(shortfalls, key=lambda short: short.missing_bytes)
    return DoesNotFit(
        f"{case.model.folder.name or case.model.architecture} does not fit: {worst.what}",
        "; or ".join(worst.remedies) or "appliance plan shows the whole budget",
        shortfalls=shortfalls,
        table=case.rows(),
    )


def _case(
    settings: Settings, host: HostFacts, model: ModelFacts, learned: Learned | None
) -> Reckoning:
    on_cpu = BOX_PROFILES[settings.profile].on_cpu
    parts = overheads(on_cpu, settings.enforce_eager, learned)
    weights = Amount(model.weights_bytes, _weighed(model))
    if learned is not None and learned.weights_bytes is not None:
        weights = Amount(learned.weights_bytes, LOGGED)
    case = Reckoning(settings, host, model, weights, parts, None, on_cpu)
    try:
        return replace(case, shape=_shape(settings, model))
    except NotComputable as cause:
        if settings.max_model_len and (on_cpu or settings.gpu_memory_utilization):
            return case
        raise _cannot_compute(case, str(cause)) from None


def _shape(settings: Settings, model: ModelFacts) -> CacheShape:
    return cache_shape(model, settings.kv_cache_dtype, settings.max_num_batched_tokens)


def _cannot_compute(case: Reckoning, why: str) -> DoesNotFit:
    names = ["APPLIANCE_MAX_MODEL_LEN"]
    if not case.on_cpu:
        names.insert(0, "APPLIANCE_GPU_MEMORY_UTILIZATION")
    remedy = f"set {' and '.join(names)} yourself: the engine then measures its KV cache alone"
    short = Shortfall(f"cannot compute: {why}", 0, (remedy,))
    return DoesNotFit(short.what, remedy, shortfalls=(short,), table=case.rows())


def _weighed(model: ModelFacts) -> str:
    parts = ", ".join(f"{name} {gib(size)}" for name, size in model.weights_by_dtype)
    return f"its tensors: {parts}" if parts else "its tensors"


# ---- the choice


def _chosen(case: Reckoning) -> Reckoning:
    """Return the case with its KV cache and its context, as chosen or as they fit."""
    explicit = case.settings.gpu_memory_utilization
    if case.on_cpu:
        kv = _cpu_cache(case)
    elif explicit is not None:
        case = replace(case, fraction=explicit)
        kv = int(case.total * explicit) - case.fixed
    else:
        kv = _fitting_cache(case)
    case = replace(case, kv_bytes=kv)
    return replace(case, context=case.settings.max_model_len or _fitting_context(case))


def _fitting_cache(case: Reckoning) -> int:
    """Return the KV cache's bytes: what is left less the margin, never more than is of use."""
    shape, sequences = _known(case), case.settings.max_num_seqs
    wanted = _wanted_context(case)
    # as much again as can run at once: the prefix cache's; a larger one serves nobody
    enough = shape.bytes_for(2 * sequences * wanted, sequences)
    # strictly below the room, and in whole MiB
    kv = min(case.room - case.margin - 1, enough) // MIB * MIB
    target = shape.bytes_for(wanted, sequences)
    if kv < target:
        kv = min(target, kv + case.evictable)
    # the margin is a wish: the least that is of use comes before it, and the floors decide
    return max(kv, shape.bytes_for(_least_context(case), sequences))


def _cpu_cache(case: Reckoning) -> int:
    if case.shape is None:
        return CPU_CACHE_BYTES
    needed = case.shape.bytes_for(_least_context(case), case.settings.max_num_seqs)
    return max(CPU_CACHE_BYTES, -(-needed // GIB) * GIB)


def _wanted_context(case: Reckoning) -> int:
    """Return the context to aim at: the operator's, the model's own, or the profile's."""
    longest = case.model.max_position_embeddings
    if case.settings.max_model_len:
        return case.settings.max_model_len
    if case.on_cpu and longest:
        return longest  # a cap saves memory, and the tiny model takes none
    cap = CONTEXTS[case.settings.memory_profile]
    return min(cap, longest) if longest else cap


def _least_context(case: Reckoning) -> int:
    wanted = _wanted_context(case)
    return wanted if case.settings.max_model_len else min(wanted, MIN_CONTEXT)


def _fitting_context(case: Reckoning) -> int:
    """Return the context that the KV cache holds, in whole steps, up to the one wanted."""
    wanted = _wanted_context(case)
    tokens = _tokens(case)
    return wanted if tokens >= wanted else max(_whole(tokens), _least_context(case))


def _safer(first: Reckoning, rung: int) -> Reckoning:
    """Return the case with a third less of KV cache and context for each step.

    Raises DoesNotFit where a step would not be smaller: to try the same again helps nobody.
    """
    case = first
    if first.kv_bytes <= 0:
        return first  # it does not fit at all, and says so
    for kept in range(RUNGS - 1, RUNGS - 1 - rung, -1):
        case = _shorter(first, case, kept) if _is_least(case) else _smaller(first, case, kept)
    return case


def _is_least(case: Reckoning) -> bool:
    # the CPU engine takes whole GiB, so at one of them a step can only shorten the context
    return case.on_cpu and case.kv_bytes <= GIB


def _shorter(first: Reckoning, before: Reckoning, kept: int) -> Reckoning:
    context = max(_whole(first.context * kept // RUNGS), min(first.context, MIN_CONTEXT))
    return replace(before, context=min(before.context, context))


def _smaller(first: Reckoning, before: Reckoning, kept: int) -> Reckoning:
    unit = GIB if first.on_cpu else 1
    least = min(first.context, LEAST_CONTEXT)
    context = max(_whole(first.context * kept // RUNGS), least)
    most = before.kv_bytes - unit  # else it is no step
    kv = max(unit, first.kv_bytes * kept // RUNGS // unit * unit)
    if first.shape is not None:
        # strictly fewer blocks: a hybrid model's are of thousands of tokens
        sequences = first.settings.max_num_seqs
        context = min(context, _whole(first.shape.tokens_in(most, sequences)))
        if context < least:
            raise _no_safer(before)
        kv = max(kv, -(-first.shape.bytes_for(context, sequences) // unit) * unit)
    return replace(before, kv_bytes=min(most, kv), context=context, fraction=None)


def _no_safer(case: Reckoning) -> DoesNotFit:
    what = (
        f"no safer plan: a KV cache of {gib(case.kv_bytes)} for {case.context:,} tokens "
        "is the smallest that is of use"
    )
    remedy = "make room on the machine: stop what else runs, or take a smaller checkpoint"
    short = Shortfall(what, 0, (remedy,))
    return DoesNotFit(what, remedy, shortfalls=(short,), table=case.rows())


def _tokens(case: Reckoning) -> int:
    if case.shape is None:
        return 0
    return case.shape.tokens_in(case.kv_bytes, case.settings.max_num_seqs)


def _whole(tokens: int) -> int:
    return tokens // STEP * STEP or tokens


def _known(case: Reckoning) -> CacheShape:
    if case.shape is None:
        raise AssertionError("a KV cache that cannot be computed is refused before")
    return case.shape
