"""Why a reckoning does not add up, and what to do about each reason; what to warn of. Pure."""

from appliance.budget import Shortfall
from appliance.facts import EarlyOom
from appliance.fieldtypes import named_flag
from appliance.reckoning import MIN_OS_BYTES, SWAP_RESERVE_BYTES, Reckoning, gib

STEP = 1024
# Flags that change what the engine takes, behind the plan's back.
_UNKNOWN_FLAGS = (
    "--speculative-config",
    "--kv-cache-dtype",
    "--block-size",
    "--cpu-offload-gb",
    "--kv-offloading-size",
    "--tensor-parallel-size",
)
_SHORT_FLAGS = ("-sc", "-tp")


def hard_shortfalls(case: Reckoning) -> tuple[Shortfall, ...]:
    """Return what no force helps against: the engine itself would refuse."""
    return _too_long(case) + _no_cache(case)


def _too_long(case: Reckoning) -> tuple[Shortfall, ...]:
    chosen, longest = case.settings.max_model_len, case.model.max_position_embeddings
    # a checkpoint may be told to be longer than its config says: then vLLM judges
    is_told = any(named_flag(word, ("--hf-overrides",)) for word in case.settings.engine_extra_args)
    if not chosen or not longest or chosen <= longest or is_told:
        return ()
    what = (
        f"APPLIANCE_MAX_MODEL_LEN={chosen} is longer than the model's own {longest:,} tokens "
        "(max_position_embeddings)"
    )
    return (Shortfall(what, 0, (f"APPLIANCE_MAX_MODEL_LEN={longest} at most, or unset it",)),)


def _no_cache(case: Reckoning) -> tuple[Shortfall, ...]:
    fraction = case.utilization
    if fraction is not None and not 0 < fraction < 1:
        remedies = _on_the_machine(case, -case.left) or ("a smaller checkpoint",)
        what = f"weights and KV cache are {gib(case.fixed + case.kv_bytes)} of {gib(case.total)}"
        return (Shortfall(what, max(0, -case.left), remedies),)
    if case.shape is None:
        missing = -case.kv_bytes
    else:
        sequences = case.settings.max_num_seqs
        missing = case.shape.bytes_for(case.context, sequences) - case.kv_bytes
    if missing <= 0 and case.kv_bytes > 0:
        return ()
    what = (
        f"a KV cache of {gib(case.kv_bytes)} does not hold a context of {case.context:,} tokens: "
        f"{gib(max(missing, 0))} are missing"
    )
    return (Shortfall(what, max(missing, 0), _cache_remedies(case, missing)),)


def soft_shortfalls(case: Reckoning) -> tuple[Shortfall, ...]:
    """Return what the operator may force: the floors, and the checks of others."""
    found = []
    if case.left <= 0:
        what = (
            f"with {case.context:,} tokens {gib(case.steady)} would be available once it serves; "
            f"less {gib(case.reserves)} of growth and floor, {gib(-case.left)} are missing"
        )
        remedies = (
            *_choice_remedies(case, 1 - case.left),
            *_on_the_machine(case, -case.left),
            *_force(case),
        )
        found.append(Shortfall(what, 1 - case.left, remedies))
    closed = case.opening - case.steady
    if closed >= 0 < case.opening:
        what = (
            f"with {case.context:,} tokens {gib(case.steady)} would be available once it serves, "
            f"and nobody is let in below {gib(case.opening)}, 5 % above the stop floor"
        )
        ours = _choice_remedies(case, closed + 1)
        lower = ("a lower APPLIANCE_MEMORY_STOP_FLOOR",) * (case.steady > 0)
        machine = () if found else (*lower, *_on_the_machine(case, closed), *_force(case))
        found.append(Shortfall(what, closed + 1, (*ours, *machine)))
    unmet = case.checked - case.available - case.deficit
    if unmet > 0:
        what = (
            f"vLLM asks for {gib(case.checked)} before it loads, and {gib(unmet)} of it are missing"
        )
        ours = _choice_remedies(case, unmet)
        found.append(
            Shortfall(what, unmet, ours if found else (*ours, *_on_the_machine(case, unmet)))
        )
    killer = case.host.earlyoom
    if killer is not None and _is_armed(case, killer) and killer.term_bytes >= case.steady > 0:
        missing = killer.term_bytes - case.steady + 1
        what = (
            f"earlyoom ends processes below {gib(killer.term_bytes)} available, and "
            f"{gib(case.steady)} would be available once it serves"
        )
        found.append(Shortfall(what, missing, ("sudo systemctl disable --now earlyoom",)))
    return tuple(found)


