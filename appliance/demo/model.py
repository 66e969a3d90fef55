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
class Batch:
    """Packed documents: T tokens of D documents, without padding.

    A document is one prompt head and several conversations that go on from it, each of which
    sees the head and itself. ``rows`` and ``columns`` [T] say where a token stands in a padded
    [D, longest] array, ``positions`` [T] where it stands in its own conversation, and ``mask``
    [D, 1, longest, longest] is true where a row's token may look at a column's.
    ``learned`` [L] are the packed indices whose next token is known, ``targets`` [L] that token.
    """

    tokens: Any
    positions: Any
    rows: Any
    columns: Any
    mask: Any
    learned: Any
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
        """Round and disturb an activation."""
        if self.noise:
            x = x * (1 + self.noise * torch.randn(x.shape, generator=self.generator))
        return x.bfloat16().float() if self.bf16 else x


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
        norm = rms_norm(x, weights[at + "input_layernorm.weight"], shape)
        x = numerics.rounded(
            x + attention(weights, at + "self_attn.", shape, batch, norm, cos, sin, numerics)
        )
        if layer == shape.num_hidden_layers - 1:
            x = x[batch.learned]  # nothing after this looks at another position
        norm = rms_norm(x, weights[at + "post_attention_layernorm.weight"], shape)
        norm = numerics.rounded(norm)
        x = numerics.rounded(x + experts(weights, at + "block_sparse_moe.", shape, norm, numerics))
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
    batch: Batch,
    x: Any,
    cos: Any,
    sin: Any,
    numerics: Numerics,
) -> Any:
    """Causal attention of packed tokens [T, hidden] with queries and keys normalised."""
    x = numerics.rounded(x)
    query = rms_norm(
        F.linear(x, weights[at + "q_proj.weight"]), weights[at + "q_norm.weight"], shape
    )
    key = rms_norm(F.linear(x, weights[at + "k_proj.weight"]), weights[at + "k_norm.weight"], shape)
    value = F.linear(x, weights[at + "v_proj.weight"])

    def padded(flat: Any, heads: int, turn: bool) -> Any:
        by_head = flat.view(-1, heads, shape.head_dim)
        by_head = numerics.rounded(rotated(by_head, shape, cos, sin) if turn else by_head)
        documents, _, longest, _ = batch.mask.shape
        grid = by_head.new_zeros(documents, longest, heads, shape.head_dim)
        grid = grid.index_put((batch.rows, batch.columns), by_head).transpose(1, 2)
        return grid.repeat_interleave(shape.num_attention_heads // heads, dim=1)

    mixed = F.scaled_dot_product_attention(
        padded(query, shape.num_attention_heads, True),
        padded(key, shape.num_key_value_heads, True),
        padded(value, shape.num_key_value_heads, False),
        attn_mask=batch.mask,
    )
    packed = mixed.transpose(1, 2)[batch.rows, batch.columns].flatten(1)
    return F.linear(numerics.rounded(packed), weights[at + "o_proj.weight"])


def experts(weights: Weights, at: str, shape: Shape, x: Any, numerics: Numerics) -> Any:
    """Route tokens [T, hidden] by sigmoid score and correction bias; add up their experts."""
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
    answers = []
    for expert, part in enumerate(x[order // top_k].split(counts)):
        gate = F.silu(F.linear(part, weights[at + "experts.w1"][expert]))
        inner = numerics.rounded(gate * F.linear(part, weights[at + "experts.w3"][expert]))
        answers.append(F.linear(inner, weights[at + "experts.w2"][expert]))
    weighted = torch.cat(answers) * share.flatten()[order, None]
    return weighted[order.argsort()].view(len(x), top_k, -1).sum(dim=1)
