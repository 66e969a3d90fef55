"""What ``appliance plan`` prints: everything that was chosen, and no secret."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import SettingsError
from appliance.factsfile import read_host, read_model
from appliance.host import memory_snapshot
from appliance.planview import print_plan, print_settings
from appliance.settings import SECRETS, Settings, load_settings
from tests.checkpoints import TINY, write_checkpoint
from tests.plans import GOLDEN, golden_host, golden_model

SECRET = "s3cr3t-Key_0123456789"
KEYS = {f"APPLIANCE_{name.upper()}": f"{SECRET}-{name}" for name in SECRETS}
HOSTS, MODELS = GOLDEN / "hosts", GOLDEN / "models"
VM, SPARK, BAD_KIT = (HOSTS / f"{name}.json" for name in ("demo-24g", "spark", "spark-bad-kit"))
NIKOLA = MODELS / "nikola.json"
FORMS = ("table", "json", "shell")
ATTACH = {"APPLIANCE_ENGINE": "attach", "APPLIANCE_ENGINE_URL": "http://127.0.0.1:8000"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings that serve a checkpoint of one small file."""
    write_checkpoint(tmp_path, {"BF16": 2048}, **TINY)
    return load_settings(KEYS, {"model_dir": tmp_path, "profile": "demo"})


def printed(
    capsys: pytest.CaptureFixture[str], settings: Settings, form: str, code: int = 0, host: Any = VM
) -> str:
    assert print_plan(settings, form, host) == code
    return capsys.readouterr().out


def test_the_table_shows_choices_with_their_origin_the_model_and_the_command(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    out = printed(capsys, settings, "table")
    assert "box profile demo (measured)" in out
    assert "enforce_eager" in out
    assert "MiniMaxM2ForCausalLM (minimax_m2)" in out
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
    assert print_plan(settings, form, VM) == 1
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


# ---- memory


def test_the_table_begins_with_the_memory(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    out = printed(capsys, settings, "table")
    assert out.startswith("memory: 23.54 GiB\n")
    assert out.index("kill floor") < out.index("the plan") < out.index("box profile")


def test_the_json_form_holds_the_whole_plan_and_the_facts_that_it_is_made_of(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    view = json.loads(printed(capsys, settings, "json"))
    memory = view["memory"]
    assert sum(row["bytes"] for row in memory["rows"]) == view["host"]["memory_total_bytes"]
    assert memory["max_model_len"] == 65_536
    assert memory["floors"]["kill_bytes"] == 2**29
    assert memory["warnings"] == []
    assert read_host(json.dumps(view["host"]), "f") == golden_host("demo-24g")
    assert read_model(json.dumps(view["model"]), "f").folder == settings.model_dir


def test_without_a_file_the_plan_is_for_this_machine(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    print_plan(settings, "json")  # whether it fits here is not the question
    view = json.loads(capsys.readouterr().out)
    assert view["host"]["memory_total_bytes"] == memory_snapshot()["MemTotal"]


def test_files_stand_for_a_machine_and_a_checkpoint_that_are_not_here(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert print_plan(load_settings({}), "json", SPARK, NIKOLA) == 0
    view = json.loads(capsys.readouterr().out)
    assert view["model"]["weights_bytes"] == golden_model("nikola").weights_bytes
    argv = view["engine"]["argv"]
    assert argv[argv.index("--gpu-memory-utilization") + 1] == "0.8505"


def test_what_does_not_fit_is_78_with_the_table_and_every_shortfall(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert print_plan(load_settings({}), "table", BAD_KIT, NIKOLA) == 78
    out, err = capsys.readouterr()
    assert out.startswith("memory: 121.69 GiB\n")
    assert "MISSING" in out
    assert "it does not fit" in out
    assert "gnome-shell (2211)" in out
    assert "vllm serve" not in out, "a command that nobody planned"
    assert "11.7 GiB are missing" in err


def test_what_does_not_fit_is_a_problem_in_json_with_every_shortfall(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert print_plan(load_settings({}), "json", BAD_KIT, NIKOLA) == 78
    view = json.loads(capsys.readouterr().out)
    assert (view["memory"], view["engine"]) == (None, None)
    assert view["problem"]["code"] == "does_not_fit"
    assert len(view["problem"]["shortfalls"]) == 3
    assert view["problem"]["shortfalls"][0]["remedies"]
    assert sum(row["bytes"] for row in view["problem"]["table"]) == (
        golden_host("spark-bad-kit").memory_total_bytes
    )


@pytest.mark.parametrize("host", [BAD_KIT, SPARK], ids=["does not fit", "no model"])
def test_nothing_to_paste_is_printed_where_there_is_no_plan(
    capsys: pytest.CaptureFixture[str], host: Path
) -> None:
    model = NIKOLA if host == BAD_KIT else None
    settings = load_settings({}, {"model_dir": "/gone"})
    assert print_plan(settings, "shell", host, model) == (78 if model else 1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err


def test_a_forced_plan_is_shown_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    forced = load_settings({}, {"gpu_memory_utilization": "0.95", "memory_force": "on"})
    assert print_plan(forced, "table", SPARK, NIKOLA) == 0
    out = capsys.readouterr().out
    assert "forced: " in out
    assert "--gpu-memory-utilization 0.95" in out


@pytest.mark.parametrize("content", [None, b"\xff", b"{}"], ids=["gone", "no text", "no facts"])
def test_a_file_that_holds_no_facts_is_an_error_that_names_it(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "host.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"host\.json") as caught:
        print_plan(load_settings({}), "table", path, NIKOLA)
    assert caught.value.exit_code == 78


def test_sizes_are_shown_with_their_units(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    assert "256.0 MiB" in printed(capsys, settings, "table")
    print_settings(load_settings({}))
    assert "8.0 GiB" in capsys.readouterr().out, "load_free_floor, which may be none"