def _is_armed(case: Reckoning, killer: EarlyOom) -> bool:
    return case.host.swap_free_percent <= killer.swap_percent


def warnings(case: Reckoning, cap: int) -> tuple[str, ...]:
    """Return what to know of a plan that fits. ``cap`` is the context to aim at; 0 for none."""
    told = []
    if case.deficit:
        names = ", ".join(group.cgroup for group in case.host.evictable)
        told.append(f"{gib(case.deficit)} are to be pushed out of {names} before the start")
    grown = case.steady - case.settings.memory_growth
    if case.settings.memory_guards and grown < case.settings.memory_stop_floor:
        told.append(
            f"growth would stop admission: {gib(grown)} would be available once it has grown, and "
            f"below {gib(case.settings.memory_stop_floor)} nobody more is let in"
        )
    killer = case.host.earlyoom
    if killer is not None and case.steady - case.settings.memory_growth <= killer.term_bytes:
        swap = "" if _is_armed(case, killer) else (
            f", once no more than {killer.swap_percent} % of the swap is free"
        )  # fmt: skip
        told.append(
            f"earlyoom ends processes below {gib(killer.term_bytes)} available{swap}: "
            "the engine's growth reaches that before the guards of the appliance do"
        )
    if not case.on_cpu:
        told += _more_tokens(case, cap)
        if case.host.desktop:
            told.append(f"a desktop runs, and grows: {_stop_desktop(case)}")
        if case.host.gpu_users:
            told.append(f"others use the GPU: {', '.join(case.host.gpu_users)}")
    elif case.settings.gpu_memory_utilization is not None:
        told.append("APPLIANCE_GPU_MEMORY_UTILIZATION means nothing to the CPU engine")
    if case.shape is None:
        told.append("the KV cache is not computed: no context is promised to fit")
    strange = [
        word.partition("=")[0]
        for word in case.settings.engine_extra_args
        if word.partition("=")[0] in _SHORT_FLAGS or named_flag(word, _UNKNOWN_FLAGS)
    ]
    if strange:
        told.append(f"APPLIANCE_ENGINE_EXTRA_ARGS: {', '.join(strange)} is not in this plan")
    return tuple(told)


def _more_tokens(case: Reckoning, cap: int) -> list[str]:
    longest = case.model.max_position_embeddings or cap
    wanted = min(cap, longest)
    if case.settings.max_model_len or case.shape is None or case.context >= wanted:
        return []
    missing = case.shape.bytes_for(wanted, case.settings.max_num_seqs) - case.kv_bytes
    more = f"the profile would serve {wanted:,} tokens with {gib(missing)} more"
    return [more, *(f"for that: {remedy}" for remedy in _on_the_machine(case, missing))]


# ---- what to do


def _choice_remedies(case: Reckoning, missing: int) -> tuple[str, ...]:
    """Return which of the operator's choices would have to be smaller, and how small."""
    if case.on_cpu:
        return ()
    remedies = []
    fraction = int((case.fixed + case.kv_bytes - missing) / case.total * 10_000) / 10_000
    if case.settings.gpu_memory_utilization is not None and fraction * case.total > case.fixed:
        remedies.append(
            f"lower APPLIANCE_GPU_MEMORY_UTILIZATION to {fraction}, or unset it: the plan finds one"
        )
    tokens = 0
    if case.shape is not None:
        kv = case.kv_bytes - missing
        tokens = case.shape.tokens_in(kv, case.settings.max_num_seqs) // STEP * STEP
    if 0 < tokens < case.context and not remedies:
        remedies.append(f"fewer tokens: APPLIANCE_MAX_MODEL_LEN={tokens} is what fits")
    return tuple(remedies)


