"""The boxes that an engine is built for, and what the compiler is told. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

GIB = 2**30

# One nvcc at its peak. 3 to 5 GB a thread were measured for kernels of this kind on CUDA 12.8
# (Dao-AILab/flash-attention, pull request 2079). Marlin alone takes 0.34 GiB (nvcc 13.0.88,
# 2026-11-23), but CUTLASS's files decide, and a box that swaps is slower than one job less.
BYTES_PER_JOB = 5 * GIB


@dataclass(frozen=True)
class Target:
    """A box. ``arch_list`` is TORCH_CUDA_ARCH_LIST, ``machine`` the processor's name."""

    name: str
    about: str
    arch_list: str
    machine: str = "aarch64"


# A plain number lets vLLM's CMake choose the family form (12.0f, 11.0f) for each kernel. With an
# "a" it would compile for one chip of the family alone: 12.0a does not load on a GB10, which is
# 12.1.
TARGETS: Mapping[str, Target] = {
    "spark": Target("spark", "DGX Spark (GB10, sm_121)", "12.1"),
    "thor": Target("thor", "Jetson AGX Thor (sm_110)", "11.0"),
}


def job_count(available_bytes: int, cpus: int) -> int:
    """Return how many compilers may run at once: by memory, at most one a processor."""
    return max(1, min(cpus, available_bytes // BYTES_PER_JOB))


def compile_environment(
    base: Mapping[str, str], target: Target, *, version: str, epoch: int, jobs: int
) -> dict[str, str]:
    """Return the environment for vLLM's own build, on top of ``base``.

    All of ``base`` passes, so each ``*_SRC_DIR`` that names a local source does too. The
    architectures are the target's, whatever ``base`` says.
    """
    own = {
        "VLLM_TARGET_DEVICE": "cuda",
        "VLLM_VERSION_OVERRIDE": version,
        "TORCH_CUDA_ARCH_LIST": target.arch_list,
        "SOURCE_DATE_EPOCH": str(epoch),
        "NVCC_THREADS": "1",  # vLLM divides MAX_JOBS by it
        "PYTHONHASHSEED": "0",
    }
    chosen = {"MAX_JOBS": str(jobs), "CMAKE_BUILD_TYPE": "Release"}
    return {**chosen, **base, **own}


def overruled(base: Mapping[str, str], target: Target) -> str:
    """Say which architectures of the operator's environment are not used; "" for none."""
    given = base.get("TORCH_CUDA_ARCH_LIST", target.arch_list)
    if given == target.arch_list:
        return ""
    return f"TORCH_CUDA_ARCH_LIST={given} is not used: --target {target.name} is {target.arch_list}"
