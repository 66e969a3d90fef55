"""The headers of the real model: its true tensors, in each format of attention and head. No data.

192 experts a layer, as the pruned checkpoint has them; shapes as published.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from functools import cache
from itertools import chain, product
from pathlib import Path
from typing import Any

from appliance.checkpoint.folder import INDEX, model_facts
from appliance.checkpoint.headers import Tensor, render_header
from appliance.checkpoint.weigh import Scales
from appliance.facts import ModelFacts

BITS = {"U8": 8, "F8_E4M3": 8, "BF16": 16, "F32": 32}
LAYERS, EXPERTS, HIDDEN, INNER, VOCABULARY = 62, 192, 3072, 1536, 200_064
PROJECTIONS = {
    "q_proj": (6144, HIDDEN),
    "k_proj": (1024, HIDDEN),
    "v_proj": (1024, HIDDEN),
    "o_proj": (HIDDEN, 6144),
}
FORMATS = ("bf16", "fp8", "fp8-per-channel", "mxfp8", "nvfp4-weight-only")
CONFIG: dict[str, Any] = {
    "architectures": ["MiniMaxM2ForCausalLM"],
    "model_type": "minimax_m2",
    "torch_dtype": "bfloat16",
    "num_hidden_layers": LAYERS,
    "num_local_experts": EXPERTS,
    "num_experts_per_tok": 8,
    "num_attention_heads": 48,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": HIDDEN,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 204_800,
    "attn_type_list": [1] * LAYERS,
    "tie_word_embeddings": False,
    "quantization_config": {
        "quant_method": "modelopt",
        "quant_algo": "NVFP4",
        "kv_cache_scheme": {"num_bits": 8, "type": "float", "dynamic": False},
    },
}
Named = tuple[str, str, tuple[int, ...]]


def matrix(stem: str, rows: int, columns: int, form: str) -> Iterator[Named]:
    """Yield the tensors of one weight in a format."""
    match form:
        case "bf16":
            yield f"{stem}.weight", "BF16", (rows, columns)
        case "nvfp4" | "nvfp4-weight-only":
            yield f"{stem}.weight", "U8", (rows, columns // 2)
            yield f"{stem}.weight_scale", "F8_E4M3", (rows, columns // 16)
            yield f"{stem}.weight_scale_2", "F32", ()
            if form == "nvfp4":
                yield f"{stem}.input_scale", "F32", ()
        case _:
            yield f"{stem}.weight", "F8_E4M3", (rows, columns)
            scales = {"fp8": (), "fp8-per-channel": (rows,), "mxfp8": (rows, columns // 32)}
            yield f"{stem}.weight_scale", "U8" if form == "mxfp8" else "F32", scales[form]


def layer_tensors(layer: int, attention: str) -> Iterator[Named]:
    """Yield what one layer has beside its experts."""
    stem = f"model.layers.{layer}"
    for name, (rows, columns) in PROJECTIONS.items():
        yield from matrix(f"{stem}.self_attn.{name}", rows, columns, attention)
    for letter in "kv":
        yield f"{stem}.self_attn.{letter}_proj.{letter}_scale", "F32", ()
    for name, size in (("q_norm", 6144), ("k_norm", 1024)):
        yield f"{stem}.self_attn.{name}.weight", "BF16", (size,)
    for name in ("input_layernorm", "post_attention_layernorm"):
        yield f"{stem}.{name}.weight", "BF16", (HIDDEN,)
    yield f"{stem}.block_sparse_moe.gate.weight", "BF16", (EXPERTS, HIDDEN)
    yield f"{stem}.block_sparse_moe.e_score_correction_bias", "F32", (EXPERTS,)


def expert_tensors() -> Iterator[Named]:
    """Yield what all experts of all layers have."""
    for layer, expert in product(range(LAYERS), range(EXPERTS)):
        stem = f"model.layers.{layer}.block_sparse_moe.experts.{expert}"
        yield from matrix(f"{stem}.w1", INNER, HIDDEN, "nvfp4")
        yield from matrix(f"{stem}.w2", HIDDEN, INNER, "nvfp4")
        yield from matrix(f"{stem}.w3", INNER, HIDDEN, "nvfp4")


def other_tensors(attention: str, head: str) -> Iterator[Named]:
    """Yield what is no expert's."""
    yield from matrix("model.embed_tokens", VOCABULARY, HIDDEN, "bf16")
    for layer in range(LAYERS):
        yield from layer_tensors(layer, attention)
    yield "model.norm.weight", "BF16", (HIDDEN,)
    yield from matrix("lm_head", VOCABULARY, HIDDEN, head)


def placed(named: Iterable[Named]) -> Iterator[Tensor]:
    """Yield them one after the other, as in a file without end."""
    end = 0
    for name, dtype, shape in named:
        size = math.prod(shape) * BITS[dtype] // 8
        yield Tensor(name, dtype, shape, end, end + size)
        end += size


@cache
def _weighed_experts() -> Scales:
    scales = Scales()  # of 142,848 tensors, the same in each format: weighed once
    scales.add(placed(expert_tensors()))
    return scales


@cache
def true_facts(attention: str = "bf16", head: str = "bf16") -> ModelFacts:
    """Return the facts of the model in these formats."""
    scales = deepcopy(_weighed_experts())
    scales.add(placed(other_tensors(attention, head)))
    return model_facts(Path("/models/Nikola"), CONFIG, scales, 24)


def write_headers(folder: Path, attention: str, head: str, shards: int = 4) -> Path:
    """Write the model as files of its true size that are holes but for their headers."""
    tensors = list(placed(chain(other_tensors(attention, head), expert_tensors())))
    step = -(-len(tensors) // shards)
    shard_of: dict[str, str] = {}
    for n in range(shards):
        name = f"model-{n + 1:05}-of-{shards:05}.safetensors"
        part = tensors[n * step : (n + 1) * step]
        shard_of |= dict.fromkeys((tensor.name for tensor in part), name)
        _write_hollow(folder / name, part)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / INDEX).write_text(json.dumps({"weight_map": shard_of}))
    return folder


def _write_hollow(path: Path, tensors: Sequence[Tensor]) -> None:
    start = tensors[0].start
    moved = [t._replace(start=t.start - start, stop=t.stop - start) for t in tensors]
    with path.open("wb") as file:
        file.write(render_header(moved, {"format": "pt"}))
        file.truncate(file.tell() + moved[-1].stop)