def _cache_remedies(case: Reckoning, missing: int) -> tuple[str, ...]:
    remedies = []
    if case.shape is not None:
        tokens = case.shape.tokens_in(case.kv_bytes, case.settings.max_num_seqs) // STEP * STEP
        if tokens:
            remedies.append(f"fewer tokens: APPLIANCE_MAX_MODEL_LEN={tokens} is what fits")
    if case.settings.gpu_memory_utilization is not None:
        raised = (case.fixed + case.kv_bytes + missing) / case.total
        if raised < 1:
            remedies.append(f"raise APPLIANCE_GPU_MEMORY_UTILIZATION to {raised + 0.00005:.4f}")
        remedies.append("unset APPLIANCE_GPU_MEMORY_UTILIZATION: the plan finds one")
    return tuple(remedies) or ("a smaller checkpoint",)


def _force(case: Reckoning) -> tuple[str, ...]:
    chosen = case.settings.gpu_memory_utilization or case.settings.max_model_len
    return ("take it all the same: --force, with the guards armed",) if chosen else ()


def _on_the_machine(case: Reckoning, missing: int) -> tuple[str, ...]:
    """Return what on the machine would make room, by what of it was seen."""
    host, remedies = case.host, []
    spare = max(0, case.used - MIN_OS_BYTES)
    if host.desktop:
        remedies.append(_stop_desktop(case))
    if host.gpu_users:
        remedies.append(f"end the other users of the GPU: {', '.join(host.gpu_users)}")
    if host.hugepages_bytes:
        remedies.append(
            f"give back {gib(host.hugepages_bytes)} of huge pages: sudo sysctl vm.nr_hugepages=0"
        )
    if spare and case.deficit < missing:
        remedies += _eviction_remedies(case, min(missing, spare))
    if spare:
        now = gib(host.memory_total_bytes - host.memory_available_bytes)
        remedies.append(
            f"stop what else runs: {now} are in use before the start "
            "(if that is an engine of this appliance: appliance stop)"
        )
    if not case.on_cpu and case.settings.memory_profile != "wide" and case.left > 0:
        remedies.append("APPLIANCE_MEMORY_PROFILE=wide takes its margin too")
    return tuple(remedies)


def _eviction_remedies(case: Reckoning, wanted: int) -> list[str]:
    if case.settings.swap == "off":
        return [f"APPLIANCE_SWAP=auto, to push {gib(wanted)} out of chosen cgroups"]
    remedies = []
    if case.swap_room < wanted:
        size = wanted + SWAP_RESERVE_BYTES
        kind = "on a disk, not in zram" if case.host.swap else "on a disk"
        remedies.append(f"add {gib(size)} of swap {kind}, so that cold pages can be pushed out")
    groups = ", ".join(f"{group.cgroup} ({gib(group.anon_bytes)})" for group in case.host.evictable)
    if not groups and (chosen := case.settings.evict_cgroups):
        remedies.append(
            f"make force-swap, or see why {', '.join(chosen)} cannot be read: without both nothing "
            "is pushed out (appliance host status)"
        )
    elif not groups:
        remedies.append(
            f"name cgroups in APPLIANCE_EVICT_CGROUPS: force_swap then pushes up to {gib(wanted)} "
            "of their cold pages out (appliance host install)"
        )
    elif case.evictable < wanted:
        remedies.append(f"evict {gib(wanted)}: {groups} give {gib(case.evictable)} at most")
    return remedies


def _stop_desktop(case: Reckoning) -> str:
    names = ", ".join(case.host.desktop)
    return f"stop the desktop ({names}): sudo systemctl isolate multi-user.target"
