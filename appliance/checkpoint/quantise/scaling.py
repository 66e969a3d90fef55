"""Divides the rows of a matrix by their scales: what is left fits into a few bits. By format.

A scale is never so small that a product with it, as a GPU forms it, would be denormal: those are
taken for 0 there. All formats take the scales that ModelOpt and vLLM take.
"""

from dataclasses import dataclass

import numpy as np

from appliance.checkpoint.formats import GROUPS, Format, Recipe
from appliance.checkpoint.quantise.rounding import Bytes, Floats, Grid, e2m1, e4m3

SMALLEST = np.float32(2.0**-126)  # of the normal numbers of float32
SMALLEST_E4M3 = np.float32(2.0**-9)


@dataclass(frozen=True)
class Scaled:
    """Some rows: ``numbers`` times ``units`` are the matrix; ``scales`` is written for them.

    A unit stands for as many numbers of a row, side by side, as there are more of those.
    """

    numbers: Floats
    units: Floats
    scales: bytes

    def restored(self, rounded: Floats) -> Floats:
        """Return what the rounded numbers stand for."""
        return rounded * _spread(self.units, rounded.shape[1])


def grid_of(kind: Format) -> Grid:
    """Return the type that a format's numbers are rounded to."""
    return e2m1() if kind is Format.NVFP4 else e4m3()


def scaled(rows: Floats, recipe: Recipe) -> Scaled:
    """Return rows of a matrix, divided by the scales that the recipe gives them."""
    match recipe.format:
        case Format.PER_CHANNEL:
            return _by_row(rows)
        case Format.MXFP8:
            return _by_power_of_two(rows)
        case Format.FP8:
            unit = tensor_scale(recipe)
            return Scaled(rows / unit, np.full((1, 1), unit), b"")
        case Format.NVFP4:
            return _by_two_levels(rows, tensor_scale(recipe))


def tensor_scale(recipe: Recipe) -> np.float32:
    """Return the scale of a whole matrix."""
    if recipe.format is Format.NVFP4:
        return _scale(recipe.largest, e2m1().largest * e4m3().largest, SMALLEST / SMALLEST_E4M3)
    return _scale(recipe.largest, e4m3().largest, SMALLEST)


def _scale(largest: float, most: float, least: np.float32) -> np.float32:
    return max(np.float32(largest) / np.float32(most), least)


def scalars(recipe: Recipe) -> bytes:
    """Return the scales that are single numbers, as they are written after all others."""
    match recipe.format:
        case Format.FP8:
            inputs = _scale(recipe.largest_input, e4m3().largest, SMALLEST)
            return tensor_scale(recipe).tobytes() + inputs.tobytes()
        case Format.NVFP4:
            return tensor_scale(recipe).tobytes()
        case _:
            return b""


def _by_row(rows: Floats) -> Scaled:
    largest = np.abs(rows).max(axis=1, keepdims=True)
    units = np.maximum(largest / np.float32(e4m3().largest), SMALLEST)
    return Scaled(rows / units, units, units.tobytes())


def _by_power_of_two(rows: Floats) -> Scaled:
    bits = _largest(rows, GROUPS[Format.MXFP8]).view(np.uint32)
    # the largest of 1.f * 2**e is at most 448 = 1.75 * 2**8 times 2**(e - 8), or twice that
    exponents = (bits >> 23).astype(np.int32) - 8 + ((bits & 0x7FFFFF) > 0x600000)
    codes = np.maximum(exponents, 1).astype(np.uint32)  # 127 stands for 1
    units, inverse = (codes << 23).view(np.float32), ((254 - codes) << 23).view(np.float32)
    numbers = rows * _spread(inverse, rows.shape[1])
    return Scaled(numbers, units, codes.astype(np.uint8).tobytes())


def _by_two_levels(rows: Floats, whole: np.float32) -> Scaled:
    largest = _largest(rows, GROUPS[Format.NVFP4])
    wanted = largest / (np.float32(e2m1().largest) * whole)
    wanted[wanted == 0] = 1  # of nothing but zeros, as ModelOpt has it
    grid = e4m3()
    keys = grid.keys(np.clip(wanted, SMALLEST_E4M3, np.float32(grid.largest)))
    units = grid.values(keys) * whole
    return Scaled(rows / _spread(units, rows.shape[1]), units, grid.codes(keys).tobytes())


def _largest(rows: Floats, group: int) -> Floats:
    """Return the largest magnitude of each group of numbers side by side, a power of two."""
    flat = np.abs(rows).reshape(-1)
    while group > 1:  # ten times faster than a maximum over a short axis
        flat = np.maximum(flat[0::2], flat[1::2])
        group //= 2
    return flat.reshape(len(rows), -1)


def _spread(units: Floats, columns: int) -> Floats:
    """Return units of which there is one for each number of a row, or one for a whole row."""
    if units.shape[1] == 1:
        return units
    return np.repeat(units, columns // units.shape[1], axis=1)


def packed(codes: Bytes) -> Bytes:
    """Return pairs of 4-bit codes as bytes, the first of a pair in the lower half."""
    return codes[:, 0::2] | (codes[:, 1::2] << np.uint8(4))
