"""The plug-ins do on CPU what they are for: checked in the engine's own environment."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE_PYTHON = ROOT / ".demo" / "engine" / "bin" / "python"


@pytest.mark.engine
@pytest.mark.skipif(not ENGINE_PYTHON.exists(), reason="no CPU engine here: make setup")
def test_routing_equals_the_reference_and_readers_nap() -> None:
    # The plug-in of this tree, not the installed one, which may be older.
    done = subprocess.run(
        [str(ENGINE_PYTHON), str(Path(__file__).with_name("cpu_plugin_check.py"))],
        env={**os.environ, "PYTHONPATH": str(ROOT), "VLLM_PLUGINS": ""},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert len(outcome) > 10
    assert {name: wrong for name, wrong in outcome.items() if wrong} == {}
