"""Run by the engine's Python: how ModelOpt and torch themselves quantise numbers.

``modelopt_check.py IN OUT [MODELOPT]``: IN holds float32 rows under ``rows`` and any float32
numbers under ``numbers``, as numpy's npz; OUT gets torch's e4m3 codes of the numbers. With a folder
that has ModelOpt's sources it gets the rows, too: in ModelOpt's NVFP4, and in vLLM's MXFP8.
"""

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

PACKAGE = "modelopt.torch.quantization"
BARE = ("modelopt", "modelopt.torch", PACKAGE, f"{PACKAGE}.qtensor", f"{PACKAGE}.backends")
LEFT_OUT = (f"{PACKAGE}.config", "modelopt.torch.utils", "modelopt.torch.utils.network")


def prepared(folder: Path) -> None:
    """Let ModelOpt's arithmetic be imported without all that its packages import at their start."""
    for name in (*BARE, f"{PACKAGE}.utils", *LEFT_OUT):
        module = types.ModuleType(name)
        if name not in LEFT_OUT:
            module.__path__ = [str(folder.joinpath(*name.split(".")))]
        sys.modules[name] = module
    for name in LEFT_OUT:
        sys.modules[name].__getattr__ = lambda name: type(name, (), {})  # type: ignore[method-assign]
    core = importlib.import_module(f"{PACKAGE}.utils.core_utils")
    vars(sys.modules[f"{PACKAGE}.utils"]).update(vars(core))


def as_bytes(tensor: Any) -> Any:
    """Return a tensor's bytes."""
    return tensor.contiguous().view(torch.uint8).numpy()


def modelopts(rows: Any, folder: Path) -> dict[str, Any]:
    """Return ModelOpt's NVFP4 of some rows."""
    prepared(folder)
    quantiser = importlib.import_module(f"{PACKAGE}.qtensor.nvfp4_tensor").NVFP4QTensor
    held, by_group, whole = quantiser.quantize(rows.clone(), 16)
    return {
        "nvfp4": as_bytes(held._quantized_data),
        "nvfp4_scales": as_bytes(by_group),
        "nvfp4_whole": whole.numpy(),
    }


def vllms(rows: Any) -> dict[str, Any]:
    """Return vLLM's MXFP8 of some rows."""
    # it takes its time to load
    from vllm.model_executor.layers.quantization.utils import mxfp8_utils

    numbers, scales = mxfp8_utils._mxfp8_e4m3_quantize_torch(rows)
    return {"mxfp8": as_bytes(numbers), "mxfp8_scales": as_bytes(scales)}


def main() -> None:
    """Write what they make of the numbers."""
    given = np.load(sys.argv[1])
    rows = torch.from_numpy(given["rows"])
    found = {"codes": as_bytes(torch.from_numpy(given["numbers"]).to(torch.float8_e4m3fn))}
    if len(sys.argv) > 3:
        found |= modelopts(rows, Path(sys.argv[3])) | vllms(rows)
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
