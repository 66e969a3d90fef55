"""What ``appliance plan`` prints: everything that was chosen, and no secret."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from appliance.planview import print_plan, print_settings
from appliance.settings import SECRETS, Settings, load_settings

SECRET = "s3cr3t-Key_0123456789"
KEYS = {f"APPLIANCE_{name.upper()}": f"{SECRET}-{name}" for name in SECRETS}
FORMS = ("table", "json", "shell")
ATTACH = {"APPLIANCE_ENGINE": "attach", "APPLIANCE_ENGINE_URL": "http://127.0.0.1:8000"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings that serve a checkpoint of one small file."""
    config = {"architectures": ["TinyForCausalLM"], "model_type": "tiny", "num_hidden_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"x" * 2048)
    return load_settings(KEYS, {"model_dir": tmp_path, "profile": "demo"})


def printed(
    capsys: pytest.CaptureFixture[str], settings: Settings, form: str, code: int = 0
) -> str:
    assert print_plan(settings, form) == code
    return capsys.readouterr().out


def test_the_table_shows_choices_with_their_origin_the_model_and_the_command(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    out = printed(capsys, settings, "table")
    assert "box profile demo (measured)" in out
    assert "enforce_eager" in out
    assert "TinyForCausalLM (tiny)" in out
    assert "2.0 KiB in 1 files" in out
    assert "--enforce-eager" in out
    assert "max_waiting" not in out, "what is at its default is left out"


def test_the_shell_form_is_one_command_that_a_shell_reads(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    words = shlex.split(printed(capsys, settings, "shell").replace("\\\n", ""))
    assert words[words.index("vllm") :][:3] == ["vllm", "serve", str(settings.model_dir)]


def test_the_json_form_holds_every_setting_with_its_origin(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    view: dict[str, Any] = json.loads(printed(capsys, settings, "json"))
    assert view["settings"].keys() == Settings.model_fields.keys()
    assert view["settings"]["max_num_seqs"]["origin"].startswith("box profile demo")
    assert view["settings"]["port"] == {"value": 9000, "origin": "default"}
    assert view["model"]["weights_bytes"] == 2048
    assert view["engine"]["argv"][:2] == ["vllm", "serve"]
    assert view["problem"] is None


@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_the_plan_shows_a_secret(
    capsys: pytest.CaptureFixture[str], settings: Settings, form: str
) -> None:
    assert SECRET not in printed(capsys, settings, form)


def test_the_list_of_settings_names_every_variable_whole_and_no_secret(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    print_settings(settings)
    out = capsys.readouterr().out
    missing = [name for name in Settings.model_fields if f"APPLIANCE_{name.upper()} " not in out]
    assert missing == []
    assert SECRET not in out
    assert "…" not in out


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_model_that_is_not_there_is_said_and_the_plan_is_still_shown(
    capsys: pytest.CaptureFixture[str], settings: Settings, form: str
) -> None:
    (settings.model_dir / "model.safetensors").unlink()
    assert print_plan(settings, form) == 1
    out, err = capsys.readouterr()
    assert "vllm" in out
    assert "holds neither model.safetensors" in err
    assert "APPLIANCE_MODEL_DIR" in err


def test_a_model_that_is_not_there_is_a_problem_in_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = json.loads(printed(capsys, load_settings({}, {"model_dir": "/gone"}), "json", code=1))
    assert "/gone does not exist" in view["problem"]["what"]
    assert view["model"] is None


@pytest.mark.parametrize("form", FORMS)
def test_an_engine_of_somebody_else_has_no_command(
    capsys: pytest.CaptureFixture[str], form: str
) -> None:
    out = printed(capsys, load_settings({**KEYS, **ATTACH}), form)
    assert "vllm serve" not in out
    assert "http://127.0.0.1:8000" in out
    assert SECRET not in out
