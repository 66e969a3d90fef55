"""Finds a mask: which experts of each layer does a pruned reference still have?

An expert's row in the router is its name: pruning keeps the rows of those that stay, in order.
Only the routers are read, a layer at a time: 0.3 GB of two models of 200 GB.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

from appliance.checkpoint.bar import Bar
from appliance.checkpoint.failures import CheckpointError, MaskError
from appliance.checkpoint.headers import Header, Tensor, read_headers
from appliance.checkpoint.jobs import in_order
from appliance.checkpoint.layout import Layout, read_layout
from appliance.checkpoint.maskfile import Mask
from appliance.checkpoint.match import SEPARATION, Pairing, Rows, pair
from appliance.checkpoint.source import Source
from appliance.checkpoint.tensornames import GATE, GATE_BIAS

# Below this correlation the biases of so many pairs are no more alike than chance allows.
ALIKE = 0.3


@dataclass(frozen=True)
class LayerMatch:
    """One layer's pairing, and why it is in doubt ("" for a sure one).

    ``farthest`` and ``nearest`` are cosine distances: of the farthest pair chosen, and of the
    nearest one not chosen. ``bias`` says what the correction biases tell of the pairing.
    """

    layer: int
    method: str
    survivors: tuple[int, ...]
    farthest: float
    nearest: float
    share: float
    monotone: bool
    bias: str
    doubt: str


@dataclass(frozen=True)
class Found:
    """A mask, and how sure each layer of it is."""

    mask: Mask
    layers: tuple[LayerMatch, ...]

    @property
    def doubts(self) -> list[str]:
        """Return a line for each layer in doubt."""
        return [f"layer {match.layer}: {match.doubt}" for match in self.layers if match.doubt]


def find_mask(
    source: Source, layout: Layout, reference: Source, retained: int | None, jobs: int
) -> Found:
    """Return the mask that makes ``reference`` of ``source``; ``jobs`` reads at a time.

    Raises MaskError when the two are not models of one kind. Doubts are told, not raised.
    """
    theirs = read_layout(reference)
    if theirs.layers != layout.layers:
        raise MaskError(
            f"{reference.label} has {theirs.layers} layers, and {source.label} {layout.layers}",
            "REF must be pruned from SRC's model",
        )
    original_gates = Gates(source, layout, jobs)
    reference_gates = Gates(reference, theirs, jobs)

    def read(layer: int) -> tuple[Rows, Rows]:
        return original_gates.rows(layer), reference_gates.rows(layer)

    def stop() -> None:
        source.stop()
        reference.stop()

    with Bar("comparing routers", layout.layers, unit="layers") as bar:
        matches = []
        for layer, both in enumerate(in_order(read, range(layout.layers), jobs, stop)):
            rows, others = both
            if others.count != (retained or others.count) or others.count != theirs.experts:
                raise MaskError(
                    f"{reference.label} has {others.count} router rows in layer {layer}, "
                    f"{theirs.experts} in its config, and {retained} are wanted",
                    "--num-retained-experts must be what REF has",
                )
            matches.append(judge(layer, pair(rows, others), rows, others))
            bar.add(1)
    every = {*range(layout.experts)}
    gone = tuple(tuple(sorted(every - {*match.survivors})) for match in matches)
    return Found(Mask(layout.experts, gone), tuple(matches))


def judge(layer: int, pairing: Pairing, source: Rows, reference: Rows) -> LayerMatch:
    """Return the pairing with its doubts. Pure."""
    survivors = pairing.survivors
    falls = sum(a >= b for a, b in pairwise(survivors))
    bias, differs = _compare_bias(survivors, source.bias, reference.bias, pairing.method)
    doubts = []
    if falls:
        doubts.append(f"{falls} of {len(survivors)} rows stand out of order, and pruning keeps it")
    if pairing.share > SEPARATION:
        doubts.append(
            f"a row at distance {pairing.farthest:.3g} is {pairing.share:.0%} as far as its next "
            f"best, {SEPARATION:.0%} at most would be sure"
        )
    if differs:
        doubts.append(f"the correction biases do not fit: {bias}")
    return LayerMatch(
        layer=layer,
        method=pairing.method,
        survivors=survivors,
        farthest=pairing.farthest,
        nearest=pairing.nearest,
        share=pairing.share,
        monotone=not falls,
        bias=bias,
        doubt="; ".join(doubts),
    )


def _compare_bias(
    survivors: Sequence[int], source: Sequence[float], reference: Sequence[float], method: str
) -> tuple[str, bool]:
    """Return what the biases say, and whether that is against the pairing."""
    if not source or not reference:
        return "none", False
    if len(reference) != len(survivors):
        return f"not cut: {len(reference)} values", False
    ours = [source[row] for row in survivors]
    if all(
        math.isclose(a, b, rel_tol=2**-8, abs_tol=1e-30)
        for a, b in zip(ours, reference, strict=True)
    ):
        return "equal", False
    alike = correlation(ours, reference)
    said = f"correlation {alike:.2f}"
    return said, method != "by angle" or alike < ALIKE


def correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Pearson's correlation; 0 when either does not vary."""
    a, b = fmean(first), fmean(second)
    over = math.fsum((x - a) * (y - b) for x, y in zip(first, second, strict=True))
    under = math.sqrt(
        math.fsum((x - a) ** 2 for x in first) * math.fsum((y - b) ** 2 for y in second)
    )
    return over / under if under > 0 and math.isfinite(over) else 0.0


