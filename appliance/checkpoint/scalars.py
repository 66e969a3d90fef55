"""The single numbers of a checkpoint (scales): read in few reads, and judged."""

import math
import re
import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise

from appliance.checkpoint.headers import Header, Tensor
from appliance.checkpoint.source import Source

GAP_BYTES = 16_384  # scalars so near to each other are read in one
SPAN_BYTES = 2**20
_FORMS = {"F32": "<f", "F64": "<d", "F16": "<e"}
_SCALAR_SHAPES = ((), (1,), (1, 1))
_SHARED = re.compile(r"(.+)\.w([13])\.(weight_scale_2|weight_global_scale)")


def is_scalar(tensor: Tensor) -> bool:
    """Tell whether a tensor is one number of a type that is read here."""
    return tensor.shape in _SCALAR_SHAPES and (tensor.dtype in _FORMS or tensor.dtype == "BF16")


def read_scalars(source: Source, name: str, header: Header) -> Iterator[tuple[str, float]]:
    """Yield name and value of every scalar of one file."""
    wanted = sorted((t for t in header.tensors if is_scalar(t)), key=lambda tensor: tensor.start)
    for group in _spans(wanted):
        start = group[0].start
        block = source.read(name, header.data_start + start, group[-1].stop - start)
        for tensor in group:
            raw = block[tensor.start - start : tensor.stop - start]
            yield tensor.name, _value(tensor.dtype, raw)


def strange(value: float) -> str:
    """Return why a scale cannot be right, "" when it can."""
    if not math.isfinite(value):
        return "is not finite"
    return "" if value > 0 else "is not above 0"


class PairedScales:
    """Compares the scales that two matrices of an expert share.

    The gate and the up projection, w1 and w3, are one matrix in vLLM, with one global scale.
    They may stand in two shards.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, float] = {}

    def add(self, name: str, value: float) -> str:
        """Return how a scale differs from its partner's, "" when it does not or has none yet."""
        match = _SHARED.fullmatch(name)
        if not match:
            return ""
        key = f"{match[1]}.{match[3]}"
        other = self._waiting.pop(key, None)
        if other is None:
            self._waiting[key] = value
            return ""
        if other == value:
            return ""
        return f"{name} is {value:.6g}, and that of w{4 - int(match[2])} is {other:.6g}"


def _value(dtype: str, raw: bytes) -> float:
    if dtype == "BF16":
        raw, dtype = b"\0\0" + raw, "F32"
    value: float = struct.unpack(_FORMS[dtype], raw)[0]
    return value


def _spans(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    if not tensors:
        return
    group = [tensors[0]]
    for before, tensor in pairwise(tensors):
        far = tensor.start - before.stop > GAP_BYTES
        if far or tensor.stop - group[0].start > SPAN_BYTES:
            yield group
            group = []
        group.append(tensor)
    yield group
