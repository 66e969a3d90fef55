"""The tiny MiniMax-M2 as functions over a dictionary of tensors, for training on a CPU.

Written out instead of taken from transformers because the whole run has two minutes on two
cores: no padding in the experts, logits for the learned tokens alone, and no import of the
library. The arithmetic is that of vLLM's models/minimax_m2.py; the engine test holds the two
together through the exported weights.

Runs in the engine's environment only (torch).
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

Weights = dict[str, Any]  # name -> tensor; the experts of a layer are stacked


@dataclass(frozen=True)
class Shape:
    """Sizes of the tiny model; the names are those of config.json."""

    vocab_size: int = 1024
    hidden_size: int = 128
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 32
    rotary_dim: int = 16
    rope_theta: float = 5_000_000.0
    rms_norm_eps: float = 1e-6
    num_local_experts: int = 8
    num_experts_per_tok: int = 2
    intermediate_size: int = 64
    max_position_embeddings: int = 131072

    @property
    def query_size(self) -> int:
        """Width of all query heads together."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_size(self) -> int:
        """Width of all key (or value) heads together."""
        return self.num_key_value_heads * self.head_dim


@dataclass(frozen=True)
class View:
    """Who looks at whom, for R stretches of tokens of like length.

    ``queries`` [R, Q] are indices into the asking tokens, ``keys`` [R, K] into all packed ones
    (any index where padded); ``mask`` [R, 1, Q, K] is true where a query may look at a key.
    """

    queries: Any
    keys: Any
    mask: Any


@dataclass(frozen=True)
class Sight:
    """One layer's attention: ``asking`` [N] are the packed indices of the tokens that look.

    ``back`` [N] finds each of them in the views' queries, laid behind one another.
    """

    asking: Any
    views: list[View]
    back: Any


@dataclass(frozen=True)
class Batch:
    """T packed tokens: prompt heads, and conversations that go on from one of them.

    Conversations under the same head share it, as an engine's prefix cache does: that is most
    of what makes the training quick. ``positions`` [T] is where a token stands in its own
    conversation. In the last layer only the learned tokens look: ``late.asking`` [L] are the
    packed indices whose next token is known, ``targets`` [L] is that token.
    """

    tokens: Any
    positions: Any
    full: Sight
    late: Sight
    targets: Any


@dataclass(frozen=True)
class Numerics:
    """How rough the arithmetic is made: nothing, bf16 as in the engine, or noise on top.

    ``jitter`` is the standard deviation of noise on the routing scores, ``noise`` that of
    relative noise on the hidden state. Kernels that round in another order do much the same.
    """

    bf16: bool = False
    jitter: float = 0.0
    noise: float = 0.0
    generator: Any = None

    def rounded(self, x: Any) -> Any:
        """Round an activation."""
        return x.bfloat16().float() if self.bf16 else x

    def disturbed(self, x: Any) -> Any:
        """Round the hidden state and put the noise on it."""
        if self.noise:
            x = x * (1 + self.noise * torch.randn(x.shape, generator=self.generator))
        return self.rounded(x)


EXACT = Numerics()


def initial_weights(shape: Shape, generator: Any) -> Weights:
    """Draw the weights to start from; the correction bias is drawn once and never trained."""

    def normal(*size: int, std: float | None = None) -> Any:
        scale = size[-1] ** -0.5 if std is None else std
        return torch.randn(*size, generator=generator) * scale

    h, e, i = shape.hidden_size, shape.num_local_experts, shape.intermediate_size
    weights: Weights = {
        "model.embed_tokens.weight": normal(shape.vocab_size, h, std=0.5),
        "model.norm.weight": torch.ones(h),
        "lm_head.weight": normal(shape.vocab_size, h, std=0.02),
    }
    for layer in range(shape.num_hidden_layers):
        at = f"model.layers.{layer}."
        weights[at + "input_layernorm.weight"] = torch.ones(h)
        weights[at + "post_attention_layernorm.weight"] = torch.ones(h)
        attention, moe = at + "self_attn.", at + "block_sparse_moe."
        weights[attention + "q_proj.weight"] = normal(shape.query_size, h)
        weights[attention + "k_proj.weight"] = normal(shape.key_size, h)
        weights[attention + "v_proj.weight"] = normal(shape.key_size, h)
        weights[attention + "o_proj.weight"] = normal(h, shape.query_size) * 0.5
        weights[attention + "q_norm.weight"] = torch.ones(shape.query_size)
        weights[attention + "k_norm.weight"] = torch.ones(shape.key_size)
        weights[moe + "gate.weight"] = normal(e, h)
        weights[moe + "e_score_correction_bias"] = normal(e, std=0.1)
        weights[moe + "experts.w1"] = normal(e, i, h)
        weights[moe + "experts.w3"] = normal(e, i, h)
        weights[moe + "experts.w2"] = normal(e, h, i) * 0.5
    return weights


