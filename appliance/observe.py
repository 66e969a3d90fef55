"""Looks at the machine: memory, swap, who else uses the GPU, what could be pushed out.

Only /proc/meminfo must be there. Whatever else cannot be read (in a container, or without rights)
is empty: nothing is known of it.
"""

import contextlib
import os
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import HostError
from appliance.facts import EarlyOom, Evictable, HostFacts, SwapDevice
from appliance.host import counts
from appliance.procfiles import (
    KIB,
    evictable_bytes,
    hugepages_bytes,
    parse_earlyoom,
    parse_parent,
    parse_swaps,
)

# Names as /proc/PID/comm has them: cut off after 15 letters.
DESKTOP = frozenset(
    (
        *("gnome-shell", "gnome-session-b", "mutter", "Xorg", "X", "Xwayland", "Xvnc", "weston"),
        *("kwin_wayland", "kwin_x11", "plasmashell", "ksmserver", "xfce4-session", "xfwm4"),
        *("cinnamon", "mate-session", "lxqt-session", "lxsession", "sway", "Hyprland"),
        *("gdm", "gdm3", "gdm-x-session", "gdm-wayland-ses", "sddm", "sddm-greeter", "lightdm"),
    )
)
# Keeps the driver loaded. It holds no memory, and to stop it makes each start slower.
_HARMLESS = "nvidia-persiste"
_GPU_FILE = re.compile(r"/dev/(nvidia|nvgpu)")


@dataclass(frozen=True)
class _Process:
    pid: int
    name: str
    parent: int | None


def observe(evict_cgroups: Sequence[str], cgroup_base: Path, root: Path = Path("/")) -> HostFacts:
    """Return what this machine is. Raises HostError where there is no /proc/meminfo.

    ``evict_cgroups`` are relative to ``cgroup_base``. ``root`` is / but in tests. Reads a file or
    two of each process: call it in a thread.
    """
    proc = root / "proc"
    meminfo = counts(proc / "meminfo")
    if not {"MemTotal:", "MemAvailable:"} <= meminfo.keys():
        raise HostError(f"{proc / 'meminfo'} cannot be read", "run this on Linux")
    total = meminfo["MemTotal:"] * KIB
    everybody = list(_processes(proc))
    desktop = [process for process in everybody if process.name in DESKTOP]
    ours = _tree(everybody, os.getpid())
    others = [p for p in everybody if p.pid not in ours and p not in desktop]
    return HostFacts(
        machine=platform.machine(),
        cpu_count=len(os.sched_getaffinity(0)),
        memory_total_bytes=total,
        memory_available_bytes=meminfo["MemAvailable:"] * KIB,
        memory_free_bytes=meminfo.get("MemFree:", 0) * KIB,
        swap=tuple(_swap(root)),
        hugepages_bytes=hugepages_bytes(meminfo),
        earlyoom=_earlyoom(proc, everybody, total),
        desktop=tuple(f"{process.name} ({process.pid})" for process in desktop),
        gpu_users=tuple(f"{p.name} ({p.pid})" for p in others if _uses_gpu(proc, p)),
        evictable=tuple(_evictable(evict_cgroups, root / str(cgroup_base).lstrip("/"))),
        kernel=_text(proc / "sys" / "kernel" / "osrelease").strip(),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):  # ValueError: a NUL in a name
        return ""


def _processes(proc: Path) -> Iterator[_Process]:
    try:
        names = os.listdir(proc)
    except OSError:
        return
    for pid in sorted(int(name) for name in names if name.isascii() and name.isdecimal()):
        if name := _text(proc / str(pid) / "comm").removesuffix("\n"):
            # a process names itself as it likes, and this is printed on terminals
            plain = re.sub(r"[^ -~]", "?", name)
            yield _Process(pid, plain, parse_parent(_text(proc / str(pid) / "stat")))


def _tree(everybody: Sequence[_Process], top: int) -> set[int]:
    """Return ``top`` and all below it."""
    found, fresh = {top}, {top}
    while fresh:
        fresh = {p.pid for p in everybody if p.parent in fresh} - found
        found |= fresh
    return found


def _swap(root: Path) -> Iterator[SwapDevice]:
    for line in parse_swaps(_text(root / "proc" / "swaps")):
        kind = "file" if line.type == "file" else "disk"
        if kind == "disk" and _is_zram(root / "sys" / "block", Path(line.name).name):
            kind = "zram"
        yield SwapDevice(line.name, kind, line.size_bytes, line.used_bytes)


def _is_zram(blocks: Path, name: str) -> bool:
    """Tell a zram disk, whatever its name, also one under a device-mapper."""
    names = [name]
    with contextlib.suppress(OSError):
        names += os.listdir(blocks / name / "slaves")
    return any(n.startswith("zram") or (blocks / n / "comp_algorithm").exists() for n in names)


def _earlyoom(proc: Path, everybody: Sequence[_Process], total_bytes: int) -> EarlyOom | None:
    for process in everybody:
        if process.name == "earlyoom":
            argv = _text(proc / str(process.pid) / "cmdline").removesuffix("\0").split("\0")
            if (found := parse_earlyoom(argv, total_bytes)) is not None:
                return found
    return None


def _uses_gpu(proc: Path, process: _Process) -> bool:
    folder = proc / str(process.pid) / "fd"
    if process.name == _HARMLESS:
        return False
    try:
        names = os.listdir(folder)
    except OSError:  # another user's
        return False
    for name in names:
        with contextlib.suppress(OSError):
            if _GPU_FILE.match(os.readlink(folder / name)):
                return True
    return False


def _evictable(cgroups: Sequence[str], base: Path) -> Iterator[Evictable]:
    for name in cgroups:
        size = evictable_bytes(counts(base / name.lstrip("/") / "memory.stat"))
        if size is not None:
            yield Evictable(name, size)
