"""Rounding to e4m3 and e2m1: the nearest, halves to even, told by exact fractions."""

import math
import struct
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.checkpoint.quantise.rounding import NOT_A_NUMBER, Grid, e2m1, e4m3

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
SMALL = st.floats(-512, 512, width=32)
E2M1 = [Fraction(n, 2) for n in (0, 1, 2, 3, 4, 6, 8, 12)]
E4M3 = [
    (8 * bool(exponent) + fraction) * Fraction(2) ** (max(exponent, 1) - 10)
    for exponent in range(16)
    for fraction in range(8)
]  # the last stands for no number: what is nearer to it than to 448 does not fit


def nearest(number: float, magnitudes: list[Fraction]) -> int:
    """Return the code of the nearest magnitude, of two the even one."""
    exact = abs(Fraction(number))
    return min(range(len(magnitudes)), key=lambda code: (abs(magnitudes[code] - exact), code % 2))


def codes(grid: Grid, numbers: Iterable[float]) -> list[int]:
    keys = grid.keys(np.array([*numbers], dtype=np.float32))
    return [int(code) for code in grid.codes(keys)]


def values(grid: Grid, numbers: Iterable[float]) -> list[float]:
    return [float(v) for v in grid.values(grid.keys(np.array([*numbers], dtype=np.float32)))]


@given(st.lists(FLOATS | SMALL, min_size=1, max_size=50))
def test_every_number_is_rounded_to_the_nearest_of_e4m3(numbers: list[float]) -> None:
    for number, code in zip(numbers, codes(e4m3(), numbers), strict=True):
        assert code & 0x7F == nearest(number, E4M3)
        assert code >> 7 == (math.copysign(1, number) < 0)


@given(st.lists(FLOATS | st.floats(-8, 8, width=32), min_size=1, max_size=50))
def test_every_number_is_rounded_to_the_nearest_of_e2m1(numbers: list[float]) -> None:
    for number, code in zip(numbers, codes(e2m1(), numbers), strict=True):
        assert code & 0x7 == nearest(number, E2M1)
        assert code >> 3 == (math.copysign(1, number) < 0)


def neighbours(number: float) -> list[float]:
    """Return a float32 and the two beside it."""
    return [
        number,
        *(float(np.nextafter(np.float32(number), np.float32(to))) for to in (-1e30, 1e30)),
    ]


@pytest.mark.parametrize("magnitudes", [E4M3, E2M1], ids=["e4m3", "e2m1"])
def test_on_each_border_and_one_step_beside_it_the_code_is_right(
    magnitudes: list[Fraction],
) -> None:
    grid = e4m3() if magnitudes is E4M3 else e2m1()
    borders = [float(a + b) / 2 for a, b in pairwise(magnitudes)]
    numbers = [near for border in borders for near in neighbours(border)]
    said = [nearest(number, magnitudes) for number in numbers]
    assert codes(grid, numbers) == said


@pytest.mark.parametrize("magnitudes", [E4M3[:-1], E2M1], ids=["e4m3", "e2m1"])
def test_what_fits_stays_as_it_is(magnitudes: list[Fraction]) -> None:
    grid = e4m3() if len(magnitudes) > 8 else e2m1()
    exact = [float(value) for value in magnitudes]
    assert values(grid, exact) == exact
    assert codes(grid, exact) == [*range(len(exact))]
    negative = [-value for value in exact]
    assert values(grid, negative) == negative


@pytest.mark.parametrize("number", [464.1, 480.0, 1e30, math.inf, math.nan])
def test_what_does_not_fit_into_e4m3_becomes_no_number(number: float) -> None:
    assert codes(e4m3(), [number, 464.0]) == [NOT_A_NUMBER, NOT_A_NUMBER - 1]
    assert math.isnan(values(e4m3(), [number])[0])
    assert codes(e4m3(), [-abs(number)]) == [NOT_A_NUMBER | 0x80]


def test_e2m1_saturates_but_no_number_stays_none() -> None:
    assert values(e2m1(), [6.5, 1e30, math.inf, -1e30]) == [6, 6, 6, -6]
    assert math.isnan(values(e2m1(), [math.nan])[0])


def test_a_signalling_no_number_is_none_too() -> None:
    raw = np.frombuffer(struct.pack("<I", 0x7F800001), dtype=np.float32)
    assert codes(e4m3(), raw) == [NOT_A_NUMBER]
