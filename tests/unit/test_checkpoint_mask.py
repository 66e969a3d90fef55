"""Finding a mask: sure where it can be, and refused with the numbers where it cannot."""

import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from appliance.checkpoint.failures import CheckpointError, MaskError
from appliance.checkpoint.mask import LayerMatch, correlation, judge
from appliance.checkpoint.match import Rows, pair, rounded

Matrix = NDArray[np.float32]
LAYERS, EXPERTS, KEPT, WIDTH = 62, 256, 192, 256
BIAS = tuple(8 + 0.1 * math.sin(7 * number) for number in range(EXPERTS))


def f32(matrix: Matrix, bias: tuple[float, ...] = ()) -> Rows:
    return Rows("F32", len(matrix), matrix.astype("<f4").tobytes(), bias)


def bf16(matrix: Matrix, bias: tuple[float, ...] = ()) -> Rows:
    return rounded(f32(matrix, bias))


@cache
def gate(layer: int) -> tuple[Matrix, list[int]]:
    """Return a layer's router, its rows as alike as real ones are, and who survives."""
    dice = np.random.default_rng(layer)
    common = dice.normal(size=WIDTH)  # real rows share a direction: a cosine of 0.3 between any two
    matrix = 0.65 * common + dice.normal(size=(EXPERTS, WIDTH))
    kept = sorted(dice.choice(EXPERTS, KEPT, replace=False).tolist())
    return matrix.astype("f4"), kept


def drifted(matrix: Matrix, cosine: float, layer: int) -> Matrix:
    """Return rows whose cosine with the given ones is about so much."""
    noise = np.random.default_rng(1000 + layer).normal(size=matrix.shape)
    lengths = np.linalg.norm(matrix, axis=1) / np.linalg.norm(noise, axis=1)
    sigma = math.sqrt(1 / cosine**2 - 1)
    moved: Matrix = (matrix + sigma * noise * lengths[:, None]).astype("f4")
    return moved


def match(layer: int, reference: Callable[[Matrix, list[int]], Rows]) -> LayerMatch:
    matrix, kept = gate(layer)
    matrix = matrix.copy()
    rows = reference(matrix, kept)  # which may change the source's
    source = f32(matrix, BIAS)
    return judge(layer, pair(source, rows), source, rows)


def bias_of(kept: list[int]) -> tuple[float, ...]:
    return tuple(BIAS[number] for number in kept)


REFERENCES: dict[str, tuple[str, Callable[[int], Callable[[Matrix, list[int]], Rows]]]] = {
    "exact": ("identical", lambda _: lambda m, kept: f32(m[kept], bias_of(kept))),
    "cast to BF16": ("as BF16", lambda _: lambda m, kept: bf16(m[kept], bias_of(kept))),
    "drifted": (
        "by angle",
        lambda layer: lambda m, kept: bf16(drifted(m[kept], 0.998, layer), bias_of(kept)),
    ),
    "noisy": (
        "by angle",
        lambda layer: lambda m, kept: f32(drifted(m[kept], 0.85, layer), bias_of(kept)),
    ),
}


@pytest.mark.parametrize("case", REFERENCES)
def test_a_reference_of_the_same_model_gives_all_62_layers_without_doubt(case: str) -> None:
    method, reference = REFERENCES[case]
    for layer in range(LAYERS):
        found = match(layer, reference(layer))
        assert (found.method, found.doubt) == (method, "")
        assert list(found.survivors) == gate(layer)[1]
        assert found.bias == "equal"


def test_a_shuffled_reference_is_refused_with_numbers() -> None:
    order = np.random.default_rng(5).permutation(KEPT)
    found = match(0, lambda m, kept: f32(m[kept][order]))
    assert sorted(found.survivors) == gate(0)[1]  # each row is found, and the order is not REAP's
    assert not found.monotone
    falls = sum(a >= b for a, b in pairwise(order))
    assert f"{falls} of 192 rows stand out of order" in found.doubt


def test_a_foreign_reference_is_refused_with_numbers() -> None:
    foreign = gate(99)[0][:KEPT]
    found = match(0, lambda m, kept: f32(foreign))
    assert "rows stand out of order" in found.doubt
    assert "as far as its next best" in found.doubt
    assert found.farthest > 0.3


