"""The whole appliance over a real engine that it starts itself."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests import engines
from tests.appliances import running_process
from tests.engines import CHECKPOINT, ENGINE_PYTHON

pytestmark = pytest.mark.engine

VLLM = str(ENGINE_PYTHON.parent / "vllm")
LOAD_S = 240.0


def real(model: Path) -> dict[str, Any]:
    return {"engine_command": VLLM, "model_dir": model, "engine_extra_args": None}


def test_run_once_passes_every_smoke_check_and_leaves_nothing(tmp_path: Path) -> None:
    engines.require_real()
    settings = {**real(CHECKPOINT), "start_timeout_s": LOAD_S, "stop_timeout_s": 20}
    with running_process(tmp_path / "box", arguments=("--once",), **settings) as appliance:
        assert appliance.code(within_s=LOAD_S + 60) == 0, appliance.out + appliance.err
        lines = appliance.out.splitlines()
        assert lines[-1].endswith("all passed"), appliance.out
        assert len([line for line in lines if line.startswith("ok ")]) >= 14
        assert "loading weights" in appliance.err or "starting" in appliance.err


def test_an_engine_that_dies_while_loading_is_a_failure_with_its_last_lines(
    tmp_path: Path,
) -> None:
    engines.require_real()
    broken = tmp_path / "broken"
    shutil.copytree(CHECKPOINT, broken)
    config = json.loads((broken / "config.json").read_text())
    config["num_hidden_layers"] += 1  # a layer more than there are weights for
    (broken / "config.json").write_text(json.dumps(config))
    settings = {**real(broken), "start_timeout_s": LOAD_S}
    with running_process(tmp_path / "box", **settings) as appliance:
        status = appliance.until("failed", within_s=LOAD_S)
        assert status["reason"] == "bad_checkpoint", status
        assert status["hint"]
        assert status["last_lines"]
        with appliance.http() as http:
            health = http.get("/health")
            assert health.status_code == 503
            assert health.json()["reason"] == "bad_checkpoint"
