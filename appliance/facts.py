"""What was observed: frozen values that flow from the rim into the pure plans."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SwapDevice:
    """One line of /proc/swaps. ``kind`` is "disk", "file" or "zram"."""

    name: str
    kind: str
    size_bytes: int
    used_bytes: int = 0


@dataclass(frozen=True)
class EarlyOom:
    """A running earlyoom: below which MemAvailable it sends SIGTERM, and SIGKILL."""

    term_bytes: int
    kill_bytes: int


@dataclass(frozen=True)
class Evictable:
    """A cgroup from which cold pages may be pushed out. ``anon_bytes`` is an upper bound."""

    cgroup: str
    anon_bytes: int


@dataclass(frozen=True)
class HostFacts:
    """The machine: sizes in bytes, counts as they are. What could not be seen is empty.

    ``desktop`` names the processes of a graphical session, ``gpu_users`` those that hold the GPU
    open and are not ours, as "name (pid)".
    """

    machine: str  # "aarch64", "x86_64"
    cpu_count: int
    memory_total_bytes: int
    memory_available_bytes: int
    memory_free_bytes: int = 0
    swap: tuple[SwapDevice, ...] = ()
    hugepages_bytes: int = 0  # set aside by the kernel, for nobody else
    earlyoom: EarlyOom | None = None
    desktop: tuple[str, ...] = ()
    gpu_users: tuple[str, ...] = ()
    evictable: tuple[Evictable, ...] = ()
    kernel: str = ""


@dataclass(frozen=True)
class ModelFacts:
    """A checkpoint folder as its config and shards describe it.

    ``weights_bytes`` is the sum of the shard files' sizes on disk.
    """

    folder: Path
    architecture: str
    model_type: str
    num_layers: int
    num_experts: int  # 0 for a dense model
    max_position_embeddings: int
    quantization: str  # "" when the config names none
    shard_count: int
    weights_bytes: int
