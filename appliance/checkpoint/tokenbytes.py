"""What one token reads of a checkpoint: all of attention, the head, and a few of the experts. Pure.

Decoding is bound by it: with one sequence the memory's bandwidth over these bytes is the most
tokens a second that there can be.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from appliance.checkpoint.headers import Tensor
from appliance.checkpoint.layout import Layout, text_config
from appliance.checkpoint.projections import HEAD
from appliance.checkpoint.tensornames import expert_of

_ATTENTION = re.compile(r"(?:[a-z_]+\.)*layers\.[0-9]+\.self_attn\..+")
_ROUTER = re.compile(r"(?:[a-z_]+\.)*layers\.[0-9]+\.(?:block_sparse_moe|mlp)\..+")
_EMBEDDING = re.compile(r"(?:[a-z_]+\.)*embed_tokens\.weight")


@dataclass(frozen=True)
class Weights:
    """Bytes of a checkpoint's parts; ``active`` of ``experts`` of each layer are read a token."""

    active: int
    experts: int
    expert_bytes: int
    attention_bytes: int
    head_bytes: int
    router_bytes: int
    other_bytes: int  # norms
    embedding_bytes: int

    def parts(self) -> dict[str, int]:
        """Return the bytes that one token reads of each part."""
        return {
            "experts": self.expert_bytes * self.active // self.experts,
            "attention": self.attention_bytes,
            "head": self.head_bytes,
            "routers": self.router_bytes,
            "norms": self.other_bytes,
        }

    @property
    def token_bytes(self) -> int:
        """Return the bytes that one token reads."""
        return sum(self.parts().values())

    def less(self, *, attention: int = 0, head: int = 0) -> "Weights":
        """Return the parts when so many bytes of them are saved."""
        return replace(
            self,
            attention_bytes=self.attention_bytes - attention,
            head_bytes=self.head_bytes - head,
        )

    def roofline(self, bandwidth: float) -> float:
        """Return the most tokens a second that so many GB/s can read."""
        return bandwidth * 1e9 / self.token_bytes


class Weighing:
    """Adds the tensors of a checkpoint up by part, shard by shard."""

    def __init__(self, layout: Layout) -> None:
        config = text_config(layout.config)
        active = config.get("num_experts_per_tok")
        self._experts = layout.experts
        self._active = active if type(active) is int and 0 < active <= layout.experts else 1
        self._sizes: Counter[str] = Counter()

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Add the tensors of one file."""
        for tensor in tensors:
            self._sizes[_part(tensor.name)] += tensor.size

    def weights(self) -> Weights:
        """Return what was added."""
        sizes = self._sizes
        return Weights(
            active=self._active,
            experts=self._experts,
            expert_bytes=sizes["experts"],
            attention_bytes=sizes["attention"],
            head_bytes=sizes["head"],
            router_bytes=sizes["routers"],
            other_bytes=sizes["others"],
            embedding_bytes=sizes["embedding"],
        )


def _part(name: str) -> str:
    if expert_of(name):
        return "experts"
    if name.startswith(f"{HEAD}."):
        return "head"
    for pattern, part in (
        (_ATTENTION, "attention"),
        (_ROUTER, "routers"),
        (_EMBEDDING, "embedding"),
    ):
        if pattern.fullmatch(name):
            return part
    return "others"
