"""What was observed: frozen values that flow from the rim into the pure plans."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class SwapDevice:
    """One line of /proc/swaps. ``kind`` is "disk", "file" or "zram"."""

    name: str
    kind: str
    size_bytes: int
    used_bytes: int = 0


@dataclass(frozen=True)
class EarlyOom:
    """A running earlyoom: below which MemAvailable it sends SIGTERM, and SIGKILL.

    It waits until no more than ``swap_percent`` of the swap is free, too; 100: it does not wait.
    """

    term_bytes: int
    kill_bytes: int
    swap_percent: int = 100


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

    @property
    def swap_free_percent(self) -> float:
        """How much of all swap is free, in percent; 0 where there is none."""
        total = sum(device.size_bytes for device in self.swap)
        used = sum(device.used_bytes for device in self.swap)
        return 100 * (total - used) / total if total else 0.0


@dataclass(frozen=True)
class CacheLayers:
    """Layers of one kind, and what each keeps of a sequence.

    ``full``: ``values_per_token`` numbers for every token. ``sliding``: the same, of the last
    ``window`` tokens alone. ``linear``: ``state_bytes`` a sequence, however long it is.
    ``kv_heads`` is how many of them the values are of, 0 where that is not known.
    """

    kind: Literal["full", "sliding", "linear"]
    count: int
    values_per_token: int = 0  # 2 (key and value) x KV heads x head size
    window: int = 0  # tokens
    state_bytes: int = 0
    kv_heads: int = 0


@dataclass(frozen=True)
class WeightPart:
    """The tensors of one part of a model (experts, attention, head, ...), as they are stored.

    ``token_bytes`` of them are read for one decoded token, ``how`` says why it is not all.
    ``bf16_bytes`` is what they would take if their weights were in bf16. ``by_dtype`` is ``bytes``
    apart, the largest first, types as the headers spell them.
    """

    name: str
    bytes: int
    token_bytes: int
    bf16_bytes: int
    by_dtype: tuple[tuple[str, int], ...] = ()
    how: str = ""


@dataclass(frozen=True)
class ModelFacts:
    """A checkpoint folder as its config and the headers of its shards describe it.

    ``weights_bytes`` is the sum of its tensors, ``weights_by_dtype`` the same apart, the largest
    first; ``parts`` is the same by what the tensors are for. ``cache`` is empty where the kinds of
    layers are not understood; ``cache_unknown`` then says why. ``cache_dtype`` is what "auto" means
    for this checkpoint.
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
    weights_by_dtype: tuple[tuple[str, int], ...] = ()
    cache: tuple[CacheLayers, ...] = ()
    cache_dtype: str = ""
    cache_unknown: str = ""
    experts_per_token: int = 0  # of num_experts, in each layer
    parts: tuple[WeightPart, ...] = ()
