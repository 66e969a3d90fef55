"""A machine made of files: fake /proc, /sys and cgroup roots, and a kernel that answers writes.

The helper only records its writes under fake roots, and tells each one to the test through
FORCE_SWAP_TEST_PAUSE_FD before it goes on. The kernel here then changes the files as Linux would.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

KIB, MIB, GIB = 2**10, 2**20, 2**30
SELF, PARENT = 5000, 4999
PAGE = 4096
HOST_PID_NAMESPACE = "pid:[4026531836]"

# One write of the helper -> (errno, milliseconds that it took).
Kernel = Callable[["Machine", str, str], tuple[int, int]]


@dataclass
class Proc:
    """One process; ``start`` is its start time in ticks after boot."""

    comm: str
    argv: tuple[str, ...] = ()
    ppid: int = 1
    state: str = "S"
    start: int = 100
    cgroup: str = "/"
    smaps: str = ""


@dataclass
class Group:
    """One cgroup with memory of its own; sizes in bytes, ``swap_max`` None means ``max``."""

    inactive: int = 0
    active: int = 0
    unevictable: int = 0
    pids: tuple[int, ...] = ()
    swap_max: int | None = None
    swapped: int = 0
    reclaim: bool = True
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def current(self) -> int:
        """What memory.current says."""
        return self.inactive + self.active + self.unevictable


@dataclass
class Swap:
    """One swap area; ``rotational`` None means that the kernel does not tell."""

    dev: str = "/dev/nvme0n1p3"
    kind: str = "partition"
    size: int = 16 * GIB
    used: int = 0
    rotational: bool | None = False


@dataclass
class Machine:
    """All that the helper reads. ``save`` writes it below ``root``."""

    root: Path
    total: int = int(121.69 * GIB)
    available: int = 110 * GIB
    free: int = 60 * GIB
    psi_full_us: int = 0
    swapped_in: int = 0
    swapped_out: int = 0
    swap_cached: int = 0
    writeback: int = 0
    meminfo_more: str = ""
    uid: int = 0
    pid_namespace: str = HOST_PID_NAMESPACE
    swaps: list[Swap] = field(default_factory=lambda: [Swap()])
    procs: dict[int, Proc] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    version: str = "v2"
    writes: list[tuple[str, str]] = field(default_factory=list)

    def put(self, name: str, text: str) -> None:
        """Write one file below the root."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", "surrogateescape")

    @property
    def swap_free(self) -> int:
        """Free swap in bytes."""
        return sum(swap.size - swap.used for swap in self.swaps)

    def save(self) -> None:
        """Write every file."""
        self.save_numbers()
        self.put("proc/self/status", f"Name:\tx\nUid:\t{self.uid}\t{self.uid}\t0\t0\n")
        self.put("proc/swaps", self._swaps())
        for swap in self.swaps:
            self._block_device(swap)
        if not (self.root / "proc/self/ns/pid").is_symlink():
            (self.root / "proc/self/ns").mkdir(parents=True, exist_ok=True)
            (self.root / "proc/self/ns/pid").symlink_to(self.pid_namespace)
        for pid, proc in self.procs.items():
            self.save_process(pid, proc)
        (self.root / "cgroup").mkdir(exist_ok=True)
        if self.version == "v2":
            self.put("cgroup/cgroup.controllers", "cpu memory\n")
        if self.version == "v1":
            self.put("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
        for name in self.groups:
            self.save_group(name)

    def save_numbers(self) -> None:
        """Write what changes while the helper works."""
        kib = {
            "MemTotal": self.total,
            "MemFree": self.free,
            "MemAvailable": self.available,
            "Cached": 20 * GIB,
            "SwapCached": self.swap_cached,
            "Writeback": self.writeback,
            "SwapTotal": sum(swap.size for swap in self.swaps),
            "SwapFree": self.swap_free,
        }
        lines = "".join(f"{name + ':':16}{size // KIB:>8} kB\n" for name, size in kib.items())
        self.put("proc/meminfo", lines + self.meminfo_more)
        self.put(
            "proc/vmstat",
            f"pswpin {self.swapped_in // PAGE}\npswpout {self.swapped_out // PAGE}\n",
        )
        self.put(
            "proc/pressure/memory",
            f"some avg10=0.00 avg60=0.00 avg300=0.00 total={self.psi_full_us}\n"
            f"full avg10=0.00 avg60=0.00 avg300=0.00 total={self.psi_full_us}\n",
        )

    def save_process(self, pid: int, proc: Proc) -> None:
        """Write /proc/PID, and /proc/self for the helper itself."""
        fields = " ".join(["0"] * 17)
        stat = f"{pid} ({proc.comm}) {proc.state} {proc.ppid} {fields} {proc.start} 0 0\n"
        for name in [str(pid), *(["self"] if pid == SELF else [])]:
            self.put(f"proc/{name}/stat", stat)
            self.put(f"proc/{name}/cmdline", "".join(word + "\0" for word in proc.argv))
            self.put(f"proc/{name}/cgroup", f"0::{proc.cgroup}\n")
            if proc.smaps:
                self.put(f"proc/{name}/smaps", proc.smaps)

    def save_group(self, name: str) -> None:
        """Write one cgroup's files; its parents become cgroups too."""
        group = self.groups[name]
        parts = Path(name).parts
        for i in range(1, len(parts)):
            parent = "/".join(parts[:i])
            if parent not in self.groups:
                self.put(f"cgroup/{parent}/memory.current", "0\n")
                self.put(f"cgroup/{parent}/cgroup.events", "populated 1\nfrozen 0\n")
        limit = "max" if group.swap_max is None else str(group.swap_max)
        files = {
            "memory.current": f"{group.current}\n",
            "memory.swap.current": f"{group.swapped}\n",
            "memory.swap.max": f"{limit}\n",
            "memory.stat": f"anon {group.current}\ninactive_anon {group.inactive}\n"
            f"active_anon {group.active}\nunevictable {group.unevictable}\n",
            "cgroup.events": f"populated {int(bool(group.pids))}\nfrozen 0\n",
            "cgroup.procs": "".join(f"{pid}\n" for pid in group.pids),
            **({"memory.reclaim": ""} if group.reclaim else {}),
            **group.extra,
        }
        for file, text in files.items():
            self.put(f"cgroup/{name}/{file}", text)

    def page_out(self, name: str, wanted: int) -> int:
        """Move up to ``wanted`` bytes of a group to swap, as Linux does; returns the bytes."""
        group = self.groups[name]
        room = group.swap_max - group.swapped if group.swap_max is not None else wanted
        moved = min(wanted, group.inactive + group.active, self.swap_free, room)
        cold = min(moved, group.inactive)
        group.inactive -= cold
        group.active -= moved - cold
        group.swapped += moved
        self.swapped_out += moved
        self.free += moved
        self.available += moved
        for swap in self.swaps:
            take = min(moved, swap.size - swap.used)
            swap.used += take
            moved -= take
        self.save_numbers()
        self.save_group(name)
        return cold

    def _swaps(self) -> str:
        rows = [
            f"{swap.dev}\t{swap.kind}\t{swap.size // KIB}\t{swap.used // KIB}\t-2\n"
            for swap in self.swaps
        ]
        return "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n" + "".join(rows)

    def _block_device(self, swap: Swap) -> None:
        if swap.rotational is None:
            return
        name = swap.dev.rpartition("/")[2]
        self.put(f"sys/devices/disk-of-{name}/queue/rotational", f"{int(swap.rotational)}\n")
        (self.root / f"sys/devices/disk-of-{name}/{name}").mkdir(exist_ok=True)
        link = self.root / "sys/class/block" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(f"../../devices/disk-of-{name}/{name}")
