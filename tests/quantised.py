"""Miniatures whose attention is quantised: what tests of it share."""

import json
import struct
from pathlib import Path
from typing import Any

from appliance.checkpoint.quantisecommand import main
from tests.checkpointbox import Shape, build

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
