"""Miniatures whose attention is quantised: what tests of it share."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np

from appliance.checkpoint.quantisecommand import main
from tests.checkpointbox import Piece, Shape, build, render, tensors_of, write_json

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]
# every format takes these widths: a scale for 32 numbers, and for 16
SHAPE = Shape(form="nvfp4", layers=3, experts=4, shards=3, hidden=64, inner=32, heads=2)
STEM = "model.layers.{}.self_attn.{}_proj"


def quantise(tmp: Path, shape: Shape = SHAPE, *flags: str) -> tuple[Path, Path]:
    """Build a miniature and quantise it; return both folders."""
    source, made = build(tmp / "source", shape), tmp / "made"
    assert main([str(source), str(made), *flags]) == 0
    return source, made


def change(folder: Path, name: str, at: int, content: bytes) -> None:
    """Overwrite bytes of a tensor."""
    for path in folder.glob("*.safetensors"):
        raw = path.read_bytes()
        start = 8 + struct.unpack("<Q", raw[:8])[0]
        if entry := json.loads(raw[8:start]).get(name):
            with path.open("r+b") as file:
                file.seek(start + entry["data_offsets"][0] + at)
                file.write(content)
            return
    raise AssertionError(name)


def read(path: Path) -> Any:
    """Return a JSON file's content."""
    return json.loads(path.read_text())


def restored(made: Path, out: Path) -> Path:
    """Write a quantised checkpoint as one in BF16, each number what its codes stand for.

    An engine without kernels for the formats then computes with the quantised weights; it does
    not round activations, as a GPU does for the FP8 ones. Returns ``out``.
    """
    out.mkdir()
    for path in made.iterdir():
        if path.is_file() and path.suffix != ".safetensors":
            shutil.copy(path, out)
    config = read(out / "config.json")
    formats = config.pop("quantization_config")["quantized_layers"]
    write_json(out / "config.json", config)
    (out / "hf_quant_config.json").unlink()
    tensors = tensors_of(made)
    plain = []
    for name, (dtype, shape, data) in tensors.items():
        module, _, part = name.rpartition(".")
        if module not in formats:
            plain.append((Piece(name, dtype, shape), data))
        elif part == "weight":
            numbers = _numbers(tensors, module)
            piece = Piece(name, "BF16", (numbers.shape[0], numbers.shape[1]))
            plain.append((piece, _nearest_bf16(numbers)))
    (out / "model.safetensors").write_bytes(render(plain))
    total = sum(len(data) for _, data in plain)
    index = {"metadata": {"total_size": total},
             "weight_map": {piece.name: "model.safetensors" for piece, _ in plain}}  # fmt: skip
    write_json(out / "model.safetensors.index.json", index)
    return out


def _numbers(tensors: Tensors, module: str) -> Any:
    """Return what a module's codes stand for: decoded bit by bit, not by the code under test."""
    dtype, shape, data = tensors[f"{module}.weight"]
    scale_type, scale_shape, scale_data = tensors[f"{module}.weight_scale"]
    codes = np.frombuffer(data, np.uint8).reshape(shape)
    if dtype == "U8":
        halves = np.stack([codes & 0xF, codes >> 4], axis=-1).reshape(shape[0], -1)
        sizes = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])[halves & 7]
        scales = _e4m3(np.frombuffer(scale_data, np.uint8).reshape(scale_shape))
        whole = struct.unpack("<f", tensors[f"{module}.weight_scale_2"][2])[0]
        units = np.repeat(scales * whole, 16, axis=1)
        return np.where(halves & 8, -sizes, sizes) * units
    numbers = _e4m3(codes)
    if scale_type == "U8":
        powers = np.frombuffer(scale_data, np.uint8).reshape(scale_shape).astype(np.int64)
        return numbers * np.repeat(2.0 ** (powers - 127), 32, axis=1)
    return numbers * np.frombuffer(scale_data, "<f4").reshape(-1, 1)


def _e4m3(codes: Any) -> Any:
    exponent, fraction = (codes >> 3 & 0xF).astype(np.int64), (codes & 7) / 8
    sizes = np.where(exponent, (1 + fraction) * 2.0 ** (exponent - 7), fraction * 2.0**-6)
    return np.where(codes & 0x80, -sizes, sizes)


def _nearest_bf16(numbers: Any) -> bytes:
    bits = numbers.astype(np.float32).view(np.uint32)
    return bytes(((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes())
