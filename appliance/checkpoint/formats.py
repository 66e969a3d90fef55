"""What a matrix of 8 or 4 bits looks like on the disk, as vLLM's ModelOpt reader wants it. Pure.

Names, types and shapes are those that ``modelopt.py`` of vLLM 0.33 registers (0.26 has all but the
first format in checkpoints that mix several).
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Format(StrEnum):
    """How a weight is written."""

    PER_CHANNEL = "fp8-per-channel"  # one scale a row; activations are scaled by token, at run time
    MXFP8 = "mxfp8"  # one scale, a power of two, for each 32 numbers of a row
    FP8 = "fp8"  # one scale for all, and one for the activations
    NVFP4 = "nvfp4-weight-only"  # 4 bits, a scale for each 16 numbers, and one for all


class Part(NamedTuple):
    """One tensor of a quantised matrix: what its name ends with, its type and shape."""

    suffix: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Return its length in bytes."""
        return math.prod(self.shape) * (4 if self.dtype == "F32" else 1)


# What vLLM calls a format in quantized_layers, and the numbers that share a scale there.
ALGORITHMS = {
    Format.PER_CHANNEL: "FP8_PER_CHANNEL_PER_TOKEN",
    Format.MXFP8: "MXFP8",
    Format.FP8: "FP8",
    Format.NVFP4: "W4A16_NVFP4",
}
GROUPS = {Format.PER_CHANNEL: 1, Format.MXFP8: 32, Format.FP8: 1, Format.NVFP4: 16}
# Where q, k and v become one matrix, vLLM takes one of their scales for all: they must share it.
SHARED_SCALE = (Format.FP8, Format.NVFP4)


class Matrix(NamedTuple):
    """A matrix of BF16 numbers in a file."""

    shard: str
    offset: int
    rows: int
    columns: int

    @property
    def size(self) -> int:
        """Return its length in bytes."""
        return 2 * self.rows * self.columns


@dataclass(frozen=True)
class Recipe:
    """How one matrix is written.

    ``largest`` is the largest magnitude in it and in those that share its scale, ``largest_input``
    an upper bound of what it is multiplied with; each is 0 for a format that does not ask.
    """

    format: Format
    rows: int
    columns: int
    largest: float = 0.0
    largest_input: float = 0.0

    @property
    def parts(self) -> tuple[Part, ...]:
        """Return its tensors, in the order in which they are written."""
        rows, columns = self.rows, self.columns
        group = GROUPS[self.format]
        match self.format:
            case Format.PER_CHANNEL:
                scales = [Part("weight_scale", "F32", (rows,))]
            case Format.MXFP8:
                scales = [Part("weight_scale", "U8", (rows, columns // group))]
            case Format.FP8:
                scales = [Part("weight_scale", "F32", ()), Part("input_scale", "F32", ())]
            case Format.NVFP4:
                packed = Part("weight", "U8", (rows, columns // 2))
                by_group = Part("weight_scale", "F8_E4M3", (rows, columns // group))
                return packed, by_group, Part("weight_scale_2", "F32", ())
        return Part("weight", "F8_E4M3", (rows, columns)), *scales

    @property
    def size(self) -> int:
        """Return the bytes of all its tensors."""
        return sum(part.size for part in self.parts)