class _Place(NamedTuple):
    shard: str
    offset: int
    tensor: Tensor


class Gates:
    """The routers of one checkpoint; of its other tensors nothing is looked at."""

    def __init__(self, source: Source, layout: Layout, jobs: int = 1) -> None:
        self._source = source
        self.weights: dict[int, _Place] = {}
        self.biases: dict[int, _Place] = {}
        shards = _shards_with_gates(layout)
        with Bar(f"reading headers of {source.label}", len(shards), unit="shards") as bar:
            for shard, header in zip(shards, read_headers(source, shards, jobs), strict=True):
                self._note(shard, header)
                bar.add(1)

    def _note(self, shard: str, header: Header) -> None:
        for tensor in header.tensors:
            place = _Place(shard, header.data_start + tensor.start, tensor)
            if match := GATE.fullmatch(tensor.name):
                self.weights[int(match[1])] = place
            elif match := GATE_BIAS.fullmatch(tensor.name):
                self.biases[int(match[1])] = place

    def rows(self, layer: int) -> Rows:
        """Return one layer's router. Raises CheckpointError when there is none to read."""
        if layer not in self.weights:
            raise CheckpointError(
                f"{self._source.label} has no router weights of layer {layer}",
                "its gates must be stored as block_sparse_moe.gate.weight, not quantised",
                code="checkpoint_experts",
            )
        tensor = self.weights[layer].tensor
        if len(tensor.shape) != 2 or not tensor.size:
            raise CheckpointError(f"{tensor.name} has the shape {list(tensor.shape)}")
        bias = self._numbers(layer) if layer in self.biases else ()
        return Rows(tensor.dtype, tensor.shape[0], self._bytes(self.weights[layer]), bias)

    def _numbers(self, layer: int) -> tuple[float, ...]:
        dtype, data = self.biases[layer].tensor.dtype, self._bytes(self.biases[layer])
        if dtype == "BF16":
            data = b"".join(b"\0\0" + data[at : at + 2] for at in range(0, len(data), 2))
        elif dtype != "F32":
            return ()
        return struct.unpack(f"<{len(data) // 4}f", data)

    def _bytes(self, place: _Place) -> bytes:
        return self._source.read(place.shard, place.offset, place.tensor.size)


def _shards_with_gates(layout: Layout) -> Sequence[str]:
    if not layout.shard_of:
        return layout.shards
    named: Mapping[str, str] = layout.shard_of
    wanted = {
        shard for name, shard in named.items() if GATE.fullmatch(name) or GATE_BIAS.fullmatch(name)
    }
    return sorted(wanted)
