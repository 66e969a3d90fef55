"""Whether the served context is enough for Kilo: plan and doctor say so before the first turn."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.doctor.modelrows import memory_rows
from appliance.doctor.row import Level
from appliance.facts import HostFacts
from appliance.kilo import ROOMY_TOKENS
from appliance.planview import print_plan
from appliance.settings import Settings, load_settings
from tests.plans import GOLDEN, golden_host, golden_model

SPARK = GOLDEN / "hosts" / "spark.json"
NIKOLA = GOLDEN / "models" / "nikola.json"
GIB = 2**30


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({}, {"profile": "spark", "state_dir": tmp_path})


def larger() -> HostFacts:
    host = golden_host("spark")
    return replace(host, memory_available_bytes=host.memory_available_bytes + 4 * GIB)


def test_the_plan_warns_of_a_short_context_and_names_the_cure(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    assert print_plan(settings, "table", SPARK, NIKOLA) == 0
    out = capsys.readouterr().out
    assert "27,648 tokens of context are little for Kilo Code" in out
    assert "-> free memory for more: appliance plan names what would" in out


def test_a_context_that_was_chosen_too_short_is_to_be_chosen_longer(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    short = load_settings({}, {"profile": "spark", "max_model_len": "16384"})
    assert print_plan(short, "table", SPARK, NIKOLA) == 0
    assert f"set APPLIANCE_MAX_MODEL_LEN to {ROOMY_TOKENS} or more" in capsys.readouterr().out


def test_the_plan_for_programs_tells_kilos_limits_and_the_warning(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    assert print_plan(settings, "json", SPARK, NIKOLA) == 0
    kilo = json.loads(capsys.readouterr().out)["kilo"]
    assert kilo["limit"] == {"context": 24_330, "output": 4_608}
    assert "27,648" in kilo["warning"]
    assert "appliance plan" in kilo["hint"]


def test_the_doctor_has_a_row_for_a_short_context_and_none_for_a_roomy_one(
    settings: Settings,
) -> None:
    model = golden_model("nikola")
    short = [row for row in memory_rows(settings, golden_host("spark"), model, "")
             if row.name == "Kilo Code"]  # fmt: skip
    assert [row.level for row in short] == [Level.WARN]
    assert short[0].next
    roomy = list(memory_rows(settings, larger(), model, ""))
    assert "49,152 tokens" in roomy[0].value
    assert [row.name for row in roomy] == ["memory"]
