"""The same numbers from torch, vLLM and ModelOpt: bit for bit what is written here."""

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.checkpoint.formats import Format, Recipe
from appliance.checkpoint.quantise.rounding import e4m3
from appliance.checkpoint.quantise.scaling import grid_of, packed, scalars, scaled
from tests import engines
from tests.engines import ENGINE_PYTHON

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

CHECK = Path(__file__).with_name("modelopt_check.py")
ROWS, COLUMNS = 256, 512
MODELOPT = "nvidia-modelopt==0.47.0"


def numbers() -> Any:
    """Return 1,000,000 float32: any bits, the format's range, and what is near its borders."""
    dice = np.random.default_rng(11)
    anything = dice.integers(0, 2**32, 500_000, dtype=np.uint64).astype(np.uint32)
    inside = dice.uniform(-512, 512, 200_000) * 2.0 ** dice.integers(-20, 1, 200_000)
    known = e4m3().values(e4m3().keys(dice.uniform(-448, 448, 300_000).astype(np.float32)))
    steps = dice.integers(-2, 3, 300_000)
    half = dice.choice([1, 17 / 16, 31 / 32], 300_000).astype(np.float32)
    near = ((known * half).view(np.int32) + steps).astype(np.int32).view(np.float32)
    return np.concatenate([anything.view(np.float32), inside.astype(np.float32), near])


def rows() -> Any:
    """Return BF16 rows with heavy tails, and some groups of nothing but zeros."""
    dice = np.random.default_rng(12)
    values = (dice.standard_t(2, (ROWS, COLUMNS)) * 0.03).astype(np.float32)
    values = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    values[3] = 0
    values[5, 64:96] = 0
    values[6] *= np.float32(2.0**-20)
    return values


def asked(tmp_path: Path, *more: str) -> dict[str, Any]:
    """Return what the others make of them."""
    engines.require_real()
    given, found = tmp_path / "given.npz", tmp_path / "found.npz"
    np.savez(given, rows=rows(), numbers=numbers())
    argv = [str(ENGINE_PYTHON), str(CHECK), str(given), str(found), *more]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    with np.load(found) as there:
        return dict(there)


def ours(kind: Format) -> tuple[Any, bytes, bytes]:
    """Return codes, scales and single numbers as they are written."""
    given = rows()
    recipe = Recipe(kind, ROWS, COLUMNS, float(np.abs(given).max()))
    there = scaled(given, recipe)
    grid = grid_of(kind)
    return grid.codes(grid.keys(there.numbers)), there.scales, scalars(recipe)


def test_a_million_numbers_are_rounded_as_torch_rounds_them(tmp_path: Path) -> None:
    theirs = asked(tmp_path)
    given = numbers()
    assert len(given) == 1_000_000
    mine, fits = e4m3().codes(e4m3().keys(given)), np.abs(given) <= 464
    assert 0.6 < fits.mean() < 0.9  # of any bits half are too large
    assert np.array_equal(mine[fits], theirs["codes"][fits])
    # what is too large becomes no number here, and is refused; torch takes the largest for it
    assert ((mine[~fits] & 0x7F) == 0x7F).all()


@pytest.mark.long
def test_nvfp4_is_what_modelopt_writes_and_mxfp8_what_vllm_does(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*pip, "-d", str(tmp_path), MODELOPT], check=True, timeout=300)
    (wheel,) = tmp_path.glob("nvidia_modelopt-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "modelopt")
    theirs = asked(tmp_path, str(tmp_path / "modelopt"))
    codes, scales, whole = ours(Format.NVFP4)
    assert whole == theirs["nvfp4_whole"].astype("<f4").tobytes()
    assert scales == theirs["nvfp4_scales"].tobytes()
    assert np.array_equal(packed(codes), theirs["nvfp4"])
    codes, scales, _ = ours(Format.MXFP8)
    # of nothing but zeros vLLM takes the scale 2**-127, which is denormal: here it is 2**-126
    held = np.frombuffer(scales, np.uint8).reshape(ROWS, -1)
    assert np.array_equal(held, np.maximum(theirs["mxfp8_scales"], 1))
    assert np.array_equal(codes, theirs["mxfp8"])
