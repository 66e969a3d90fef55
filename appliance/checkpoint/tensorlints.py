"""Known traps in the tensors: their names, shapes and scales, shard by shard."""

import re
from collections.abc import Iterator

from appliance.checkpoint.census import Census
from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.findings import Finding, Level
from appliance.checkpoint.headers import Header, Tensor
from appliance.checkpoint.layout import Layout
from appliance.checkpoint.scalars import PairedScales, read_scalars, strange
from appliance.checkpoint.source import Source
from appliance.checkpoint.tensornames import GATE, GATE_BIAS, Offset, Role, role_of

_QUANTISED_GATE = re.compile(r".+\.(?:gate|router)\.(?:weight|input|qweight)_?[a-z_0-9]+")
_CACHE_SCALE = re.compile(r".+\.[kv]_proj\.[kv]_scale")


class TensorLints:
    """Looks at every tensor of a checkpoint; ``names`` are all that were seen."""

    def __init__(self, layout: Layout) -> None:
        self.census = Census(layout.layers, layout.experts)
        self.names: set[str] = set()
        self.cache_scales = 0
        self._experts = layout.experts
        self._pairs = PairedScales()
        self._findings: list[Finding] = []

    def look(self, source: Source, name: str, header: Header) -> None:
        """Look at one shard."""
        roles: dict[str, Role] = {}
        for tensor in header.tensors:
            self.names.add(tensor.name)
            if finding := self._look_at(tensor, roles):
                self._findings.append(finding)
        known = [tensor for tensor in header.tensors if tensor.name in roles]
        self.census.add(known, roles)
        for scale, value in read_scalars(source, name, header):
            if wrong := strange(value):
                what = f"{scale} {wrong}: {value}, and answers turn to nonsense"
                hint = "fetch the shard again; if it is so at the origin, take another checkpoint"
                self._findings.append(_error("bad_scale", what, hint))
            if differing := self._pairs.add(scale, value):
                hint = "quantise w1 and w3 with one scale; pruning does not change this"
                what = f"{differing}: vLLM takes one for both, and answers may loop"
                self._findings.append(Finding(Level.WARNING, "split_scale", what, hint))

    def findings(self) -> Iterator[Finding]:
        """Yield what was found."""
        yield from self._findings
        for problem in self.census.problems():
            if "input_scale" in problem:
                what = f"{problem}: vLLM loads 0, divides by it, and answers are NaN at times"
            else:
                what = problem
            yield Finding(Level.ERROR, "experts", what, "fetch the checkpoint again")

    def _look_at(self, tensor: Tensor, roles: dict[str, Role]) -> Finding | None:
        """Return what is wrong with a tensor; enter its role when it has a known one."""
        if _QUANTISED_GATE.fullmatch(tensor.name):
            return _error(
                "quantised_gate",
                f"{tensor.name}: the router is quantised, and vLLM ends with a KeyError",
                "take a checkpoint whose quantisation excludes block_sparse_moe.gate",
            )
        if GATE.fullmatch(tensor.name) or GATE_BIAS.fullmatch(tensor.name):
            rows = tensor.shape[0] if tensor.shape else 0
            if rows != self._experts:
                return _error(
                    "router_rows",
                    f"{tensor.name} has {rows} rows for {self._experts} experts: vLLM asserts",
                    "prune with delete_experts.py, which cuts gates and biases",
                )
        try:
            role = roles[tensor.name] = role_of(tensor, self._experts)
        except CheckpointError as cause:
            return _error("not_understood", cause.what, cause.hint)
        if isinstance(role, Offset):
            return _error(
                "cache_offset",
                f"{tensor.name}: vLLM knows no such parameter, and does not load",
                "delete_experts.py leaves these out",
            )
        if _CACHE_SCALE.fullmatch(tensor.name):
            self.cache_scales += 1
            if tensor.shape not in ((), (1,)):
                what = f"{tensor.name} has the shape {list(tensor.shape)}: vLLM takes one number"
                return _error("cache_scale_shape", what, "take one scale for each layer")
        return None


def _error(code: str, what: str, hint: str) -> Finding:
    return Finding(Level.ERROR, code, what, hint)
