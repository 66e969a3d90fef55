"""Makes the bytes of a quantised matrix, some rows at a time: little memory is needed."""

from collections.abc import Iterator

import numpy as np

from appliance.checkpoint.formats import Format, Matrix
from appliance.checkpoint.plan import Made
from appliance.checkpoint.quantise.rounding import Floats
from appliance.checkpoint.quantise.scaling import grid_of, packed, scalars, scaled
from appliance.checkpoint.source import LocalSource, Source

BLOCK_BYTES = 2**19  # of BF16 at a time: what is made of it fits into a processor's cache
REMOTE_BLOCK_BYTES = 2**23  # each is a request


def encoded(source: Source, name: str, made: Made) -> Iterator[bytes]:
    """Yield the bytes of a matrix's tensors, in the order of its recipe's parts."""
    skip = made.done
    for content in _all_of(source, name, made):
        yield content[skip:]
        skip = max(skip - len(content), 0)


def _all_of(source: Source, name: str, made: Made) -> Iterator[bytes]:
    recipe = made.recipe
    scales: list[bytes] = []
    grid = grid_of(recipe.format)
    for rows in blocks(source, Matrix(name, made.offset, recipe.rows, recipe.columns)):
        there = scaled(rows, recipe)
        codes = grid.codes(grid.keys(there.numbers))
        yield (packed(codes) if recipe.format is Format.NVFP4 else codes).tobytes()
        scales.append(there.scales)
    yield b"".join(scales)
    yield scalars(recipe)


def blocks(source: Source, matrix: Matrix) -> Iterator[Floats]:
    """Yield a matrix, some rows at a time."""
    stride = 2 * matrix.columns
    fetched = BLOCK_BYTES if isinstance(source, LocalSource) else REMOTE_BLOCK_BYTES
    at_once = max(1, BLOCK_BYTES // stride)
    step = max(at_once, fetched // stride)
    for first in range(0, matrix.rows, step):
        count = min(step, matrix.rows - first)
        content = source.read(matrix.shard, matrix.offset + first * stride, count * stride)
        for start in range(0, count, at_once):
            yield widened(content[start * stride : (start + at_once) * stride], matrix.columns)


def widened(content: bytes, columns: int) -> Floats:
    """Return BF16 numbers as float32, in rows."""
    halves = np.frombuffer(content, "<u2").astype(np.uint32)
    halves <<= 16
    return halves.view(np.float32).reshape(-1, columns)
