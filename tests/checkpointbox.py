"""Miniatures of MiniMax-M2 checkpoints: every tensor under its true name, of small widths.

``build`` writes them in each published format: BF16, FP8 by blocks, ModelOpt's NVFP4 with KV
scales and offsets, compressed-tensors' NVFP4. The values are random, scales and gates plausible.
"""

import json
import math
import os
import random
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

WIDTH = {"U8": 1, "F8_E4M3": 1, "BF16": 2, "F32": 4}
FORMATS = ("bf16", "fp8", "nvfp4", "compressed")
MOE = "model.layers.{}.block_sparse_moe"


class Piece(NamedTuple):
    """One tensor: name, type, shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * WIDTH[self.dtype]


@dataclass(frozen=True)
class Shape:
    """How large a miniature is. The default has the true numbers of layers and experts."""

    form: str = "bf16"
    layers: int = 62
    experts: int = 256
    hidden: int = 32
    inner: int = 16
    shards: int = 5
    heads: int = 2
    head_dim: int = 16
    vocabulary: int = 64
    gate: str = "BF16"
    seed: int = 1


SMALL = Shape(layers=3, experts=8, shards=3)


def experts_of(shape: Shape, layer: int, expert: int) -> Iterator[Piece]:
    """Yield the tensors of one expert."""
    hidden, inner = shape.hidden, shape.inner
    for matrix, rows, columns in (
        ("w1", inner, hidden),
        ("w2", hidden, inner),
        ("w3", inner, hidden),
    ):
        stem = f"{MOE.format(layer)}.experts.{expert}.{matrix}."
        if shape.form == "bf16":
            yield Piece(stem + "weight", "BF16", (rows, columns))
        elif shape.form == "fp8":
            yield Piece(stem + "weight", "F8_E4M3", (rows, columns))
            yield Piece(stem + "weight_scale_inv", "F32", (1, 1))
        else:
            modelopt = shape.form == "nvfp4"
            packed = "weight" if modelopt else "weight_packed"
            yield Piece(stem + packed, "U8", (rows, columns // 2))
            yield Piece(stem + "weight_scale", "F8_E4M3", (rows, max(columns // 16, 1)))
            for scale in ("weight_scale_2", "input_scale") if modelopt else GLOBAL_SCALES:
                yield Piece(stem + scale, "F32", () if modelopt else (1,))


GLOBAL_SCALES = ("weight_global_scale", "input_global_scale")


def attention_of(shape: Shape, layer: int) -> Iterator[Piece]:
    """Yield what a layer has beside its experts."""
    stem, hidden = f"model.layers.{layer}.", shape.hidden
    width = shape.heads * shape.head_dim
    quantised = shape.form == "fp8"
    for name, size in (("q", (width, hidden)), ("k", (width, hidden)), ("v", (width, hidden)),
                       ("o", (hidden, width))):  # fmt: skip
        matrix = f"{stem}self_attn.{name}_proj."
        yield Piece(matrix + "weight", "F8_E4M3" if quantised else "BF16", size)
        if quantised:
            yield Piece(matrix + "weight_scale_inv", "F32", (1, 1))
        if shape.form == "nvfp4" and name in "kv":
            yield Piece(f"{matrix}{name}_scale", "F32", ())
            yield Piece(f"{matrix}{name}_bias", "F32", (width,))
    for name in ("q_norm", "k_norm"):
        yield Piece(f"{stem}self_attn.{name}.weight", "BF16", (width,))
    for name in ("input_layernorm", "post_attention_layernorm"):
        yield Piece(f"{stem}{name}.weight", "BF16", (hidden,))
    yield Piece(f"{MOE.format(layer)}.gate.weight", shape.gate, (shape.experts, hidden))
    yield Piece(f"{MOE.format(layer)}.e_score_correction_bias", "F32", (shape.experts,))


def pieces(shape: Shape) -> Iterator[tuple[int, Piece]]:
    """Yield every tensor with its shard; the gates stand in other shards than their experts."""
    last = shape.shards - 1
    yield 0, Piece("model.embed_tokens.weight", "BF16", (shape.vocabulary, shape.hidden))
    for layer in range(shape.layers):
        home = layer * shape.shards // shape.layers
        for piece in attention_of(shape, layer):
            yield (layer * 7 + 1) % shape.shards if ".gate." in piece.name else home, piece
        for expert in range(shape.experts):
            for piece in experts_of(shape, layer, expert):
                yield home, piece
    yield last, Piece("model.norm.weight", "BF16", (shape.hidden,))
    yield last, Piece("lm_head.weight", "BF16", (shape.vocabulary, shape.hidden))


def dice_of(seed: int | str) -> random.Random:
    """Return a generator that throws the same each time."""
    return random.Random(seed)  # noqa: S311  nothing here is a secret


def content_of(piece: Piece, dice: random.Random) -> bytes:
    """Return plausible bytes: small numbers of either sign, scales above 0."""
    if piece.dtype in ("U8", "F8_E4M3"):
        return dice.randbytes(piece.size)
    if ".experts." in piece.name and piece.dtype == "BF16":
        at = 2 * dice.randrange(len(_POOL) // 2)
        return (_POOL[at:] + _POOL * (piece.size // len(_POOL) + 1))[: piece.size]
    count = math.prod(piece.shape)
    if "scale" in piece.name:
        # w1 and w3 are one matrix in the engine: they share what only the expert's name decides
        shared = dice_of(piece.name.replace(".w3.", ".w1."))
        return struct.pack(f"<{count}f", *(shared.uniform(0.001, 0.1) for _ in range(count)))
    centre = 8.0 if "correction_bias" in piece.name else 1.0 if "norm" in piece.name else 0.0
    values = struct.pack(f"<{count}f", *(dice.gauss(centre, 0.1) for _ in range(count)))
    return values if piece.dtype == "F32" else to_bf16(values)


def to_bf16(values: bytes) -> bytes:
    """Cut F32 numbers to BF16 ones: their upper halves."""
    return b"".join(values[at + 2 : at + 4] for at in range(0, len(values), 4))


_POOL = to_bf16(struct.pack("<65536f", *map(dice_of("pool").gauss, [0.0] * 65_536, [0.1] * 65_536)))


def render(tensors: Iterable[tuple[Piece, bytes]], **metadata: str) -> bytes:
    """Return a safetensors file, in the order of the official library: type, then name."""
    ordered = sorted(tensors, key=lambda item: (-WIDTH[item[0].dtype], item[0].name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    end = 0
    for piece, data in ordered:
        offsets = [end, end + len(data)]
        header[piece.name] = {"dtype": piece.dtype, "shape": piece.shape, "data_offsets": offsets}
        end += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, data in ordered)


def config_of(shape: Shape) -> dict[str, Any]:
    """Return config.json's content, with the published keys."""
    quantisations: dict[str, dict[str, Any]] = {
        "bf16": {},
        "fp8": {"quant_method": "fp8", "weight_block_size": [128, 128],
                "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"]},
        "nvfp4": {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16,
                  "ignore": ["lm_head", "model.layers.0.self_attn*",
                             "model.layers.0.block_sparse_moe.gate"],
                  "kv_cache_scheme": {"num_bits": 8, "type": "float", "dynamic": False}},
        "compressed": {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized",
                       "ignore": ["lm_head", r"re:.*block_sparse_moe\.gate$"]},
    }  # fmt: skip
    quantisation = quantisations[shape.form]
    config: dict[str, Any] = {
        "architectures": ["MiniMaxM2ForCausalLM"],
        "model_type": "minimax_m2",
        "auto_map": {"AutoConfig": "configuration_minimax_m2.MiniMaxM2Config"},
        "num_hidden_layers": shape.layers,
        "num_local_experts": shape.experts,
        "num_experts_per_tok": 2,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.head_dim,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": 196_608,
        "attn_type_list": [1] * shape.layers,
        "torch_dtype": "bfloat16",
    }
    if quantisation:
        config["quantization_config"] = quantisation
    return config


