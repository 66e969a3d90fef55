"""Which rows of a router are which rows of another: by bytes, rounded, or by angle.

The first two need the standard library alone; numpy is loaded when rows are merely alike, scipy
when two of them want the same partner.
"""

import importlib
import math
from array import array
from dataclasses import dataclass
from typing import Any, NamedTuple

from appliance.checkpoint.failures import CheckpointError, MaskError

# A chosen pair must be nearer than this share of the next best: else which of the two is chance.
SEPARATION = 0.75
NOISE = 1e-6  # of the cosine of equals: two twins at 1e-9 and 1e-12 are not apart
_UNITS = {"BF16": "H", "F32": "I", "F16": "H"}


@dataclass(frozen=True)
class Rows:
    """A router: ``count`` rows of equal length. ``bias`` has a number for each, or is empty."""

    dtype: str
    count: int
    data: bytes
    bias: tuple[float, ...] = ()

    @property
    def stride(self) -> int:
        """Return the bytes of a row."""
        return len(self.data) // self.count

    @property
    def width(self) -> int:
        """Return the numbers in a row."""
        return self.stride // array(_UNITS[self.dtype]).itemsize

    def texts(self) -> list[bytes]:
        """Return each row's bytes."""
        step = self.stride
        return [self.data[row * step : (row + 1) * step] for row in range(self.count)]


class Pairing(NamedTuple):
    """``survivors[i]`` is the source's row of the reference's row ``i``.

    Distances are cosine ones: of the farthest pair chosen, of the nearest pair not chosen, and
    the largest share that a chosen one is of its row's next best.
    """

    method: str
    survivors: tuple[int, ...]
    farthest: float
    nearest: float
    share: float


def pair(source: Rows, reference: Rows) -> Pairing:
    """Return the best pairing. Raises MaskError when the two cannot be compared."""
    for rows in (source, reference):
        if rows.dtype not in _UNITS:
            raise CheckpointError(
                f"a router of type {rows.dtype} is not understood", "it must be BF16, F16 or F32"
            )
    if source.width != reference.width or reference.count > source.count:
        raise MaskError(
            f"the reference has {reference.count} rows of {reference.width} numbers, and the "
            f"source {source.count} of {source.width}",
            "REF must be pruned from SRC's model",
        )
    if source.dtype == reference.dtype and (
        same := _equal(source.texts(), reference.texts(), "identical")
    ):
        return same
    if "F16" not in (source.dtype, reference.dtype) and (
        same := _equal(rounded(source).texts(), rounded(reference).texts(), "as BF16")
    ):
        return same
    return _nearest(source, reference)


def rounded(rows: Rows) -> Rows:
    """Return F32 rows as BF16, rounded to the nearest, ties to even; BF16 as they are."""
    if rows.dtype == "BF16":
        return rows
    words = array("I", rows.data)
    halves = array("H", [min(word + 0x7FFF + (word >> 16 & 1), 0xFFFFFFFF) >> 16 for word in words])
    return Rows("BF16", rows.count, halves.tobytes(), rows.bias)


def _equal(source: list[bytes], reference: list[bytes], method: str) -> Pairing | None:
    """Pair equal rows; None when a row has no partner, or two."""
    place = {row: number for number, row in enumerate(source)}
    survivors = tuple(place.get(row, -1) for row in reference)
    if -1 in survivors or len(set(survivors)) != len(reference) or len(place) != len(source):
        return None
    return Pairing(method, survivors, 0.0, math.nan, 0.0)


def _nearest(source: Rows, reference: Rows) -> Pairing:
    np = _load("numpy")
    distances = 1.0 - _unit(np, reference) @ _unit(np, source).T
    distances = np.clip(np.nan_to_num(distances, nan=2.0), 0.0, 2.0)
    chosen = distances.argmin(axis=1)
    if len(set(chosen.tolist())) != reference.count:  # else the nearest are the best assignment
        chosen = _load("scipy.optimize").linear_sum_assignment(distances)[1]
    every = np.arange(reference.count)
    best = distances[every, chosen]
    others = distances.copy()
    others[every, chosen] = np.inf
    second = others.min(axis=1) if source.count > 1 else np.full(reference.count, 2.0)
    shares = (best + NOISE) / (second + NOISE)
    return Pairing(
        "by angle",
        tuple(int(row) for row in chosen),
        float(best.max()),
        float(second.min()),
        float(shares.max()),
    )


def _unit(np: Any, rows: Rows) -> Any:
    """Return rows of length 1, as float64: a cosine of near equals needs the digits."""
    if rows.dtype == "BF16":
        words = np.frombuffer(rows.data, "<u2").astype("<u4") << 16
        matrix = words.view("<f4").astype("f8")
    else:
        form = "<f4" if rows.dtype == "F32" else "<f2"
        matrix = np.frombuffer(rows.data, form).astype("f8")
    matrix = matrix.reshape(rows.count, -1)
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix / np.where(lengths > 0, lengths, np.nan)


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as cause:
        raise MaskError(
            f"the reference's routers differ from the source's, and comparing them needs {name}",
            "python3 -m pip install numpy scipy; a mask from a file needs neither",
        ) from cause