def forward(weights: Weights, shape: Shape, batch: Batch, numerics: Numerics = EXACT) -> Any:
    """Return the logits [L, vocabulary] at the batch's learned positions."""
    cos, sin = rotation(shape, batch.positions)
    x = F.embedding(batch.tokens, weights["model.embed_tokens.weight"])
    for layer in range(shape.num_hidden_layers):
        at = f"model.layers.{layer}."
        norm = numerics.rounded(rms_norm(x, weights[at + "input_layernorm.weight"], shape))
        sight = batch.full
        if layer == shape.num_hidden_layers - 1:
            sight, x = batch.late, x[batch.late.asking]
        seen = attention(weights, at + "self_attn.", shape, norm, (cos, sin), sight, numerics)
        x = numerics.disturbed(x + seen)
        norm = rms_norm(x, weights[at + "post_attention_layernorm.weight"], shape)
        routed = experts(weights, at + "block_sparse_moe.", shape, norm, numerics)
        x = numerics.disturbed(x + routed)
    x = numerics.rounded(rms_norm(x, weights["model.norm.weight"], shape))
    return F.linear(x, weights["lm_head.weight"])


def rms_norm(x: Any, weight: Any, shape: Shape) -> Any:
    """Normalise the last axis."""
    return F.rms_norm(x, weight.shape, weight, shape.rms_norm_eps)


def rotation(shape: Shape, positions: Any) -> tuple[Any, Any]:
    """Return cos and sin [T, 1, rotary_dim / 2] for each token's position."""
    half = torch.arange(0, shape.rotary_dim, 2, dtype=torch.float32) / shape.rotary_dim
    angles = positions.float()[:, None] * shape.rope_theta**-half
    return angles.cos()[:, None], angles.sin()[:, None]


def rotated(x: Any, shape: Shape, cos: Any, sin: Any) -> Any:
    """Turn the first ``rotary_dim`` of each head's dimensions [T, heads, head_dim]."""
    half = shape.rotary_dim // 2
    a, b, rest = x.split((half, half, shape.head_dim - 2 * half), dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), dim=-1)


def attention(
    weights: Weights,
    at: str,
    shape: Shape,
    x: Any,
    turn: tuple[Any, Any],
    sight: Sight,
    numerics: Numerics,
) -> Any:
    """Attention of packed tokens [T, hidden], queries and keys normalised, for those that ask.

    ``turn`` is the rotation of all T tokens; the answer is [N, hidden].
    """

    def heads(x: Any, name: str, turn: tuple[Any, Any]) -> Any:
        flat = F.linear(x, weights[f"{at}{name}_proj.weight"])
        flat = rms_norm(flat, weights[f"{at}{name}_norm.weight"], shape)
        return numerics.rounded(rotated(flat.view(len(x), -1, shape.head_dim), shape, *turn))

    asking = (turn[0][sight.asking], turn[1][sight.asking])
    query = heads(x[sight.asking], "q", asking)
    key = heads(x, "k", turn)
    value = numerics.rounded(F.linear(x, weights[at + "v_proj.weight"])).view(key.shape)
    mixed = [
        F.scaled_dot_product_attention(
            query[view.queries].transpose(1, 2),
            key[view.keys].transpose(1, 2),
            value[view.keys].transpose(1, 2),
            view.mask,
            enable_gqa=True,
        )
        for view in sight.views
    ]
    flat = torch.cat([part.transpose(1, 2).flatten(2).flatten(0, 1) for part in mixed])
    return F.linear(numerics.rounded(flat[sight.back]), weights[at + "o_proj.weight"])


def experts(weights: Weights, at: str, shape: Shape, x: Any, numerics: Numerics) -> Any:
    """Route tokens [T, hidden] by sigmoid score and correction bias; add up their experts."""
    x = numerics.rounded(x)
    scores = F.linear(x, weights[at + "gate.weight"]).sigmoid()
    choice = scores.detach() + weights[at + "e_score_correction_bias"]
    if numerics.jitter:
        choice = choice + numerics.jitter * torch.randn(choice.shape, generator=numerics.generator)
    top_k = shape.num_experts_per_tok
    chosen = choice.topk(top_k, dim=-1).indices
    share = scores.gather(-1, chosen)
    share = share / share.sum(dim=-1, keepdim=True)

    flat = chosen.flatten()
    order = flat.argsort(stable=True)
    counts = flat.bincount(minlength=shape.num_local_experts).tolist()
    matrices = zip(
        *(weights[f"{at}experts.{name}"].unbind() for name in ("w1", "w3", "w2")), strict=True
    )
    answers = []
    for part, (w1, w3, w2) in zip(x[order // top_k].split(counts), matrices, strict=True):
        inner = numerics.rounded(F.silu(F.linear(part, w1)) * F.linear(part, w3))
        answers.append(F.linear(inner, w2))
    weighted = torch.cat(answers) * share.flatten()[order, None]
    return weighted[order.argsort()].view(len(x), top_k, -1).sum(dim=1)