def build(folder: Path, shape: Shape) -> Path:
    """Write a miniature, with what lies beside the shards in published ones. Return its folder."""
    folder.mkdir(parents=True)
    dice = dice_of(shape.seed)
    shards: list[list[tuple[Piece, bytes]]] = [[] for _ in range(shape.shards)]
    for number, piece in pieces(shape):
        shards[number].append((piece, content_of(piece, dice)))
    names = [f"model-{n:05}-of-{shape.shards:05}.safetensors" for n in range(1, shape.shards + 1)]
    for name, tensors in zip(names, shards, strict=True):
        (folder / name).write_bytes(render(tensors))
    index = {
        "metadata": {"total_size": sum(len(data) for shard in shards for _, data in shard)},
        "weight_map": {
            piece.name: name
            for name, tensors in zip(names, shards, strict=True)
            for piece, _ in tensors
        },
    }
    write_json(folder / "model.safetensors.index.json", index)
    write_json(folder / "config.json", config_of(shape))
    write_json(folder / "generation_config.json", {"eos_token_id": 1})
    if shape.form == "nvfp4":
        write_json(folder / "hf_quant_config.json", MODELOPT)
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    for module in ("configuration_minimax_m2.py", "modeling_minimax_m2.py"):
        (folder / module).write_text("raise SystemExit\n")
    (folder / "figures").mkdir()
    (folder / "figures" / "scores.png").write_bytes(b"\x89PNG")
    return folder


MODELOPT = {
    "producer": {"name": "modelopt"},
    "quantization": {
        "quant_algo": "NVFP4",
        "kv_cache_quant_algo": "FP8",
        "group_size": 16,
        "exclude_modules": ["lm_head", "model.layers.0.block_sparse_moe.gate"],
    },
}


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content, indent=2))


def random_mask(shape: Shape, retained: int, seed: int = 3) -> dict[str, list[int]]:
    """Return a mask file's content."""
    dice = dice_of(seed)
    gone = shape.experts - retained
    return {
        str(layer): sorted(dice.sample(range(shape.experts), gone)) for layer in range(shape.layers)
    }


def write_mask(path: Path, shape: Shape, retained: int, seed: int = 3) -> Path:
    """Write a mask file; return its path."""
    path.write_text(json.dumps(random_mask(shape, retained, seed)))
    return path


def tensors_of(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return every tensor's type, shape and bytes: read plainly, not by the code under test."""
    found: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        raw = path.read_bytes()
        start = 8 + struct.unpack("<Q", raw[:8])[0]
        for name, entry in json.loads(raw[8:start]).items():
            if name != "__metadata__":
                first, last = entry["data_offsets"]
                data = raw[start + first : start + last]
                found[name] = (entry["dtype"], tuple(entry["shape"]), data)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file's bytes, by its path in the folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def written(out: Path) -> int:
    """Return the bytes of a folder that is being written."""
    total = 0
    for root, _, files in os.walk(out):
        for name in files:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except FileNotFoundError:  # renamed since it was listed
                continue
    return total
