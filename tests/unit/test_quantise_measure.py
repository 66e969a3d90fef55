"""The errors that are told are those of the bytes that are written, however they are cut."""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.formats import Format, Matrix, Recipe
from appliance.checkpoint.projections import Projection
from appliance.checkpoint.quantise.measure import error, largest
from appliance.checkpoint.quantise.scaling import grid_of, scaled
from appliance.checkpoint.source import LocalSource

ROWS, COLUMNS, OFFSET = 37, 64, 10
NAME = "model.layers.0.self_attn.o_proj"
ONE = Projection(NAME, "o", 0, Matrix("data", OFFSET, ROWS, COLUMNS))


def written(folder: Path, numbers: Any) -> tuple[LocalSource, Any]:
    """Write numbers as BF16; return the source and what they are there, as float32."""
    halves = (np.asarray(numbers, np.float32).view(np.uint32) >> np.uint32(16)).astype("<u2")
    (folder / "data").write_bytes(bytes(OFFSET) + halves.tobytes())
    return LocalSource(folder), (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


def rows(seed: int) -> Any:
    dice = np.random.default_rng(seed)
    return dice.standard_t(3, (ROWS, COLUMNS)) * 0.02 * 2.0 ** dice.integers(-20, 20, (ROWS, 1))


@pytest.mark.parametrize("block", [1, 500, 2**19])
@pytest.mark.parametrize("kind", Format)
def test_the_error_is_that_of_the_whole_matrix_in_float64(
    tmp_path: Path, kind: Format, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.checkpoint.quantise.encode.BLOCK_BYTES", block)
    source, there = written(tmp_path, rows(5))
    most = largest(source, ONE)
    assert most == float(np.abs(there).max())
    recipe = Recipe(kind, ROWS, COLUMNS, most, 1.0)
    found = error(source, ONE, recipe)
    source.close()
    held, grid = scaled(there, recipe), grid_of(kind)
    exact = there.astype(np.float64)
    made = held.restored(grid.values(grid.keys(held.numbers))).astype(np.float64)
    by_row = np.linalg.norm(exact - made, axis=1) / np.linalg.norm(exact, axis=1)
    norms = np.linalg.norm(exact) * np.linalg.norm(made)
    assert found.relative == pytest.approx(np.linalg.norm(exact - made) / np.linalg.norm(exact))
    assert found.cosine == pytest.approx((exact * made).sum() / norms, rel=1e-9)
    assert found.worst_row == int(by_row.argmax())
    assert found.worst == pytest.approx(by_row.max())


def test_what_is_exact_has_no_error(tmp_path: Path) -> None:
    source, _ = written(tmp_path, np.full((ROWS, COLUMNS), 0.25))
    for kind in Format:
        found = error(source, ONE, Recipe(kind, ROWS, COLUMNS, 0.25, 1.0))
        assert found.relative < 1e-7
        assert found.cosine == pytest.approx(1)
    source.close()


def test_a_matrix_of_zeros_has_no_error(tmp_path: Path) -> None:
    source, _ = written(tmp_path, np.zeros((ROWS, COLUMNS)))
    for kind in Format:
        found = error(source, ONE, Recipe(kind, ROWS, COLUMNS, 0.0, 1.0))
        assert (found.relative, found.cosine, found.worst) == (0.0, 1.0, 0.0)
    source.close()


def test_a_number_that_saturates_is_refused_with_its_tensor_and_row(tmp_path: Path) -> None:
    numbers = np.full((ROWS, COLUMNS), 0.5)
    numbers[11, 3] = 2.0
    source, _ = written(tmp_path, numbers)
    # a scale for numbers up to 1 alone: as when another matrix's was taken for this one's
    with pytest.raises(CheckpointError, match=f"{NAME}.weight, row 11, does not fit into fp8"):
        error(source, ONE, Recipe(Format.FP8, ROWS, COLUMNS, 1.0, 1.0))
    source.close()


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused_by_both(tmp_path: Path, wrong: float) -> None:
    numbers = np.full((ROWS, COLUMNS), 0.5)
    source, _ = written(tmp_path, numbers)
    with (tmp_path / "data").open("r+b") as file:
        file.seek(OFFSET + 2 * (20 * COLUMNS + 7))
        file.write(struct.pack("<f", wrong)[2:])
    with pytest.raises(CheckpointError, match="row 20, has a number that is not finite"):
        largest(source, ONE)
    with pytest.raises(CheckpointError, match="row 20, has a number that is not finite"):
        error(source, ONE, Recipe(Format.MXFP8, ROWS, COLUMNS))
    source.close()
