"""vLLM's own layers read what is written: names, shapes, types, and every byte at its place."""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.checkpoint.formats import Format
from appliance.checkpoint.quantisecommand import main
from tests import engines
from tests.checkpointbox import Shape, build, tensors_of
from tests.engines import ENGINE_PYTHON
from tests.wheels import vllm_sources

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

CHECK = Path(__file__).with_name("quantised_check.py")
SHAPE = Shape(form="nvfp4", layers=2, experts=4, shards=2, hidden=64, inner=32, heads=4)
TYPES = {"F8_E4M3": "float8_e4m3fn", "U8": "uint8", "F32": "float32"}
IN_0_26: list[Format] = [kind for kind in Format if kind is not Format.PER_CHANNEL]
Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``source``, and a folder for each format, the head included."""
    engines.require_real()
    folder = tmp_path_factory.mktemp("quantised")
    source = build(folder / "source", SHAPE)
    for kind in Format:
        assert main([str(source), str(folder / kind), "--format", kind, "--lm-head"]) == 0
    return folder


def seen_by_vllm(folders: list[Path], sources: Path | None = None) -> dict[str, Any]:
    """Return what vLLM makes of each folder; of the installed one, or of another's sources."""
    env = dict(os.environ)
    if sources:
        env["PYTHONPATH"] = str(sources)
    argv = [str(ENGINE_PYTHON), str(CHECK), *map(str, folders)]
    run = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def fused(tensors: Tensors) -> dict[str, dict[str, tuple[str, list[int], bytes]]]:
    """Return what vLLM's modules must hold: q, k and v one below the other, scalars in a row."""
    modules: dict[str, dict[str, tuple[str, list[int], bytes]]] = {}
    for layer in range(SHAPE.layers):
        stem = f"model.layers.{layer}.self_attn."
        three = [_parts(tensors, f"{stem}{kind}_proj.") for kind in "qkv"]
        modules[f"{stem}qkv_proj"] = {
            part: (
                three[0][part][0],
                [sum(one[part][1][0] for one in three), *three[0][part][1][1:]],
                b"".join(one[part][2] for one in three),
            )
            for part in three[0]
        }
        modules[f"{stem}o_proj"] = _parts(tensors, f"{stem}o_proj.")
    return modules | {"lm_head": _parts(tensors, "lm_head.")}


def _parts(tensors: Tensors, stem: str) -> dict[str, tuple[str, list[int], bytes]]:
    return {
        name.removeprefix(stem): (TYPES[dtype], list(shape) or [1], data)
        for name, (dtype, shape, data) in tensors.items()
        if name.startswith(stem) and not name.endswith(("k_scale", "v_scale"))
    }


def check(box: Path, kinds: list[Format], sources: Path | None = None) -> None:
    """Hold every layer of every format against what is on the disk."""
    found = seen_by_vllm([box / kind for kind in kinds], sources)
    for kind in kinds:
        seen, wanted = found[str(box / kind)], fused(tensors_of(box / kind))
        assert (seen["quantization"], seen["experts"]) == ("modelopt_mixed", "NVFP4")
        assert (seen["kv_cache"], seen["the_file_says_the_same"]) == ("FP8", True)
        assert seen["layers"].keys() == wanted.keys()
        for module, parts in wanted.items():
            registered = seen["layers"][module]["parameters"]
            if kind is Format.NVFP4:
                registered.pop("input_scale")  # of old checkpoints: vLLM drops it again
            said = {part: [shape, dtype] for part, (dtype, shape, _) in parts.items()}
            assert registered == said, (kind, module)
            times = 3 if module.endswith("qkv_proj") else 1
            for part, (_, _, data) in parts.items():
                assert seen["filled"][f"{module}.{part}"] == times
                assert seen["held"][f"{module}.{part}"] == hashlib.sha256(data).hexdigest()
        near_the_source(box, kind, seen)


def near_the_source(box: Path, kind: Format, seen: dict[str, Any]) -> None:
    """Hold what vLLM unpacks without a GPU against the numbers that were quantised."""
    source = tensors_of(box / "source")
    for module, rows in seen["restored"].items():
        if rows is None:
            assert kind in (Format.PER_CHANNEL, Format.FP8)
            continue
        stem = module.removesuffix("qkv_proj")
        names = [f"{stem}{one}_proj" for one in "qkv"] if module != stem else [module]
        exact = np.concatenate([bf16(source[f"{name}.weight"]) for name in names])
        missed = np.linalg.norm(exact - np.array(rows)) / np.linalg.norm(exact)
        assert missed < (0.12 if kind is Format.NVFP4 else 0.04), (kind, module)


def bf16(tensor: tuple[str, tuple[int, ...], bytes]) -> Any:
    """Return a BF16 tensor's numbers."""
    _, shape, data = tensor
    halves = np.frombuffer(data, "<u2").astype(np.uint32) << 16
    return halves.view(np.float32).reshape(shape).astype(np.float64)


def test_the_demos_vllm_registers_and_fills_what_every_format_writes(box: Path) -> None:
    check(box, [*Format])


@pytest.mark.long
def test_vllm_0_33_registers_and_fills_what_every_format_writes(box: Path, tmp_path: Path) -> None:
    check(box, [*Format], vllm_sources("0.33.0", tmp_path))


@pytest.mark.long
def test_vllm_0_26_does_so_for_all_but_one_scale_a_row(box: Path, tmp_path: Path) -> None:
    sources = vllm_sources("0.26.0", tmp_path)
    check(box, IN_0_26, sources)
    with pytest.raises(AssertionError, match="KeyError: 'weight_scale'"):
        check(box, [Format.PER_CHANNEL], sources)
