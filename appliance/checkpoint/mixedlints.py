"""Known traps of checkpoints that mix formats: what the config says, and what the tensors are."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from appliance.checkpoint.findings import Finding, Level
from appliance.checkpoint.formats import ALGORITHMS, SHARED_SCALE, Format, Recipe
from appliance.checkpoint.headers import Header, Tensor
from appliance.checkpoint.layout import Layout
from appliance.checkpoint.mixed import MIXED, section_of
from appliance.checkpoint.projections import FUSED
from appliance.checkpoint.scalars import read_scalars
from appliance.checkpoint.source import Source
from appliance.checkpoint.tensornames import expert_of

_PART = re.compile(
    r"((?:[a-z_]+\.)*layers\.[0-9]+\.self_attn\.[qkvo]_proj|lm_head)"
    r"\.(weight|weight_scale|weight_scale_2|input_scale)"
)
_FORMATS = {algorithm: kind for kind, algorithm in ALGORITHMS.items()}
_SHARED = ("weight_scale", "weight_scale_2")
_AGAIN = "quantize_attention.py writes them so that they fit"


class MixedLints:
    """Looks at attention and the head of a checkpoint, and at where its experts are."""

    def __init__(self, layout: Layout, file: Mapping[str, Any]) -> None:
        section = section_of(layout.config, file)
        is_mixed = isinstance(section, dict) and str(section.get("quant_algo")).upper() == MIXED
        known = section.get("quantized_layers") if is_mixed else None
        if is_mixed and not isinstance(known, dict):
            inner = file.get("quantization")
            known = inner.get("quantized_layers") if isinstance(inner, dict) else None
        self._formats = _formats(known)
        self._is_mixed = is_mixed
        self._parts: dict[str, dict[str, Tensor]] = {}
        self._scales: dict[str, dict[str, float]] = {}
        self._packed: set[str] = set()  # stems of layers whose experts have 4 bits

    def look(self, source: Source, name: str, header: Header) -> None:
        """Look at one shard."""
        if not self._is_mixed:
            return
        for tensor in header.tensors:
            if match := _PART.fullmatch(tensor.name):
                self._parts.setdefault(match[1], {})[match[2]] = tensor
            elif tensor.dtype == "U8" and (expert := expert_of(tensor.name)):
                self._packed.add(f"{expert.head.rpartition('layers.')[0]}layers.{expert.layer}.")
        for scale, value in read_scalars(source, name, header):
            if (match := _PART.fullmatch(scale)) and match[2] in _SHARED:
                self._scales.setdefault(match[1], {})[match[2]] = value

    def findings(self) -> Iterator[Finding]:
        """Yield what was found."""
        if not self._is_mixed:
            return
        if not self._formats:
            what = f"the quantisation is {MIXED} without quantized_layers: vLLM raises ValueError"
            yield Finding(Level.ERROR, "mixed_layers", what, "fetch config.json again")
        yield from self._experts()
        for module in sorted(self._parts):
            yield from self._tensors(module)
        for stem in sorted({name.rpartition(".")[0] for name in self._parts if "." in name}):
            yield from self._fused(stem)

    def _experts(self) -> Iterator[Finding]:
        for stem in sorted(self._packed):
            if not any(name.startswith(f"{stem}mlp.") for name in self._formats):
                yield Finding(
                    Level.ERROR,
                    "mixed_experts",
                    f"quantized_layers names no {stem}mlp.experts: so vLLM calls them, finds "
                    "none, and takes 4-bit experts for unquantised ones",
                    "add that name beside block_sparse_moe.experts, with its quant_algo",
                )

    def _tensors(self, module: str) -> Iterator[Finding]:
        there, algorithm = self._parts[module], self._formats.get(module)
        weight = there.get("weight")
        if weight is None or len(weight.shape) != 2:
            return
        if algorithm is None:
            if weight.dtype in ("U8", "F8_E4M3"):
                what = f"{module} is {weight.dtype}, and quantized_layers does not name it"
                yield _error("mixed_unnamed", f"{what}: vLLM takes it for unquantised", _AGAIN)
            return
        kind = _FORMATS.get(algorithm)
        if kind is None:
            return
        columns = weight.shape[1] * (2 if kind is Format.NVFP4 else 1)
        for part in Recipe(kind, weight.shape[0], columns).parts:
            tensor = there.get(part.suffix)
            said = "is not there" if tensor is None else f"is {tensor.dtype} {list(tensor.shape)}"
            shapes = (part.shape, (1,)) if part.shape == () else (part.shape,)
            if tensor is None or tensor.dtype != part.dtype or tensor.shape not in shapes:
                what = f"{module}.{part.suffix} {said}, and {algorithm} wants {part.dtype}"
                yield _error("mixed_tensors", f"{what} {list(part.shape)}", _AGAIN)

    def _fused(self, stem: str) -> Iterator[Finding]:
        names = [f"{stem}.{kind}_proj" for kind in FUSED]
        formats = {self._formats.get(name) for name in names}
        if len(formats) > 1:
            said = ", ".join(sorted(str(one) for one in formats))
            what = f"q, k and v of {stem} have several formats ({said}): vLLM makes one of them"
            yield _error("mixed_fused", what, _AGAIN)
            return
        if _FORMATS.get(str(formats.pop())) not in SHARED_SCALE:
            return
        for part in _SHARED:
            values = {self._scales.get(name, {}).get(part) for name in names} - {None}
            if len(values) > 1:
                what = f"q, k and v of {stem} have several {part}: vLLM takes the largest for all"
                yield Finding(Level.WARNING, "mixed_scales", what, _AGAIN)


def _formats(known: Any) -> dict[str, str]:
    if not isinstance(known, dict):
        return {}
    return {
        name: str(entry.get("quant_algo", "")).upper()
        for name, entry in known.items()
        if isinstance(entry, dict)
    }


def _error(code: str, what: str, hint: str) -> Finding:
    return Finding(Level.ERROR, code, what, hint)
