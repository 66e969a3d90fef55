"""What one token reads of a checkpoint: all of attention, the head, and a few of the experts. Pure.

Decoding is bound by it: with one sequence the memory's bandwidth over these bytes is the most
tokens a second that there can be.
"""

from dataclasses import dataclass, replace

from appliance.checkpoint.layout import Layout, text_config
from appliance.checkpoint.weigh import Scales, experts_per_token


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


def weights_of(layout: Layout, scales: Scales) -> Weights:
    """Return the parts of a checkpoint whose tensors are all on the scales."""
    visited, sizes = experts_per_token(text_config(layout.config)), scales.sizes()
    named = ("experts", "attention", "head", "routers", "embeddings")
    return Weights(
        active=visited if 0 < visited <= layout.experts else 1,
        experts=layout.experts,
        expert_bytes=sizes["experts"],
        attention_bytes=sizes["attention"],
        head_bytes=sizes["head"],
        router_bytes=sizes["routers"],
        other_bytes=sizes.total() - sum(sizes[name] for name in named),
        embedding_bytes=sizes["embeddings"],
    )
