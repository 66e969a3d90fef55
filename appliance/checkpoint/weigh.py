"""Weighs a model by its parts: what each takes, and what of it is read for one decoded token. Pure.

Sizes are those of the headers, so a checkpoint of mixed formats is weighed as it is stored; the
config says only how many experts a token visits, and whether the head has weights of its own.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from appliance.checkpoint.headers import Tensor
from appliance.facts import WeightPart

# The first that matches counts: a draft layer has experts, too, and is not read.
_PART = re.compile(
    r"(?P<draft>(?:model\.)?mtp\.)"
    r"|(?P<vision>(?:model\.)?(?:visual|vision_tower|vision_model|multi_modal_projector)\.)"
    r"|(?P<head>(?:language_model\.)?lm_head\.)"
    r"|(?P<embeddings>(?:.*\.)?embed_tokens\.)"
    r"|(?P<experts>.*\.experts\.)"
    r"|(?P<routers>.*\.layers\.\d+\.(?:block_sparse_moe|mlp)"
    r"\.(?:(?:gate|router)\.|e_score_correction_bias))"
    r"|(?P<attention>.*\.(?:self_attn|linear_attn|attn)\.)"
    r"|(?P<dense>.*\.(?:block_sparse_moe|mlp)\.)"
)
_ORDER = (
    *("experts", "attention", "head", "routers", "dense", "other"),
    *("embeddings", "vision", "draft"),
)
# Scales and offsets of quantised weights; those of the KV cache stay with bf16 weights, too.
_OF_QUANTISATION = re.compile(r".*\.(?!k_scale|v_scale)\w*(?:scale|zero_point)\w*")
# Bytes of bf16 for each byte of a quantised weight: two values in a byte of U8, eight in an I32.
_TO_BF16 = {"U8": 4, "I32": 4, "F8_E4M3": 2, "F8_E5M2": 2, "I8": 2}
_WIDTHS = {"BF16": 2, "F16": 2}  # bytes of a value; others have four
# Whose routers vLLM keeps in F32, however they are stored (read in 0.32 and 0.33).
_F32_ROUTERS = frozenset({"MiniMaxM2ForCausalLM"})
_PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token")


class Scales:
    """Adds up a model's tensors by part, shard by shard."""

    def __init__(self) -> None:
        self.by_dtype: Counter[str] = Counter()
        self._parts: dict[str, Counter[str]] = {}
        self._bf16: Counter[str] = Counter()
        self._vocabulary = 1

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Put the tensors of one file on the scales."""
        for tensor in tensors:
            name = part_of(tensor.name)
            self.by_dtype[tensor.dtype] += tensor.size
            self._parts.setdefault(name, Counter())[tensor.dtype] += tensor.size
            self._bf16[name] += _in_bf16(tensor)
            if name == "embeddings" and tensor.shape:
                self._vocabulary = max(self._vocabulary, tensor.shape[0])

    def sizes(self) -> Counter[str]:
        """Return the bytes of each part."""
        return Counter({name: sizes.total() for name, sizes in self._parts.items()})

    def parts(self, architecture: str, experts: int, visited: int) -> tuple[WeightPart, ...]:
        """Return the parts that are there; a token visits ``visited`` of so many experts a layer.

        Either number is 0 where the config does not say it: then all experts are counted as read.
        """
        return tuple(
            WeightPart(name, sizes.total(), read, self._bf16[name], tuple(sizes.most_common()), how)
            for name, sizes, read, how in self._read(architecture, experts, visited)
        )

    def _read(
        self, architecture: str, experts: int, visited: int
    ) -> Iterator[tuple[str, Counter[str], int, str]]:
        for name in _ORDER:
            if (sizes := self._parts.get(name)) is None:
                continue
            size, read, how = sizes.total(), sizes.total(), ""
            if name == "experts" and 0 < visited < experts:
                read, how = size * visited // experts, f"{visited} of {experts} a layer"
            elif name == "routers" and architecture in _F32_ROUTERS:
                read = sum(4 * n // _WIDTHS.get(dtype, 4) for dtype, n in sizes.items())
                how = "kept in F32 by vLLM" if read > size else ""
            elif name == "embeddings" and "head" not in self._parts:
                how = "the head is the same matrix"
            elif name == "embeddings":
                read, how = size // self._vocabulary, "one row"
            elif name in ("vision", "draft"):
                read, how = 0, "not for a token of text"
            yield name, sizes, read, how


def part_of(name: str) -> str:
    """Return which part of the model a tensor belongs to; "other" for norms and the unknown."""
    match = _PART.match(name)
    return (match and match.lastgroup) or "other"


def experts_per_token(config: Mapping[str, Any]) -> int:
    """Return how many experts a token visits in each layer; 0 where the config does not say."""
    named = (config.get(key) for key in _PER_TOKEN)
    return next((n for n in named if type(n) is int and n > 0), 0)


def _in_bf16(tensor: Tensor) -> int:
    if _OF_QUANTISATION.fullmatch(tensor.name):
        return 0
    return tensor.size * _TO_BF16.get(tensor.dtype, 1)
