"""How large what a matrix is multiplied with can become at most, told by the weights alone.

A format with one scale for all activations wants it on the disk; others take it from data that
people calibrate with. None is needed. What enters q, k and v is a norm's output: of d numbers x
with a root mean square of 1 none is above sqrt(d), and each is then multiplied by the norm's weight
w. What enters o is a mean of rows of V (w x), where by Cauchy and Schwarz none is above
|V w| |x| = |V w| sqrt(d). No activation saturates, and 8 bits of floating point have room below.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.headers import Header
from appliance.checkpoint.projections import HEAD, Projection
from appliance.checkpoint.quantise.encode import blocks, widened
from appliance.checkpoint.quantise.rounding import Floats
from appliance.checkpoint.source import Source

_NORM = re.compile(r"(?:[a-z_]+\.)*(?:layers\.[0-9]{1,6}\.input_layernorm|norm)\.weight")
_FINAL = re.compile(r"(?:[a-z_]+\.)*norm\.weight")


class _Place(NamedTuple):
    shard: str
    offset: int
    size: int
    dtype: str


class Norms:
    """Where the norms before attention and before the head are."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}

    def look(self, shard: str, header: Header) -> None:
        """Remember the norms of one file."""
        for tensor in header.tensors:
            if _NORM.fullmatch(tensor.name):
                place = _Place(shard, header.data_start + tensor.start, tensor.size, tensor.dtype)
                self._places[tensor.name] = place

    def before(self, source: Source, one: Projection) -> Floats:
        """Return the weights of the norm whose output enters a matrix: for o, that enters v."""
        if one.kind == HEAD:
            names = [name for name in self._places if _FINAL.fullmatch(name)]
        else:
            names = [one.module.rpartition("self_attn")[0] + "input_layernorm.weight"]
        place = self._places.get(names[0]) if len(names) == 1 else None
        if place is None or place.dtype not in ("BF16", "F32"):
            raise CheckpointError(
                f"the norm before {one.module} is not there in BF16 or F32",
                "fp8 needs it for the scale of the activations; fp8-per-channel does not",
                code="checkpoint_attention",
            )
        content = source.read(place.shard, place.offset, place.size)
        if place.dtype == "F32":
            weights: Floats = np.frombuffer(content, np.dtype("<f4"))
            return weights
        return widened(content, place.size // 2).reshape(-1)


def input_bounds(source: Source, norms: Norms, layer: Sequence[Projection]) -> Mapping[str, float]:
    """Return by module the most that can enter each matrix of a layer, or the head."""
    weights = norms.before(source, layer[0])
    reach = math.sqrt(len(weights))
    by_kind = {one.kind: one for one in layer}
    bounds = {one.module: reach * float(np.abs(weights).max()) for one in layer}
    if output := by_kind.get("o"):
        bounds[output.module] = reach * _largest_row(source, by_kind["v"], weights)
    if wrong := [module for module, bound in bounds.items() if not math.isfinite(bound)]:
        raise CheckpointError(
            f"the norm before {wrong[0]} has a number that is not finite",
            "fetch the shard again; if it is so at the origin, leave its layer out with --layers",
            code="not_quantisable",
        )
    return bounds


def _largest_row(source: Source, value: Projection, weights: Floats) -> float:
    """Return the largest norm of a row of a matrix whose columns are multiplied by weights."""
    most = 0.0
    for rows in blocks(source, value.matrix):
        weighed = (rows * weights).astype(np.float64)
        most = max(most, float(np.einsum("ij,ij->i", weighed, weighed).max()))
    return math.sqrt(most)
