"""Rounds numbers to e4m3 and e2m1, to the nearest and halves to even, by a table.

A float32 is cut to its upper 16 bits, the last of them set when anything was cut off ("rounded to
odd"). No border between two numbers of either type needs more than 6 of the 8 bits of precision
that stay, so the nearest neighbour of what stays is the one of the number itself: a table of
65,536 entries knows it.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

NOT_A_NUMBER = 0x7F  # of e4m3: also what is too large for it
_INFINITY = 0x7F80  # the upper half of a float32's; what is above is no number


class Grid:
    """A type of few bits: the magnitudes of its codes, ascending from 0.

    ``saturates``: what is larger than all becomes the largest; otherwise a code past the last.
    """

    def __init__(self, magnitudes: npt.NDArray[np.float64], sign: int, *, saturates: bool) -> None:
        self.largest = float(magnitudes[-1])
        codes = _codes(magnitudes, saturates=saturates)
        known = np.append(magnitudes, np.nan).astype(np.float32)
        self._codes = np.concatenate([codes, codes | sign]).astype(np.uint8)
        self._values = np.concatenate([known[codes], -known[codes]])

    def keys(self, numbers: Floats) -> npt.NDArray[np.intp]:
        """Return where in the tables each number stands."""
        bits = numbers.view(np.uint32)
        keys = bits & np.uint32(0xFFFF)
        keys += np.uint32(0xFFFF)  # carries into the upper half when anything is cut off
        keys |= bits
        keys >>= np.uint32(16)
        return keys.astype(np.intp)

    def codes(self, keys: npt.NDArray[np.intp]) -> Bytes:
        """Return the code of each number."""
        return self._codes.take(keys)

    def values(self, keys: npt.NDArray[np.intp]) -> Floats:
        """Return what each number is rounded to; not a number for what does not fit."""
        return self._values.take(keys)


def _codes(magnitudes: npt.NDArray[np.float64], *, saturates: bool) -> npt.NDArray[np.uint8]:
    """Return the code of each of the 32,768 numbers of 16 bits without a sign."""
    numbers = (np.arange(_INFINITY, dtype=np.uint32) << np.uint32(16)).view(np.float32)
    step = magnitudes[-1] - magnitudes[-2]
    borders = (magnitudes + np.append(magnitudes[1:], magnitudes[-1] + step)) / 2
    codes = np.searchsorted(borders, numbers)  # on a border: the smaller of its neighbours
    on_border = np.isin(numbers, borders)
    codes += on_border & (codes % 2 == 1)
    most = len(magnitudes) - 1 if saturates else len(magnitudes)
    codes = np.append(np.minimum(codes, most), most)  # infinity is too large, like others
    return np.append(codes, np.full(2**15 - len(codes), len(magnitudes))).astype(np.uint8)


@cache
def e4m3() -> Grid:
    """Return the 8-bit type of 4 exponent bits and 3 of precision; the largest is 448."""
    codes = np.arange(NOT_A_NUMBER)
    exponents, fractions = codes // 8, codes % 8 / 8
    normal = (1 + fractions) * 2.0 ** (exponents - 7)
    return Grid(np.where(exponents == 0, fractions * 2.0**-6, normal), 0x80, saturates=False)


@cache
def e2m1() -> Grid:
    """Return the 4-bit type, of which the largest is 6."""
    return Grid(np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6]), 0x8, saturates=True)
