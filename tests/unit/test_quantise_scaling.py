"""Scales and numbers of every format, held against the same said plainly in float64."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.checkpoint.formats import Format, Recipe
from appliance.checkpoint.quantise.rounding import e2m1, e4m3
from appliance.checkpoint.quantise.scaling import (
    grid_of,
    packed,
    scalars,
    scaled,
    tensor_scale,
)

ROWS, COLUMNS = 12, 96
TINY = 2.0**-126
Array = Any


def as_bf16(numbers: Array) -> Array:
    """Cut numbers to BF16, as float32: what a checkpoint has."""
    bits = np.asarray(numbers, dtype=np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)


def random_rows(dice: Any) -> Array:
    return dice.normal(0, 0.05, (ROWS, COLUMNS))


def heavy_tails(dice: Any) -> Array:
    return dice.standard_cauchy((ROWS, COLUMNS)) * 0.02


def zeros(_dice: Any) -> Array:
    return np.zeros((ROWS, COLUMNS))


def some_zero_rows(dice: Any) -> Array:
    rows = random_rows(dice)
    rows[::3] = 0
    rows[1, ::2] = -0.0
    return rows


def denormals(dice: Any) -> Array:
    return dice.integers(-128, 128, (ROWS, COLUMNS)) * 2.0**-133


def wide(dice: Any) -> Array:
    return dice.choice([-1, 1], (ROWS, COLUMNS)) * 2.0 ** dice.uniform(-130, 120, (ROWS, COLUMNS))


KINDS: list[Callable[[Any], Array]] = [
    random_rows, heavy_tails, zeros, some_zero_rows, denormals, wide,
]  # fmt: skip


def grid_values(kind: Format) -> Array:
    """Return the magnitudes that a number may become, in float64."""
    if kind is Format.NVFP4:
        return np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    keys = e4m3().keys(np.arange(0, 449, dtype=np.float32))
    assert np.isfinite(e4m3().values(keys)).all()
    steps = [m * 2.0**-9 for m in range(8)]
    return np.array(steps + [(1 + m / 8) * 2.0 ** (e - 7) for e in range(1, 16) for m in range(8)])


def units_of(rows: Array, kind: Format, most: float) -> Array:
    """Return each number's scale: float64 throughout, but where the format itself has less."""
    exact = rows.astype(np.float64)
    single = np.float32
    match kind:
        case Format.PER_CHANNEL:
            scale = np.abs(exact).max(axis=1, keepdims=True).astype(single) / single(448)
            return np.broadcast_to(np.maximum(scale, single(TINY)), rows.shape)
        case Format.FP8:
            return np.full(rows.shape, max(single(most) / single(448), single(TINY)))
        case Format.MXFP8:
            largest = np.abs(exact).reshape(ROWS, -1, 32).max(axis=2)
            powers = [
                [max(-126, math.ceil(math.log2(one / 448))) if one else -126 for one in row]
                for row in largest
            ]
            return np.repeat(2.0 ** np.array(powers, dtype=np.float64), 32, axis=1)
        case Format.NVFP4:
            whole = max(single(most) / single(6 * 448), single(2.0**-117))
            largest = np.abs(exact).reshape(ROWS, -1, 16).max(axis=2).astype(single)
            shares = largest / (single(6) * whole)
            wanted = np.clip(np.where(shares == 0, 1, shares), 2.0**-9, 448).astype(np.float64)
            known = grid_values(Format.FP8)[:-1]
            below = np.searchsorted(known, wanted, side="right") - 1
            above = np.minimum(below + 1, len(known) - 1)
            down, up = wanted - known[below], known[above] - wanted
            code = np.where((up < down) | ((up == down) & (above % 2 == 0)), above, below)
            return np.repeat(known[code].astype(single) * whole, 16, axis=1)


