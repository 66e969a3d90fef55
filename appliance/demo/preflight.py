"""Can this machine run the demo's engine? Asked before anything is downloaded.

``gather`` observes, ``preflight`` judges, and each shortfall names what was found, what is
needed and what to do. The needs were measured on the locked wheels (see the constants).
"""

import ctypes
import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.sizes import format_size

GIB: Final = 2**30

PYTHONS: Final = ((3, 11), (3, 12), (3, 13))  # numba and torch have wheels for exactly these
GLIBC: Final = (2, 31)  # llguidance's wheels; torch and vLLM ask for 2.28, the others for less

# x86_64: vLLM loads one of three builds. The least one is compiled with AVX2 and F16C, and torch's
# and numpy's AVX2 kernels use FMA. Emulated CPUs without any one of the three die of SIGILL.
# aarch64: one build, for armv8.2-a with these. Its bf16 and atomics code has no fallback.
CPU_FLAGS: Final = {
    "x86_64": frozenset({"avx2", "f16c", "fma"}),
    "aarch64": frozenset({"asimd", "asimdhp", "asimddp", "atomics", "bf16"}),
}

# Linked by vLLM's kernels and torch, and shipped by no wheel. Without libnuma vLLM only warns,
# starts, and dies at the first operation.
LIBRARIES: Final = {
    "libnuma.so.1": "libnuma1 (Debian, Ubuntu) or numactl-libs (Fedora, RHEL)",
    "libstdc++.so.6": "libstdc++6 (Debian, Ubuntu) or libstdc++ (Fedora, RHEL)",
}

# Measured (x86_64): the environment takes 2.3 GiB, 0.35 GiB of wheels lie beside it meanwhile, and
# pip's cache keeps 0.5 GiB more when it is on the same disk.
DISK_BYTES: Final = 16 * GIB // 5
# Measured: the engine's processes share 2.5 GiB with the demo's model and 1 GiB of KV cache.
MEMORY_BYTES: Final = 4 * GIB


@dataclass(frozen=True)
class SetupFacts:
    """What was observed. Sizes in bytes; ``None`` and an empty ``cpu_flags`` mean unknown."""

    system: str
    machine: str
    python: tuple[int, int]
    implementation: str
    free_threaded: bool
    ensurepip: bool
    glibc: tuple[int, int] | None
    cpu_flags: frozenset[str]
    missing_libraries: tuple[str, ...]
    disk_free_bytes: int
    disk_used_bytes: int  # by an environment that is already there, whole or in part
    memory_available_bytes: int | None


def preflight(facts: SetupFacts) -> list[str]:
    """Return every shortfall of this machine, each with what to do; empty means it can run."""
    if facts.system != "Linux":
        # The rest was read from Linux's own files, so it would say nothing true here.
        return [
            f"the system is {facts.system or 'unknown'}, and the engine's wheels are for Linux: "
            "run the demo on Linux, or in a Linux container or virtual machine"
        ]
    checks = (_python, _pip, _libc, _machine, _cpu, _libraries, _disk, _memory)
    return [shortfall for check in checks if (shortfall := check(facts))]


def _python(facts: SetupFacts) -> str:
    fits = facts.implementation == "cpython" and not facts.free_threaded
    if fits and facts.python in PYTHONS:
        return ""
    build = " free-threaded" if facts.free_threaded else ""
    return (
        f"the Python is {facts.implementation} {_dotted(facts.python)}{build}, and the engine's "
        f"wheels are for CPython {_dotted(PYTHONS[0])} to {_dotted(PYTHONS[-1])}: run this with "
        "one of those"
    )


def _pip(facts: SetupFacts) -> str:
    if facts.ensurepip:
        return ""
    return (
        "this Python has no ensurepip, which puts pip into the new environment: install "
        f"python{_dotted(facts.python)}-venv (Debian, Ubuntu), or use another Python"
    )


def _libc(facts: SetupFacts) -> str:
    if facts.glibc is not None and facts.glibc >= GLIBC:
        return ""
    found = f"glibc {_dotted(facts.glibc)}" if facts.glibc else "not glibc (musl?)"
    return (
        f"the C library is {found}, and the engine's wheels need glibc {_dotted(GLIBC)}: use "
        "Debian 11, Ubuntu 20.04, RHEL 9 or newer, or a container of one"
    )


def _machine(facts: SetupFacts) -> str:
    if facts.machine in CPU_FLAGS:
        return ""
    return (
        f"the machine is {facts.machine or 'unknown'}, and the engine's wheels are for "
        f"{' and '.join(CPU_FLAGS)}: run the demo on one of those"
    )


