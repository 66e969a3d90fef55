"""The matrices that are quantised: attention's four of each layer, and the head. Pure."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.formats import GROUPS, Format, Matrix
from appliance.checkpoint.headers import Header, Tensor

HEAD = "lm_head"
ATTENTION = ("q", "k", "v", "o")
FUSED = ("q", "k", "v")  # one matrix in vLLM: they must have one format
_HEAD = (-1, HEAD)
_ATTENTION = re.compile(
    r"((?:[a-z_]+\.)*layers\.(0|[1-9][0-9]{0,5})\.self_attn)\.([qkvo])_proj\.weight"
)
_HINT = "only attention in BF16 under q_proj, k_proj, v_proj and o_proj can be quantised"


class Projection(NamedTuple):
    """A matrix and what it is: ``kind`` is q, k, v, o or the head, whose ``layer`` is -1."""

    module: str
    kind: str
    layer: int
    matrix: Matrix

    @property
    def tensor(self) -> str:
        """Return the name of its tensor."""
        return f"{self.module}.weight"


class Choice(NamedTuple):
    """What is to be quantised, and how. ``layers`` None: all."""

    kind: Format
    layers: frozenset[int] | None = None
    head: bool = False

    def takes(self, layer: int) -> bool:
        """Tell whether a layer is chosen; -1 is the head."""
        return self.head if layer < 0 else self.layers is None or layer in self.layers


class Found(NamedTuple):
    """What was chosen, by layer, q before k, v and o, the head last; and all other modules.

    ``head`` is the head's matrix, chosen or not; None for one that is not in BF16.
    """

    chosen: list[Projection]
    others: list[str]
    head: Matrix | None


def find_projections(headers: Iterable[tuple[str, Header]], layers: int, choice: Choice) -> Found:
    """Return what ``choice`` chooses.

    Raises CheckpointError for a matrix that is missing, or not of a kind that can be quantised.
    """
    found: dict[tuple[int, str], Projection] = {}
    others: list[str] = []
    head: Matrix | None = None
    for shard, header in headers:
        for tensor in header.tensors:
            place = _place(tensor.name)
            if place is None:
                continue
            start = header.data_start + tensor.start
            if place == _HEAD and tensor.dtype == "BF16" and len(tensor.shape) == 2:
                head = Matrix(shard, start, *tensor.shape)
            if choice.takes(place[0]):
                found[place] = _projection(tensor, place, shard, start, choice.kind)
            else:
                others.append(tensor.name.removesuffix(".weight"))
    wanted = [*_wanted(layers, choice)]
    if missing := [place for place in wanted if place not in found]:
        layer, kind = missing[0]
        what = HEAD if kind == HEAD else f"layer {layer}'s {kind}_proj"
        raise CheckpointError(
            f"{len(missing)} of {len(wanted)} matrices are not there, {what}.weight for one",
            _HINT,
            code="checkpoint_attention",
        )
    return Found([found[place] for place in wanted], sorted(others), head)


def by_format(projections: Iterable[Projection]) -> list[list[Projection]]:
    """Return what must share a format: q, k and v of a layer, all others alone."""
    together: dict[tuple[int, str], list[Projection]] = {}
    for one in projections:
        key = "qkv" if one.kind in FUSED else one.kind
        together.setdefault((one.layer, key), []).append(one)
    return [*together.values()]


def _wanted(layers: int, choice: Choice) -> Iterator[tuple[int, str]]:
    for layer in range(layers):
        if choice.takes(layer):
            yield from ((layer, kind) for kind in ATTENTION)
    if choice.head:
        yield _HEAD


def _place(name: str) -> tuple[int, str] | None:
    """Return layer and kind of a matrix of attention, or of the head; None for other tensors."""
    if name == f"{HEAD}.weight":
        return _HEAD
    match = _ATTENTION.fullmatch(name)
    return (int(match[2]), match[3]) if match else None


def _projection(
    tensor: Tensor, place: tuple[int, str], shard: str, start: int, kind: Format
) -> Projection:
    if tensor.dtype != "BF16":
        raise _strange(tensor, f"is {tensor.dtype}, and not BF16: is it quantised already?")
    if len(tensor.shape) != 2 or 0 in tensor.shape:
        raise _strange(tensor, f"has the shape {list(tensor.shape)}, and is no matrix")
    if tensor.shape[1] % (group := max(GROUPS[kind], 2)):
        raise _strange(tensor, f"has {tensor.shape[1]} columns, no multiple of {group}")
    module = tensor.name.removesuffix(".weight")
    return Projection(module, place[1], place[0], Matrix(shard, start, *tensor.shape))


def _strange(tensor: Tensor, what: str) -> CheckpointError:
    return CheckpointError(f"{tensor.name} {what}", _HINT, code="checkpoint_attention")
