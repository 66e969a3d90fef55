"""What an engine takes beside weights and KV cache: estimates, until it has logged its own. Pure.

Each estimate names its source. The engine's log is read as vLLM 0.32 and 0.33 write it.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

GIB = 2**30
MIB = 2**20


@dataclass(frozen=True)
class Amount:
    """So many bytes, and where the number is from."""

    bytes: int
    how: str


@dataclass(frozen=True)
class Overheads:
    """What a started engine holds beside weights and KV cache.

    The first three are inside vLLM's utilization, ``engine_host`` is outside of it.
    ``before_check`` is what is gone of MemAvailable when vLLM looks at it: a part of the others.
    """

    activations: Amount
    cuda_graphs: Amount
    non_torch: Amount
    engine_host: Amount
    before_check: Amount


# 4.5 GiB inside the utilization: peers saw 3 to 6 (a Spark at 0.93 with 127K tokens of this
# family of models leaves 6.0 for them).
ON_GPU = Overheads(
    activations=Amount(
        1331 * MIB, "estimate: 1.27 GiB with chunks of 8,192 (MiaAI-Lab, Spark, 2026)"
    ),
    cuda_graphs=Amount(307 * MIB, "estimate: 0.26 GiB for three sizes (GLM-5.3 on a Spark, 2026)"),
    non_torch=Amount(2970 * MIB, "estimate: CUDA context, NCCL, cuBLAS, about 3 GiB on a Spark"),
    engine_host=Amount(6 * GIB, "estimate: vLLM's processes, about 6 GiB (MiaAI-Lab, Spark, 2026)"),
    before_check=Amount(2 * GIB, "estimate: CUDA context and NCCL, until the boot log tells"),
)
_NOTHING = Amount(0, "there is none on a CPU")
ON_CPU = Overheads(
    activations=_NOTHING,
    cuda_graphs=_NOTHING,
    non_torch=_NOTHING,
    engine_host=Amount(
        1536 * MIB, "1.36 GiB PSS beside its cache when ready (measured 2026-11-23)"
    ),
    before_check=_NOTHING,
)


@dataclass(frozen=True)
class Learned:
    """What the engine logged last time, in bytes; None for what it did not."""

    weights_bytes: int | None = None
    activations_bytes: int | None = None
    cuda_graphs_bytes: int | None = None
    non_torch_bytes: int | None = None
    engine_host_bytes: int | None = None
    before_check_bytes: int | None = None

    def as_dict(self) -> dict[str, int]:
        """Return what is known, to be kept as JSON."""
        return {name: size for name, size in asdict(self).items() if size is not None}

    @classmethod
    def of(cls, kept: Mapping[str, int]) -> "Learned | None":
        """Return what ``as_dict`` gave; None when there is nothing of it."""
        names = {field.name for field in fields(cls)}
        known = {name: size for name, size in kept.items() if name in names and size >= 0}
        return cls(**known) if known else None


def overheads(on_cpu: bool, is_eager: bool, learned: Learned | None) -> Overheads:
    """Return what to reckon with: estimates, and in their place what was learned."""
    found = ON_CPU if on_cpu else ON_GPU
    if is_eager and not on_cpu:
        found = replace(found, cuda_graphs=Amount(0, "none: APPLIANCE_ENFORCE_EAGER"))
    seen = {
        field.name: Amount(size, LOGGED)
        for field in fields(found)
        if (size := getattr(learned, f"{field.name}_bytes", None)) is not None
    }
    return replace(found, **seen)


LOGGED = "as the engine logged last time"

_NUMBER = r"(-?\d+(?:\.\d+)?)"
_WEIGHTS = re.compile(rf"Model loading took {_NUMBER} GiB")
_USAGE = re.compile(
    rf"Actual usage is {_NUMBER} GiB for consumed memory \(weights \+ non-torch\), "
    rf"{_NUMBER} GiB for peak activation, and {_NUMBER} GiB for CUDAGraph memory"
)
_GRAPHS = re.compile(rf"Graph capturing finished in \d+ secs, took {_NUMBER} GiB")
_GRAPHS_ESTIMATED = re.compile(rf"CUDA graph pool memory: .{{0,40}}\(actual\), {_NUMBER} GiB \(est")
_FREE = re.compile(
    rf"Initial free memory {_NUMBER} GiB, reserved|Free memory on device \({_NUMBER}/\S+ GiB\) on"
)
_CPU_HOST = re.compile(rf"Auto set \(.{{0,200}} {_NUMBER} GiB memory was consumed by non-kv usages")


def learn(lines: Sequence[str], available_bytes: int | None = None) -> Learned | None:
    """Return the overheads that an engine's log lines tell; None when they tell none.

    ``available_bytes`` is MemAvailable just before the spawn: with it, what was gone when vLLM
    looked is learned too, where it can have been vLLM's.
    """
    weights = _last(lines, _WEIGHTS)
    consumed, peak, graphs = (_last(lines, _USAGE, group) for group in (1, 2, 3))
    if graphs is None:
        graphs = _last(lines, _GRAPHS)
    free = _last(lines, _FREE)
    # vLLM counts its own estimate of the graphs to the peak
    estimated = _last(lines, _GRAPHS_ESTIMATED) or 0
    learned = Learned(
        weights_bytes=weights,
        activations_bytes=None if peak is None else max(0, peak - estimated),
        cuda_graphs_bytes=graphs,
        non_torch_bytes=max(0, consumed - weights) if consumed and weights else None,
        engine_host_bytes=_last(lines, _CPU_HOST),
        before_check_bytes=_gone(available_bytes, free),
    )
    return learned if learned.as_dict() else None


def _gone(available_bytes: int | None, free_bytes: int | None) -> int | None:
    """Return what vLLM took between the two readings; None for what cannot have been vLLM.

    Others come and go meanwhile, and on a discrete GPU "free" is another memory: their share
    would be asked for at each start from then on, also at one that does not fit for it.
    """
    if available_bytes is None or free_bytes is None:
        return None
    gone = available_bytes - free_bytes
    return gone if 0 <= gone <= ON_GPU.non_torch.bytes + ON_GPU.engine_host.bytes else None


def _last(lines: Sequence[str], pattern: re.Pattern[str], group: int = 0) -> int | None:
    """Return the bytes of the last match, rounded up; None for none, or for a negative one.

    vLLM has logged negative sizes where memory came back while it measured (vllm#46932).
    """
    for line in reversed(lines):
        if match := pattern.search(line):
            text = match[group] if group else next(found for found in match.groups() if found)
            # logged to 0.01 GiB: half of that on top, so that rounding never takes some away
            return math.ceil((float(text) + 0.005) * GIB) if float(text) >= 0 else None
    return None


def host_share(taken_bytes: int, inside_bytes: int, on_cpu: bool) -> int | None:
    """Return what the engine's processes hold beside what the plan gave it.

    ``taken_bytes`` is by how much MemAvailable fell from before the spawn to ready,
    ``inside_bytes`` weights, cache and the other overheads. None where it is far from the estimate:
    then somebody else took memory meanwhile, or gave some back.
    """
    estimate = (ON_CPU if on_cpu else ON_GPU).engine_host.bytes
    share = taken_bytes - inside_bytes
    return share if estimate // 2 <= share <= 2 * estimate else None