def _cpu(facts: SetupFacts) -> str:
    needed = CPU_FLAGS.get(facts.machine, frozenset())
    missing = sorted(needed - facts.cpu_flags)
    if not missing or not facts.cpu_flags:
        return ""
    return (
        f"the CPU shows no {', '.join(missing)}, and vLLM's kernels are compiled for "
        f"{', '.join(sorted(needed))} (they would die of an illegal instruction): use a newer "
        "machine, or, in a virtual machine, pass the host's CPU model through"
    )


def _libraries(facts: SetupFacts) -> str:
    if not facts.missing_libraries:
        return ""
    named = "; ".join(f"for {name}: {LIBRARIES[name]}" for name in facts.missing_libraries)
    return (
        f"no {' and no '.join(facts.missing_libraries)} can be loaded, and the engine's wheels "
        f"need {' and '.join(LIBRARIES)} of the system: install the package ({named})"
    )


def _disk(facts: SetupFacts) -> str:
    needed = max(DISK_BYTES - facts.disk_used_bytes, 0)
    if facts.disk_free_bytes >= needed:
        return ""
    return (
        f"the disk has {format_size(facts.disk_free_bytes)} free where the environment goes, and "
        f"it needs {format_size(needed)}: free some, or choose another folder with --root"
    )


def _memory(facts: SetupFacts) -> str:
    found = facts.memory_available_bytes
    if found is None or found >= MEMORY_BYTES:
        return ""
    return (
        f"the memory has {format_size(found)} available, and the engine needs "
        f"{format_size(MEMORY_BYTES)}: stop other programs, or raise this container's memory limit"
    )


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """Return the first CPU's feature words from the text of /proc/cpuinfo (x86 and Arm)."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def mem_available_bytes(meminfo: str) -> int | None:
    """Return MemAvailable from the text of /proc/meminfo."""
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def cgroup_headroom_bytes(root: Path, group: str) -> int | None:
    """Return what the tightest memory limit of a cgroup v2 path leaves; None: no limit.

    ``root`` is the mount point, ``group`` the "/a/b" of /proc/self/cgroup. Page cache counts as
    free, as it does in MemAvailable: the kernel drops it before it kills.
    """
    headroom: int | None = None
    folder = root / group.strip().lstrip("/")
    for level in (folder, *folder.parents):
        if not level.is_relative_to(root):
            break
        limit = _text(level / "memory.max").strip()
        if not limit.isdigit():
            continue
        cache = 0
        for line in _text(level / "memory.stat").splitlines():
            if line.startswith("inactive_file "):
                cache = int(line.split()[1])
        used = int(_text(level / "memory.current").strip() or 0)
        left = max(int(limit) - used + cache, 0)
        headroom = left if headroom is None else min(headroom, left)
    return headroom


def gather(root: Path) -> SetupFacts:
    """Observe this machine for an environment at ``root`` (which may not exist yet)."""
    group = next(
        (line[3:] for line in _text(Path("/proc/self/cgroup")).splitlines() if line[:3] == "0::"),
        "/",
    )
    memory = [
        size
        for size in (
            mem_available_bytes(_text(Path("/proc/meminfo"))),
            cgroup_headroom_bytes(Path("/sys/fs/cgroup"), group),
        )
        if size is not None
    ]
    nearest = next(path for path in (root, *root.parents) if path.exists())
    return SetupFacts(
        system=platform.system(),
        machine=platform.machine(),
        python=sys.version_info[:2],
        implementation=sys.implementation.name,
        free_threaded=bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        ensurepip=importlib.util.find_spec("ensurepip") is not None,
        glibc=_glibc(),
        cpu_flags=cpu_flags(_text(Path("/proc/cpuinfo"))),
        missing_libraries=tuple(name for name in LIBRARIES if not _loadable(name)),
        disk_free_bytes=shutil.disk_usage(nearest).free,
        disk_used_bytes=_disk_used_bytes(root),
        memory_available_bytes=min(memory, default=None),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _glibc() -> tuple[int, int] | None:
    try:
        words = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()  # "glibc 2.36"
        major, minor = words[1].split(".")[:2]
        return int(major), int(minor)
    except (ValueError, OSError, IndexError):
        return None


def _loadable(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _disk_used_bytes(root: Path) -> int:
    """Return the blocks that are taken under ``root``, in bytes."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except OSError:
                continue  # it went away meanwhile
    return total
