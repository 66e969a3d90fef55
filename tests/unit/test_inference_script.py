"""``extras/inference_minimax.sh`` stands alone; this ties its flags to the appliance's."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.engines import EXTRAS, ROOT
from tests.plans import plan, serve_arguments

SCRIPT = EXTRAS / "inference_minimax.sh"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "VLLM": "true", **variables}
    return subprocess.run(
        [str(SCRIPT), *arguments], capture_output=True, text=True, env=env, check=False, timeout=60
    )


def words(*arguments: str, **variables: str) -> list[str]:
    result = run(*arguments, DRY_RUN="1", **variables)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def served(command: list[str]) -> list[str]:
    return command[command.index("serve") + 1 :]


def test_its_flags_are_those_of_the_spark_plan(model: Path) -> None:
    ours = serve_arguments(plan("spark", "nikola"))
    theirs = served(words(str(model), RUNNER="docker"))
    assert theirs[1:] == ours[1:]


def test_its_environment_is_that_of_the_spark_plan(model: Path) -> None:
    launch = plan("spark", "nikola")
    own = {name: value for name, value in launch.own_env().items() if name != "VLLM_API_KEY"}
    own.pop("PYTHONUNBUFFERED")  # for our reading of its progress
    command = words(str(model), RUNNER="bare")
    assert dict(w.split("=", 1) for w in command[1 : command.index("true")]) == own


@pytest.mark.parametrize("runner", ["docker", "podman", "dockless"])
def test_a_container_gets_model_and_extras_read_only_and_the_key_by_name(
    model: Path, runner: str
) -> None:
    command = words(str(model), RUNNER=runner, VLLM_API_KEY="hunter2")
    assert command[:2] == [runner, "run"]
    assert f"{model}:/model:ro" in command
    assert f"{EXTRAS}:/extras:ro" in command
    assert "--privileged" not in command
    assert not any("hunter2" in word for word in command)


def test_the_folder_above_the_script_is_the_default_model() -> None:
    result = run(DRY_RUN="1", RUNNER="bare")
    # the clone is no checkpoint: it says so, naming it
    assert result.returncode == 1
    assert f"{ROOT} has no config.json" in result.stderr


def test_flags_after_two_dashes_come_last_and_win(model: Path) -> None:
    command = words(str(model), "--", "--max-model-len", "1024", RUNNER="bare")
    assert command[-2:] == ["--max-model-len", "1024"]


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "says"),
    [
        (["/no/such/folder"], {}, 1, "/no/such/folder does not exist"),
        (["--foo"], {}, 2, "--foo is no option"),
        ([], {"RUNNER": "lxc"}, 1, "config.json"),
    ],
)
def test_bad_input_ends_with_the_value_and_what_to_type(
    arguments: list[str], variables: dict[str, str], code: int, says: str
) -> None:
    result = run(*arguments, **variables)
    assert result.returncode == code
    assert says in result.stderr
    assert "->" in result.stderr


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"RUNNER": "lxc"}, "RUNNER=lxc is no runner"),
        ({"RUNNER": "bare", "VLLM": "no-such-vllm"}, "no-such-vllm is not installed"),
        ({"RUNNER": "bare", "HOST": "0.0.0.0"}, "set VLLM_API_KEY"),
    ],
)
def test_a_bad_variable_is_named(model: Path, variables: dict[str, str], says: str) -> None:
    result = run(str(model), **variables)
    assert result.returncode != 0
    assert says in result.stderr
