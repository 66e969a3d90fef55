"""``appliance bench speed`` with the real llama-benchy against the real engine."""

import json
from pathlib import Path

import pytest

from appliance.cli import main
from tests.appliances import ApplianceProcess
from tests.engines import CHECKPOINT, ROOT, EngineHandle

pytestmark = [pytest.mark.engine, pytest.mark.long]

PNG = b"\x89PNG\r\n\x1a\n"


def test_an_appliance_and_its_engine_are_measured_in_turn(
    wide: ApplianceProcess,
    real_engine: EngineHandle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in wide.env.items():
        monkeypatch.setenv(name, value)
    key = tmp_path / "engine.key"
    key.write_text(real_engine.key)
    out = tmp_path / "speed"
    command = ["bench", "speed", "--out", str(out), "--text", str(ROOT / "README.md")]
    command += ["--tokenizer", str(CHECKPOINT), "--names", "appliance,engine"]
    command += ["--against", real_engine.base_url, "--against-key-file", str(key)]
    command += ["--prompts", "256,1024", "--concurrency", "1,2", "--decode", "16", "--rounds", "2"]
    assert main(command) == 0
    told = json.loads((out / "report.json").read_text())
    assert len(told["points"]) == 8
    for point in told["points"]:
        assert point["rounds"] == 2
        assert point["prefill_tps"]["low"] > 0
        assert point["decode_tps"]["low"] > 0
        assert point["ttft_ms"]["count"] == 2 * point["concurrency"]
        assert point["low_water_bytes"] > 0
    assert [ratio["paired"] for ratio in told["ratios"]] == [True] * 4
    assert (out / "chart.png").read_bytes().startswith(PNG)
    secrets = [real_engine.key.encode(), wide.key("client").encode()]
    kept = [path for path in out.iterdir() if any(one in path.read_bytes() for one in secrets)]
    assert kept == []
