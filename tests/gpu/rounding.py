"""A plug-in of vLLM: a reference in BF16 rounds its activations as the FP8 kernels round theirs.

An FP8 matrix is multiplied with FP8 activations. To see whether it was read and scaled rightly,
the reference must round the same numbers in the same place, or all that shows is that FP8 is
coarse. vLLM finds the plug-in by the entry point that ``install`` writes; it does nothing but
where ``VLLM_ROUND_ACTIVATIONS`` names a file: JSON, from a linear layer's name to its scale.
"""

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.gpu.dequantise import Place, places

VARIABLE = "VLLM_ROUND_ACTIVATIONS"  # an engine inherits what begins with VLLM_
FP8_MOST = 448.0
PARTS = {"q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj", "o_proj": "o_proj"}


def install(site: Path) -> None:
    """Write the entry point in a folder that the engine's Python looks for packages in."""
    folder = site / "unglitched_rounding-0.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: unglitched-rounding\nVersion: 0\n"
    )
    entry = f"[vllm.general_plugins]\nunglitched_rounding = {__name__}:register\n"
    (folder / "entry_points.txt").write_text(entry)


def write_scales(quantised: Path, path: Path) -> Path:
    """Write the scales that a checkpoint gives its activations, by vLLM's names; return where."""
    path.write_text(json.dumps(scales_of(places(quantised))))
    return path


def scales_of(tensors: Mapping[str, Place]) -> dict[str, float]:
    """Return each linear layer's scale; of matrices that vLLM joins the largest, as it does."""
    found: dict[str, float] = {}
    for name, place in tensors.items():
        if name.endswith(".input_scale") and ".self_attn." in name:
            stem, part, _ = name.rsplit(".", 2)
            joined = f"{stem}.{PARTS[part]}"
            (scale,) = struct.unpack("<f", place.read())
            found[joined] = max(scale, found.get(joined, 0.0))
    return found


def register() -> None:
    """Put the rounding before the linear layers that are named; vLLM calls this at its start."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    scales: dict[str, float] = json.loads(Path(path).read_text())
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod

    plain = UnquantizedLinearMethod.apply

    def apply(self: Any, layer: Any, x: Any, bias: Any = None) -> Any:
        scale = scales.get(getattr(layer, "prefix", ""))
        if scale is None:
            return plain(self, layer, x, bias)
        # an FP8 number is one of BF16, too; the scale comes after the sums, as in the kernel
        return plain(self, layer, rounded(x, scale), bias) * scale

    UnquantizedLinearMethod.apply = apply
    print(f"rounding: activations of {len(scales)} linear layers as FP8", flush=True)


def rounded(x: Any, scale: float) -> Any:
    """Return ``x / scale`` as e4m3 rounds it, in the type of ``x``."""
    import torch

    bounded = (x.float() / scale).clamp(-FP8_MOST, FP8_MOST)
    return bounded.to(torch.float8_e4m3fn).to(x.dtype)