def test_two_experts_that_are_twins_are_in_doubt() -> None:
    def twins(matrix: Matrix, kept: list[int]) -> Rows:
        matrix[kept[4] + 1] = matrix[kept[4]]
        return f32(matrix[kept])

    found = match(0, twins)
    assert "as far as its next best" in found.doubt


def test_biases_that_do_not_fit_are_a_doubt_even_when_the_rows_are_identical() -> None:
    found = match(0, lambda m, kept: f32(m[kept], tuple(reversed(bias_of(kept)))))
    assert found.method == "identical"
    assert "biases do not fit" in found.doubt


def test_biases_of_a_later_training_may_have_moved() -> None:
    def moved(matrix: Matrix, kept: list[int]) -> Rows:
        bias = tuple(b + 0.05 * math.cos(3 * n) for n, b in enumerate(bias_of(kept)))
        return bf16(drifted(matrix[kept], 0.998, 0), bias)

    found = match(0, moved)
    assert found.doubt == ""
    assert found.bias.startswith("correlation 0.8")


def test_an_uncut_bias_of_the_reference_is_told_and_no_doubt() -> None:
    found = match(0, lambda m, kept: f32(m[kept], BIAS))
    assert (found.bias, found.doubt) == ("not cut: 256 values", "")


def test_when_two_rows_want_the_same_partner_the_best_assignment_decides_in_doubt() -> None:
    matrix = np.eye(6, 16, dtype="f4")
    reference = matrix[[0, 1, 2]].copy()
    reference[1] = matrix[0] * 1.0 + matrix[1] * 0.9  # nearest to row 0, which row 0 has
    source, rows = f32(matrix), f32(reference)
    found = judge(0, pair(source, rows), source, rows)
    assert found.survivors == (0, 1, 2)
    assert "as far as its next best" in found.doubt


def test_without_numpy_a_mask_by_angle_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "numpy", None)
    matrix, kept = gate(0)
    with pytest.raises(MaskError, match="needs numpy") as caught:
        pair(f32(matrix), f32(drifted(matrix[kept], 0.998, 0)))
    assert "pip install numpy scipy" in caught.value.hint
    assert pair(f32(matrix), bf16(matrix[kept])).survivors == tuple(kept)  # these need none


def test_rows_of_another_width_or_more_of_them_are_refused_with_numbers() -> None:
    ones = np.ones((4, 8), "f4")
    with pytest.raises(MaskError, match="5 rows of 8 numbers, and the source 4 of 8"):
        pair(f32(ones), f32(np.ones((5, 8), "f4")))
    with pytest.raises(MaskError, match="4 rows of 9 numbers, and the source 4 of 8"):
        pair(f32(ones), f32(np.ones((4, 9), "f4")))
    with pytest.raises(CheckpointError, match="type I8"):
        pair(Rows("I8", 4, bytes(32)), f32(ones))


@pytest.mark.parametrize("broken", [math.nan, 0.0])
def test_rows_without_a_direction_are_in_doubt_and_no_crash(broken: float) -> None:
    def spoil(matrix: Matrix, kept: list[int]) -> Rows:
        rows = drifted(matrix[kept], 0.998, 0)
        rows[7] = broken
        return f32(rows)

    assert match(0, spoil).doubt


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=64))
def test_rounding_to_bf16_is_numpys_to_the_nearest_and_to_even(words: list[int]) -> None:
    values = np.array(words, "<u4").view("<f4")
    values = values[np.isfinite(values)]
    if not len(values):
        return
    ours = np.frombuffer(rounded(f32(values.reshape(1, -1))).data, "<u2")
    for value, half in zip(values, ours, strict=True):
        low = int(half) - 1, int(half), int(half) + 1
        near = [
            abs(np.array([h << 16], "<u4").view("<f4").astype("f8")[0] - float(value))
            for h in low
            if 0 <= h < 2**16
        ]
        finite = [distance for distance in near if math.isfinite(distance)]
        own = np.array([int(half) << 16], "<u4").view("<f4").astype("f8")[0]
        assert math.isinf(own) or abs(own - float(value)) <= min(finite)


@settings(max_examples=50)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30))
def test_a_correlation_is_between_minus_one_and_one(values: list[float]) -> None:
    assert -1.000001 <= correlation(values, list(reversed(values))) <= 1.000001


def test_correlation_of_equals_is_one_and_of_constants_none() -> None:
    assert correlation([1, 2, 4], [1, 2, 4]) == pytest.approx(1.0)
    assert correlation([1, 1, 1], [1, 2, 3]) == 0.0