def reference(rows: Array, kind: Format, most: float) -> tuple[Array, Array]:
    """Return what rows become, and the unit of each number, number by number in float64."""
    units = units_of(rows, kind, most)
    shares = (rows / units.astype(np.float32)).astype(np.float64)  # the division is in float32
    known = grid_values(kind)
    known = known[:-1] if kind is not Format.NVFP4 else known
    size = np.abs(shares)
    above = np.clip(np.searchsorted(known, size), 1, len(known) - 1)
    down, up = size - known[above - 1], known[above] - size
    code = np.where((up < down) | ((up == down) & (above % 2 == 0)), above, above - 1)
    return np.copysign(known[code], shares) * units.astype(np.float64), units


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("kind", Format)
def test_the_numbers_that_are_written_are_the_references(
    kind: Format, make: Callable[[Any], Array]
) -> None:
    rows = as_bf16(make(np.random.default_rng(7)))
    most = float(np.abs(rows).max())
    recipe = Recipe(kind, ROWS, COLUMNS, most, 1.0)
    there = scaled(rows, recipe)
    grid = grid_of(kind)
    restored = there.restored(grid.values(grid.keys(there.numbers))).astype(np.float64)
    wanted, _ = reference(rows, kind, most)
    assert np.array_equal(restored, wanted.astype(np.float32).astype(np.float64))
    assert np.isfinite(restored).all()


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(Format),
    seed=st.integers(0, 10**6),
    exponent=st.integers(-100, 100),
    tail=st.floats(0.1, 4),
)
def test_no_number_is_further_off_than_half_a_step_of_its_format(
    kind: Format, seed: int, exponent: int, tail: float
) -> None:
    dice = np.random.default_rng(seed)
    sizes = np.exp(dice.normal(0, tail, (ROWS, COLUMNS))) * 2.0**exponent
    rows = as_bf16(np.clip(sizes, 2.0**-120, 2.0**120) * dice.choice([-1, 1], (ROWS, COLUMNS)))
    recipe = Recipe(kind, ROWS, COLUMNS, float(np.abs(rows).max()), 1.0)
    there = scaled(rows, recipe)
    grid = grid_of(kind)
    restored = there.restored(grid.values(grid.keys(there.numbers))).astype(np.float64)
    exact, units = rows.astype(np.float64), units_of(rows, kind, recipe.largest).astype(np.float64)
    if kind is Format.NVFP4:
        # a scale of the group may be rounded down by a sixteenth, and of very small groups more
        allowed = np.maximum(units, np.abs(exact) - 6 * units)
    else:
        allowed = np.maximum(np.abs(exact) / 16, units * 2.0**-10)
    assert (np.abs(restored - exact) <= allowed * (1 + 1e-6)).all()
    assert (np.sign(restored) * np.sign(exact) >= 0).all()


@pytest.mark.parametrize("kind", Format)
def test_a_part_of_the_rows_becomes_what_it_does_within_all_of_them(kind: Format) -> None:
    rows = as_bf16(heavy_tails(np.random.default_rng(3)))
    recipe = Recipe(kind, ROWS, COLUMNS, float(np.abs(rows).max()), 1.0)
    whole, parts = scaled(rows, recipe), [scaled(rows[:5], recipe), scaled(rows[5:], recipe)]
    assert np.array_equal(whole.numbers, np.concatenate([part.numbers for part in parts]))
    assert whole.scales == b"".join(part.scales for part in parts)


def test_a_scale_that_q_k_and_v_share_is_that_of_the_largest() -> None:
    for kind, most in ((Format.FP8, 448.0), (Format.NVFP4, 2688.0)):
        recipe = Recipe(kind, ROWS, COLUMNS, 2 * most, 448.0)
        assert tensor_scale(recipe) == 2.0
        assert len(scalars(recipe)) == (8 if kind is Format.FP8 else 4)


@given(st.binary(min_size=32, max_size=32))
def test_two_codes_a_byte_the_first_in_the_lower_half(raw: bytes) -> None:
    codes = np.frombuffer(raw, np.uint8).reshape(2, 16) & np.uint8(0xF)
    both = packed(codes)
    assert both.shape == (2, 8)
    assert np.array_equal(both & 0xF, codes[:, 0::2])
    assert np.array_equal(both >> 4, codes[:, 1::2])
    assert e2m1().largest == 6
