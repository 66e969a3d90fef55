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

    ``queries`` [R, Q] and ``keys`` [R, K] are packed indices (any index where padded), ``mask``
    [R, 1, Q, K] is true where a query may look at a key.
    """

    queries: Any
    keys: Any
    mask: Any


@dataclass(frozen=True)
class Batch:
    """T packed tokens: prompt heads, and conversations that go on from one of them.

    Conversations under the same head share it, as an engine's prefix cache does: that is most
    of what makes the training quick. ``positions`` [T] is where a token stands in its own
    conversation. ``back`` [T] finds each token in the views' queries, laid behind one another.
    ``learned`` [L] are the packed indices whose next token is known, ``targets`` [L] that token.
    """

    tokens: Any
    positions: Any
    views: list[View]
    back: Any
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
        norm = rms_norm(x, weights[at + "input_layernorm.weight"], shape)
        x = numerics.disturbed(
            x + attention(weights, at + "self_attn.", shape, batch, norm, cos, sin, numerics)
        )
        if layer == shape.num_hidden_layers - 1:
            x = x[batch.learned]  # nothing after this looks at another position
        norm = rms_norm(x, weights[at + "post_attention_layernorm.weight"], shape)
        norm = numerics.rounded(norm)
        x = numerics.disturbed(
            x + experts(weights, at + "block_sparse_moe.", shape, norm, numerics)
        )
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
    query = F.linear(x, weights[at + "q_proj.weight"])
    query = rms_norm(query, weights[at + "q_norm.weight"], shape)
    query = query.view(-1, shape.num_attention_heads, shape.head_dim)
    query = numerics.rounded(rotated(query, shape, cos, sin))
    key = F.linear(x, weights[at + "k_proj.weight"])
    key = rms_norm(key, weights[at + "k_norm.weight"], shape)
    key = key.view(-1, shape.num_key_value_heads, shape.head_dim)
    key = numerics.rounded(rotated(key, shape, cos, sin))
    value = F.linear(x, weights[at + "v_proj.weight"])
    value = numerics.rounded(value.view(-1, shape.num_key_value_heads, shape.head_dim))

    def grid(by_head: Any, indices: Any) -> Any:
        """[T, heads, head_dim] -> [R, all heads, length, head_dim]."""
        repeats = shape.num_attention_heads // by_head.shape[1]
        return by_head[indices].transpose(1, 2).repeat_interleave(repeats, dim=1)

    mixed = [
        F.scaled_dot_product_attention(
            grid(query, view.queries), grid(key, view.keys), grid(value, view.keys), view.mask
        )
        for view in batch.views
    ]
    flat = [part.transpose(1, 2).flatten(2).flatten(0, 1) for part in mixed]
    packed = torch.cat(flat)[batch.back]
    return F.linear(numerics.rounded(packed), weights[at + "o_proj.weight"])


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
    answers = []
    for expert, part in enumerate(x[order // top_k].split(counts)):
        gate = F.silu(F.linear(part, weights[at + "experts.w1"][expert]))
        inner = numerics.rounded(gate * F.linear(part, weights[at + "experts.w3"][expert]))
        answers.append(F.linear(inner, weights[at + "experts.w2"][expert]))
    weighted = torch.cat(answers) * share.flatten()[order, None]
    return weighted[order.argsort()].view(len(x), top_k, -1).sum(dim=1)
