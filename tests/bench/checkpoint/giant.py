"""A checkpoint of many gigabytes: every expert of its true size, random bytes, no sparse region."""

import json
import os
import random
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.checkpointbox import WIDTH, Piece, Shape, attention_of, config_of, experts_of, write_json

# ModelOpt's NVFP4 with the model's own widths: 7.96 MB an expert, 2.04 GB a layer.
TRUE = Shape(
    form="nvfp4", hidden=3072, inner=1536, heads=48, head_dim=128, vocabulary=20_000, gate="F32"
)
HEAD = Piece("lm_head.weight", "BF16", (200_064, TRUE.hidden))  # 1.2 GB
SHARD_BYTES = 5 * 10**9
BLOCK = 64 * 2**20


def build_giant(
    folder: Path, layers: int, shard_bytes: int = SHARD_BYTES, *, has_head: bool = False
) -> int:
    """Write a checkpoint of so many layers, and the head where wanted; return its shards' bytes."""
    folder.mkdir(parents=True)
    shape = replace(TRUE, layers=layers)
    shards = [*_shards(shape, shard_bytes), *([[HEAD]] if has_head else [])]
    names = [f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)]
    total = 0
    shard_of: dict[str, str] = {}
    for name, pieces in zip(names, shards, strict=True):
        total += _write_shard(folder / name, pieces)
        shard_of |= {piece.name: name for piece in pieces}
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": shard_of})
    write_json(folder / "config.json", config_of(shape))
    return total


def _shards(shape: Shape, shard_bytes: int) -> Iterator[list[Piece]]:
    shard, size = [Piece("model.embed_tokens.weight", "BF16", (shape.vocabulary, shape.hidden))], 0
    for layer in range(shape.layers):
        parts = [list(attention_of(shape, layer))]
        parts += [list(experts_of(shape, layer, expert)) for expert in range(shape.experts)]
        for pieces in parts:
            shard += pieces
            size += sum(piece.size for piece in pieces)
            if size > shard_bytes:
                yield shard
                shard, size = [], 0
    yield [*shard, Piece("model.norm.weight", "BF16", (shape.hidden,))]


def _write_shard(path: Path, pieces: list[Piece]) -> int:
    ordered = sorted(pieces, key=lambda piece: (-WIDTH[piece.dtype], piece.name))
    header, end = {}, 0
    for piece in ordered:
        place = [end, end + piece.size]
        header[piece.name] = {"dtype": piece.dtype, "shape": piece.shape, "data_offsets": place}
        end += piece.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        _fill(file.fileno(), file.tell(), end)
        file.flush()
        _write_scales(file.fileno(), 8 + len(text), ordered)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path.stat().st_size


def _fill(fd: int, start: int, size: int) -> None:
    block = os.urandom(BLOCK + 4096)
    for done in range(0, size, BLOCK):
        shift = done // BLOCK % 4096  # no two blocks alike at the same place
        os.pwrite(fd, memoryview(block)[shift : shift + min(BLOCK, size - done)], start + done)


def _write_scales(fd: int, start: int, ordered: list[Piece]) -> None:
    """Give every scale a value that can be: random bits would often be none."""
    for piece in ordered:
        if piece.shape == ():
            key = piece.name.replace(".w3.", ".w1.")
            value = random.Random(key).uniform(0.001, 0.1)  # noqa: S311  nothing secret
            os.pwrite(fd, struct.pack("<f", value), start)
        start += piece.size
