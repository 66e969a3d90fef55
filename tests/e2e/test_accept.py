"""The acceptance run over the real engine, which it drains and sees come back."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import engines
from tests.appliances import COMMAND, clean_environment, running_process
from tests.engines import CHECKPOINT, ENGINE_PYTHON, ROOT

pytestmark = pytest.mark.engine

LOAD_S = 240.0
CONTEXT = 32_768  # what Kilo Code needs; the demo's own takes a CPU too long to read
REAL: dict[str, Any] = {
    "engine_command": str(ENGINE_PYTHON.parent / "vllm"),
    "model_dir": CHECKPOINT,
    "engine_extra_args": None,
    "max_model_len": CONTEXT,
    "start_timeout_s": LOAD_S,
    "stop_timeout_s": 20,
    "drain_timeout_s": 60,
}


@pytest.mark.timeout(900)
def test_the_demo_is_accepted_with_figures_that_its_engine_can_have(tmp_path: Path) -> None:
    engines.require_real()
    with running_process(tmp_path / "box", **REAL) as appliance:
        appliance.until("ready", within_s=LOAD_S)
        done = subprocess.run(
            [*COMMAND, "accept", "--out", str(tmp_path / "out")],
            env=clean_environment() | dict(appliance.env) | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert appliance.status()["state"] == "ready"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    verdicts = {step["name"]: step["verdict"] for step in report["steps"]}
    assert {name for name, verdict in verdicts.items() if verdict == "skipped"} == {"paths", "kill"}
    sizes = [row["prompt_tokens"] for row in report["prefill"]]
    assert sizes == sorted(sizes)
    assert 0.8 * CONTEXT < sizes[-1] < CONTEXT
    assert report["speeds"]["alone"]["completion_tokens"] == 128
    assert all(row["prefill_tok_s"] > 0 for row in report["prefill"])
    assert str(tmp_path) not in (tmp_path / "out" / "report.html").read_text()
