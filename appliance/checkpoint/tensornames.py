"""What a tensor's name says: whose it is, and what becomes of it when experts go. Pure."""

import re
from collections.abc import Iterable
from sys import intern
from typing import NamedTuple

from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.headers import Tensor

_NUMBER = r"(0|[1-9][0-9]{0,5})"  # no second spelling of a number: 01 is not understood
_BLOCK = rf"(?:[a-z_]+\.)*layers\.{_NUMBER}\.(?:block_sparse_moe|mlp)"
_IN_BLOCK = re.compile(rf"{_BLOCK}\.(.+)")
_EXPERT = re.compile(rf"({_BLOCK}\.experts\.){_NUMBER}\.(.+)")
_ROUTER = re.compile(
    r"(?:gate|router)\.(?:weight|bias)|(?:gate\.|router\.)?e_score_correction_bias"
)
_OFFSET = re.compile(r".+\.([kv])_proj\.\1_bias")
GATE = re.compile(rf"{_BLOCK}\.(?:gate|router)\.weight")
GATE_BIAS = re.compile(rf"{_BLOCK}\.(?:gate\.|router\.)?e_score_correction_bias")


class Expert(NamedTuple):
    """A tensor of one expert: ``head`` + number + "." + ``part`` is its name."""

    layer: int
    number: int
    head: str
    part: str


class Router(NamedTuple):
    """A tensor with one row an expert: the gate, or its correction bias."""

    layer: int


class Offset(NamedTuple):
    """An affine KV cache's offset (k_bias, v_bias): vLLM knows no such parameter."""


class Plain(NamedTuple):
    """A tensor that has nothing to do with experts."""


Role = Expert | Router | Offset | Plain


def roles_of(tensors: Iterable[Tensor], experts: int) -> dict[str, Role]:
    """Return what each tensor is. Raises CheckpointError for one that is not understood."""
    return {tensor.name: role_of(tensor, experts) for tensor in tensors}


def expert_of(name: str) -> Expert | None:
    """Return the expert that a name belongs to; None for all other names."""
    if match := _EXPERT.fullmatch(name):
        return Expert(int(match[2]), int(match[3]), intern(match[1]), intern(match[4]))
    return None


def role_of(tensor: Tensor, experts: int) -> Role:
    """Return what ``tensor`` is in a checkpoint of so many experts a layer.

    Raises CheckpointError for a tensor that seems to hold all experts in one, in a way that is
    not known: it could be neither kept nor cut.
    """
    if expert := expert_of(tensor.name):
        return expert
    if match := _IN_BLOCK.fullmatch(tensor.name):
        layer, part = int(match[1]), match[2]
        if _ROUTER.fullmatch(part):
            if not tensor.shape or tensor.shape[0] != experts or tensor.size % experts:
                raise _strange(tensor, f"should have one row for each of {experts} experts")
            return Router(layer)
        if part.startswith("experts.") or (
            experts in tensor.shape and not part.startswith("shared_expert")
        ):
            raise _strange(tensor, "seems to hold all experts in one, in a way not known here")
    return Offset() if _OFFSET.fullmatch(tensor.name) else Plain()


def _strange(tensor: Tensor, what: str) -> CheckpointError:
    return CheckpointError(
        f"{tensor.name} of shape {list(tensor.shape)} {what}",
        "only experts stored one by one, with a router of one row each, can be deleted",
        code="checkpoint_experts",
    )
