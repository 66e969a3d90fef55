"""The whole script without a GPU: each step's code has run once before it takes a GPU's time."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import engines
from tests.engines import CHECKPOINT, ENGINE_PYTHON, FAKE, ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]


def steps_of(folder: Path, engine: str, *steps: str) -> dict[str, dict[str, Any]]:
    """Run these steps; return their outcomes by name."""
    engines.require_real()
    shutil.copytree(CHECKPOINT, folder / "box" / "checkpoints" / "demo")
    flags = ("--box", folder / "box", "--out", folder / "out", "--steps", ",".join(steps))
    argv = [
        sys.executable,
        "-m",
        "tests.gpu.run",
        *map(str, flags),
        "--dry-run",
        "--engine",
        engine,
    ]
    ran = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    report = json.loads((folder / "out" / f"report-{steps[0]}.json").read_text())
    found = {step["step"]: step for step in report["steps"]}
    assert list(found) == list(steps), ran.stdout + ran.stderr
    assert (folder / "out" / f"logs-{steps[0]}.tar.gz").exists()
    return found


def test_over_the_fake_engine_every_step_that_needs_no_model_passes(tmp_path: Path) -> None:
    engine = f"{sys.executable} {FAKE} --chunk-delay 0.003"
    steps = ("bare", "latency", "abort", "appliance", "kill", "ngram", "flashinfer")
    found = steps_of(tmp_path, engine, *steps)
    verdicts = {name: (step["verdict"], step["reason"]) for name, step in found.items()}
    assert {name for name, (verdict, _) in verdicts.items() if verdict == "FAILED"} == set(), (
        verdicts
    )
    assert found["latency"]["facts"]["c4"]["sidecar"]["us_per_event"] > 0
    assert found["kill"]["facts"]["recovered_s"] > found["kill"]["facts"]["seen_s"]


def test_an_engine_that_does_not_start_is_told_with_its_own_words(tmp_path: Path) -> None:
    engine = f"{sys.executable} {FAKE} --exit-code 3"
    found = steps_of(tmp_path, engine, "bare", "abort")
    for name in ("bare", "abort"):
        assert found[name]["verdict"] == "FAILED"
        assert "ended with 3" in found[name]["reason"]
    assert "did not start before" in found["abort"]["reason"]  # it is not tried a second time


@pytest.mark.engine
def test_over_the_cpu_engine_the_pruned_miniature_thinks_like_the_masked_one(
    tmp_path: Path,
) -> None:
    found = steps_of(tmp_path, str(ENGINE_PYTHON.parent / "vllm"), "pruned")
    assert found["pruned"]["verdict"] == "passed", found["pruned"]
    assert found["pruned"]["facts"]["control"]["relative_error"]["p50"] > 0.05
