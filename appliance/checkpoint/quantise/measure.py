"""Says how far a quantised matrix is from what it was, and how large its numbers are."""

import math

import numpy as np
import numpy.typing as npt

from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.formats import Recipe
from appliance.checkpoint.projections import Projection
from appliance.checkpoint.quantise.encode import blocks
from appliance.checkpoint.quantise.scaling import grid_of, scaled
from appliance.checkpoint.source import Source
from appliance.checkpoint.surveyed import Error

Doubles = npt.NDArray[np.float64]


def largest(source: Source, one: Projection) -> float:
    """Return the largest magnitude of a matrix.

    Raises CheckpointError naming its tensor when a number of it is none, or infinite.
    """
    most, first = 0.0, 0
    for rows in blocks(source, one.matrix):
        by_row = np.abs(rows).max(axis=1)  # not a number, where there is one
        _require(np.isfinite(by_row), one, first, "has a number that is not finite")
        most = max(most, float(by_row.max()))
        first += len(rows)
    return most


def error(source: Source, one: Projection, recipe: Recipe) -> Error:
    """Return how far a matrix is from what ``recipe`` makes of it.

    Raises CheckpointError naming its tensor when a number of it is none, or infinite, or does
    not fit into the format.
    """
    grid = grid_of(recipe.format)
    own, missed, along = 0.0, 0.0, 0.0  # |W|**2, |W - Q|**2, and W times W - Q
    worst, worst_row, first = 0.0, 0, 0
    for rows in blocks(source, one.matrix):
        largest_by_row = np.abs(rows).max(axis=1)
        _require(np.isfinite(largest_by_row), one, first, "has a number that is not finite")
        there = scaled(rows, recipe)
        restored = there.restored(grid.values(grid.keys(there.numbers)))
        exact = rows.astype(np.float64)
        away = exact - restored
        squares, misses = _dots(exact, exact), _dots(away, away)
        what = f"does not fit into {recipe.format}: a number saturates"
        _require(np.isfinite(misses), one, first, what)
        own, missed = own + float(squares.sum()), missed + float(misses.sum())
        along += float(_dots(exact, away).sum())
        shares = misses / np.where(squares > 0, squares, 1)
        if (share := float(shares.max())) > worst:
            worst, worst_row = share, first + int(shares.argmax())
        first += len(rows)
    if not own:
        return Error(0.0, 1.0, 0, 0.0)
    both, quantised = own - along, own - 2 * along + missed
    cosine = both / math.sqrt(own * quantised) if quantised > 0 else 0.0
    return Error(math.sqrt(missed / own), cosine, worst_row, math.sqrt(worst))


def _require(fine: npt.NDArray[np.bool_], one: Projection, first: int, what: str) -> None:
    if not fine.all():
        raise CheckpointError(
            f"{one.tensor}, row {first + int(fine.argmin())}, {what}",
            "fetch the shard again; if it is so at the origin, leave its layer out with --layers",
            code="not_quantisable",
        )


def _dots(left: Doubles, right: Doubles) -> Doubles:
    """Return the scalar product of each row with its partner."""
    products: Doubles = np.einsum("ij,ij->i", left, right)
    return products
