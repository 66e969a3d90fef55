"""What a quantised checkpoint stands for: the same in bf16, written by plain arithmetic.

Not by the code that quantises: each format is read here as its definition says.
"""

import json
import math
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
PROJECTIONS = tuple(f"self_attn.{kind}_proj.weight" for kind in "qkvo")
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # the eighth bit is the sign
MXFP8_GROUP, NVFP4_GROUP = 32, 16


class Place(NamedTuple):
    """Where a tensor's bytes are."""

    path: Path
    offset: int
    size: int
    dtype: str
    shape: tuple[int, ...]

    def read(self) -> bytes:
        """Return its bytes."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def places(folder: Path) -> dict[str, Place]:
    """Return where each tensor of a checkpoint is."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = json.loads(file.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                first, last = entry["data_offsets"]
                found[name] = Place(
                    path, 8 + length + first, last - first, entry["dtype"], tuple(entry["shape"])
                )
    return found


def e4m3() -> Floats:
    """Return what each byte stands for as FP8: 4 bits of exponent, 3 of mantissa, no infinity."""
    values = []
    for code in range(256):
        exponent, mantissa = code >> 3 & 15, code & 7
        size = mantissa / 8 * 2**-6 if not exponent else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
        size = math.nan if code & 127 == 127 else size
        values.append(-size if code & 128 else size)
    return np.array(values, np.float32)


def restored(weight: Place, scales: dict[str, Place]) -> Floats:
    """Return the matrix that a quantised weight stands for; ``scales`` by the ends of their names.

    Raises ValueError for a format that is not known here.
    """
    codes = np.frombuffer(weight.read(), np.uint8).reshape(weight.shape)
    scale = scales["weight_scale"]
    units = np.frombuffer(scale.read(), np.uint8)
    if weight.dtype == "U8":  # NVFP4: two numbers a byte, the first in the lower half
        pairs = np.stack((codes & 15, codes >> 4), axis=-1).reshape(weight.shape[0], -1)
        table = np.array([*E2M1, *(-value for value in E2M1)], np.float32)
        (whole,) = struct.unpack("<f", scales["weight_scale_2"].read())
        groups = e4m3()[units].reshape(scale.shape) * np.float32(whole)
        return _times(table[pairs], groups, NVFP4_GROUP)
    numbers = e4m3()[codes]
    if scale.dtype == "F32":  # one for all, or one for each row
        return numbers * np.frombuffer(scale.read(), np.float32).reshape(-1, 1)
    if scale.shape[-1] * MXFP8_GROUP == weight.shape[1]:
        return _times(numbers, np.exp2(units.astype(np.float32) - 127).reshape(scale.shape),
                      MXFP8_GROUP)  # fmt: skip
    raise ValueError(f"{weight} with {scale}: no format that is known here")


def _times(numbers: Floats, units: Floats, group: int) -> Floats:
    return numbers * np.repeat(units, group, axis=1)


def to_bf16(values: Floats) -> bytes:
    """Return numbers as BF16, rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + 0x7FFF + (bits >> 16 & 1)
    return (rounded >> 16).astype("<u2").tobytes()


def write_reference(source: Path, quantised: Path, reference: Path) -> Path:
    """Write ``source`` with its attention as ``quantised`` stands for it, in bf16."""
    fresh = reference.with_name(reference.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(source, fresh)
    made = places(quantised)
    for name, place in places(fresh).items():
        if name.endswith(PROJECTIONS) and made[name].dtype != "BF16":
            stem = name.removesuffix("weight")
            scales = {other.removeprefix(stem): made[other] for other in made
                      if other.startswith(stem)}  # fmt: skip
            with place.path.open("r+b") as file:
                file.seek(place.offset)
                file.write(to_bf16(restored(made[name], scales)))
    shutil.rmtree(reference, ignore_errors=True)
    fresh.rename(reference)
    return reference


def quantise(tool: Path, source: Path, target: Path, form: str) -> None:
    """Run the tool that quantises attention. Raises RuntimeError with what it said."""
    if (target / "config.json").exists():
        return
    shutil.rmtree(target, ignore_errors=True)
    argv = [sys.executable, str(tool), str(source), str(target), "--format", form]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{tool.name} --format {form} ended with {done.returncode}: {done.stderr}"
        )


def quantise_all(tool: Path, source: Path, stem: str, forms: Sequence[str]) -> list[Path]:
    """Write ``source`` in each format, beside it as STEM-FORMAT, several at a time."""
    targets = [source.with_name(f"{stem}-{form}") for form in forms]
    with ThreadPoolExecutor() as pool:
        for job in [pool.submit(quantise, tool, source, target, form)
                    for target, form in zip(targets, forms, strict=True)]:  # fmt: skip
            job.result()
    return targets
