"""What was observed: frozen values that flow from the rim into the pure plans."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HostFacts:
    """The machine: sizes in bytes, counts as they are."""

    machine: str  # "aarch64", "x86_64"
    cpu_count: int
    memory_total_bytes: int
    memory_available_bytes: int


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
