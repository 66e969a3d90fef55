"""A miniature of the served checkpoint, in its true structure: made on the spot, as it is random.

ModelOpt's NVFP4 experts, bf16 attention and head, FP8 KV cache with scales, 256 experts of which
8 are chosen; of widths that the CUDA kernels take. Random bytes do not compress, so it is cheaper
to make it than to carry it.
"""

import json
import os
import random
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.checkpointbox import (
    Piece,
    Shape,
    config_of,
    dice_of,
    pieces,
    render,
    to_bf16,
    write_json,
)

EXPERTS, KEPT, CHOSEN = 256, 192, 8
# 2.7 % of a layer's true width; 8 KV heads of 128 numbers, as the true one has
SHAPE = Shape(
    form="nvfp4", layers=4, experts=EXPERTS, hidden=512, inner=256, shards=4, heads=8,
    head_dim=128, vocabulary=1024, seed=7,
)  # fmt: skip
CPU_SHAPE = replace(SHAPE, form="bf16", layers=2, hidden=64, inner=32, heads=4, head_dim=32)
# The served model's widths and depth, and its 44.04 M attention weights a layer (as 28 heads of
# all three kinds); 32 of its experts, for a GPU of 80 GB: a step takes as long as a GPU decides.
DEEP = replace(
    SHAPE, layers=62, experts=32, hidden=3072, inner=1536, heads=28, shards=62, seed=9
)  # fmt: skip
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
FP8_HALF, FP8_TWO = 0x30, 0x40  # e4m3's 0.5 and 2.0: scales are positive, and no NaN
SCALES = bytes(random.Random(1).choices(range(FP8_HALF, FP8_TWO), k=65_521))  # noqa: S311


def build(folder: Path, shape: Shape, tokenizer: Path) -> Path:
    """Write a miniature in ``folder``, with the tokenizer of another one; return the folder.

    It is whole, or it is not there.
    """
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    shards: list[list[Piece]] = [[] for _ in range(shape.shards)]
    for number, piece in pieces(shape):
        # published ones have offsets of the KV cache, which vLLM has no place for
        if not piece.name.endswith(("k_bias", "v_bias")):
            shards[number].append(piece)
    names = [f"model-{n:05}-of-{shape.shards:05}.safetensors" for n in range(1, shape.shards + 1)]
    where = {piece.name: name for name, shard in zip(names, shards, strict=True) for piece in shard}
    write_shards([fresh / name for name in names], shards, shape.seed)
    total = sum(piece.size for shard in shards for piece in shard)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    write_json(fresh / "model.safetensors.index.json", index)
    write_json(fresh / "config.json", config(shape, tokenizer))
    for name in TOKENIZER:
        shutil.copy(tokenizer / name, fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return folder


def write_shards(paths: list[Path], shards: list[list[Piece]], seed: int) -> None:
    """Write all shards, several at a time: drawing random numbers is what takes the time."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy draws and writes beside others
        list(pool.map(write_shard, paths, shards, [seed] * len(paths)))


def write_shard(path: Path, shard: list[Piece], seed: int) -> None:
    """Write one shard; a tensor's bytes are decided by its name and the seed alone."""
    path.write_bytes(render([(piece, content_of(piece, seed)) for piece in shard]))


def config(shape: Shape, tokenizer: Path) -> dict[str, Any]:
    """Return config.json: the served model's keys, of this shape, all that is bf16 left alone."""
    served: dict[str, Any] = json.loads((tokenizer / "config.json").read_text())
    ours = config_of(shape)
    del ours["auto_map"]
    if "quantization_config" in ours:
        layers = range(shape.layers)
        ignored = [f"model.layers.{n}.{part}" for n in layers
                   for part in ("self_attn*", "block_sparse_moe.gate")]  # fmt: skip
        ours["quantization_config"] |= {"ignore": ["lm_head", *ignored]}
    rotary = {"rotary_dim": shape.head_dim // 2, "num_experts_per_tok": CHOSEN}
    return served | ours | rotary


def content_of(piece: Piece, seed: int) -> bytes:
    """Return bytes whose numbers keep activations and logits near one."""
    name = piece.name
    dice = np.random.default_rng([seed, *name.encode()])
    if piece.dtype == "U8":
        return dice.bytes(piece.size)  # two numbers of E2M1 a byte: any is one
    if piece.dtype == "F8_E4M3":
        at = int(dice.integers(len(SCALES)))
        return (SCALES[at:] + SCALES * (piece.size // len(SCALES) + 1))[: piece.size]
    count = piece.size // (4 if piece.dtype == "F32" else 2)
    if "scale" in name:
        # w1 and w3 are one matrix in the engine: one scale for both
        shared = dice_of(name.replace(".w3.", ".w1."))
        low, high = (0.02, 0.04) if name.endswith(("k_scale", "v_scale")) else (0.01, 0.02)
        return struct.pack(f"<{count}f", *(shared.uniform(low, high) for _ in range(count)))
    centre = 8.0 if "correction_bias" in name else 1.0 if "norm" in name else 0.0
    drawn = min(count, 65_521)  # a large matrix repeats itself: drawing takes the time
    values = dice.normal(centre, 0.1, drawn).astype("<f4").tobytes()
    plain = values if piece.dtype == "F32" else to_bf16(values)
    return (plain * (count // drawn + 1))[: piece.size]
