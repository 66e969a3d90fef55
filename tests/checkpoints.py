"""Checkpoints of a few bytes, in the layout that the real ones have."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "architectures": ["MiniMaxM2ForCausalLM"],
    "model_type": "minimax_m2",
    "torch_dtype": "bfloat16",
    "num_hidden_layers": 62,
    "num_attention_heads": 48,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": 3072,
    "num_local_experts": 192,
    "max_position_embeddings": 196_608,
    "attn_type_list": [1] * 62,
}
TINY: dict[str, Any] = {
    "num_hidden_layers": 2,
    "attn_type_list": [1, 1],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 65_536,
}
WIDTHS = {"BF16": 2, "F32": 4}


def shard_bytes(tensors: Mapping[str, int]) -> bytes:
    """Return a safetensors file with one tensor of so many bytes for each type."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for dtype, size in tensors.items():
        offsets = [end, end + size]
        shape = [size // WIDTHS.get(dtype, 1)]
        header[f"t.{dtype}"] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * end


def write_checkpoint(
    folder: Path, tensors: Mapping[str, int] | None = None, **changes: Any
) -> Path:
    """Write a checkpoint of one file; ``changes`` are to its config. Return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    (folder / "model.safetensors").write_bytes(shard_bytes(tensors or {"BF16": 64}))
    return folder
