"""A checkpoint of true widths whose attention has plausible numbers, and an index that fits."""

import json
import os
from pathlib import Path

import numpy as np

from tests.bench.checkpoint.giant import build_giant

BLOCK = 2**20  # numbers at a time
SHARD_BYTES = 5 * 10**8  # several for four jobs, as the whole model has: it has 27, of ten times it


def build_whole(folder: Path, layers: int, *, has_head: bool = False) -> None:
    """Write a checkpoint of so many layers, and the head where wanted.

    ``build_giant`` fills it with random bits: as BF16 one in 256 of them is no number, or
    infinite, which quantising refuses. Attention and the norms get numbers instead.
    """
    build_giant(folder, layers, SHARD_BYTES, has_head=has_head)
    dice = np.random.default_rng(1)
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("r+b") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            for name, entry in header.items():
                if name == "__metadata__" or entry["dtype"] != "BF16" or "gate" in name:
                    continue
                first, last = entry["data_offsets"]
                _fill(file.fileno(), 8 + length + first, (last - first) // 2, dice)
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _fill(fd: int, offset: int, count: int, dice: np.random.Generator) -> None:
    for first in range(0, count, BLOCK):
        numbers = dice.normal(0, 0.02, min(BLOCK, count - first)).astype(np.float32)
        halves = (numbers.view(np.uint32) >> np.uint32(16)).astype("<u2")
        os.pwrite(fd, halves.tobytes(), offset + 2 * first)
