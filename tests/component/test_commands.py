"""The command line against appliances that run, fail, or are not there."""

import json
import re
import shlex
from pathlib import Path

import pytest

from appliance.cli import main
from tests.appliances import WITHIN_S, ApplianceProcess, RunAppliance, environment, web
from tests.engines import free_port, wait_until
from tests.plans import GOLDEN

COMMANDS = ("run", "plan", "doctor", "smoke", "status", "start", "stop", "key", "kilo", "cert")


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Shell":
    return Shell(monkeypatch, capsys)


class Shell:
    """Runs commands in the environment of an appliance."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.out = ""
        self.err = ""

    def enter(self, env: dict[str, str]) -> None:
        for name, value in env.items():
            self._monkeypatch.setenv(name, value)

    def run(self, *arguments: str) -> int:
        self._capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        self.out, self.err = self._capsys.readouterr()
        assert "Traceback" not in self.err
        return code


@pytest.fixture
def here(shell: Shell, box: ApplianceProcess) -> Shell:
    """A shell beside the shared appliance."""
    shell.enter(dict(box.env))
    return shell


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_example(shell: Shell, command: str) -> None:
    assert shell.run(command, "--help") == 0
    assert "examples:" in shell.out
    assert f"  appliance {command}" in shell.out


# ---- what only looks


def test_status_is_0_when_ready_and_tells_it(here: Shell) -> None:
    assert here.run("status") == 0
    assert "ready" in here.out
    assert "Nikola, context 65536" in here.out
    assert here.run("status", "--json") == 0
    assert json.loads(here.out)["state"] == "ready"
    assert here.run("status", "--lines", "5") == 0
    assert "Application startup complete" in here.out


def test_status_works_by_address_and_operator_key(
    here: Shell, box: ApplianceProcess, tmp_path: Path
) -> None:
    here.enter({"APPLIANCE_STATE_DIR": str(tmp_path)})  # nothing of that appliance is here
    assert here.run("status", "--url", box.base_url, "--key", box.key("operator")) == 0
    assert here.run("status", "--url", box.base_url, "--key", box.key("client")) == 1
    assert "operator key" in here.err
    assert here.run("status", "--url", box.base_url) == 1
    assert "API key is missing" in here.err


def test_key_prints_each_key_alone(here: Shell, box: ApplianceProcess) -> None:
    assert here.run("key") == 0
    assert here.out == box.key("client") + "\n"
    assert here.run("key", "operator") == 0
    assert here.out == box.key("operator") + "\n"


def test_key_kilo_prints_a_configuration_that_works(here: Shell, box: ApplianceProcess) -> None:
    assert here.run("key", "--kilo") == 0
    options = json.loads(here.out)["provider"]["unglitched"]["options"]
    assert options == {"baseURL": f"{box.base_url}/v1", "apiKey": box.key("client")}
    block = here.out
    assert here.run("kilo") == 0
    assert here.out == block


def test_kilo_leaves_the_key_to_the_environment_if_asked(
    here: Shell, box: ApplianceProcess
) -> None:
    assert here.run("kilo", "--no-key") == 0
    assert '"{env:UNGLITCHED_API_KEY}"' in here.out
    assert box.key("client") not in here.out


def test_kilo_takes_the_address_that_a_client_uses_and_no_foreign_one(
    here: Shell, box: ApplianceProcess
) -> None:
    port = box.base_url.rpartition(":")[2]
    assert here.run("kilo", "--url", f"http://localhost:{port}/") == 0
    assert f'"http://localhost:{port}/v1"' in here.out
    assert here.run("kilo", "--url", f"http://127.0.0.1:{free_port()}") == 1
    assert "does not answer" in here.err
    assert here.run("kilo", "--url", box.base_url, "--key", "wrong") == 1
    assert "API key is wrong" in here.err


def test_a_client_gets_a_key_of_its_own_and_loses_it_again(
    here: Shell, box: ApplianceProcess
) -> None:
    assert here.run("key", "new", "laptop", "--max-running", "2") == 0
    key = here.out.strip()
    assert len(key) == 64
    assert key not in here.err
    wait_until(lambda: _opens(box, key), WITHIN_S, "the new key to count")
    assert here.run("key", "list") == 0
    assert re.search(r"^laptop +\d{4}-\d\d-\d\d +2 +-", here.out, re.MULTILINE)
    assert key not in here.out
    assert here.run("key", "new", "laptop") == 1
    assert "--replace" in here.err
    assert here.run("key", "new", "laptop", "--replace", "--kilo") == 0
    assert key not in here.out
    assert '"apiKey"' in here.out
    assert here.run("key", "revoke", "laptop") == 0
    wait_until(lambda: not _opens(box, key), WITHIN_S, "the revoked key to count no more")


def _opens(box: ApplianceProcess, key: str) -> bool:
    with web(box.base_url, key) as client:
        return client.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("new",), "needs a name"),
        (("revoke",), "needs a name"),
        (("revoke", "nobody-here"), "there is no key"),
        (("list", "laptop"), "takes no name"),
        (("new", "Big Name"), "no name for a key"),
        (("new", "operator"), "there always"),
        (("list", "--replace"), "takes no limits"),
        (("new", "a", "--max-running", "0"), "nothing run"),
    ],
)
def test_a_key_command_that_cannot_be_meant_says_why(
    here: Shell, words: tuple[str, ...], says: str
) -> None:
    assert here.run("key", *words) == 1
    assert says in here.err


def test_smoke_passes_against_the_running_appliance(here: Shell, box: ApplianceProcess) -> None:
    box.fake.be(chunk_delay=0.002)
    assert here.run("smoke") == 0, here.out
    assert "14 checks" in here.out
    assert "all passed" in here.out


def test_smoke_fails_and_names_what_failed(here: Shell, box: ApplianceProcess) -> None:
    box.fake.be(garbage=True)
    assert here.run("smoke", box.base_url, "--key", box.key("client")) == 1
    assert "tool call exact path" in here.out.splitlines()[-1]


def test_smoke_with_a_wrong_key_fails_without_a_traceback(
    here: Shell, box: ApplianceProcess
) -> None:
    assert here.run("smoke", "--key", "wrong") == 1
    assert "FAILED" in here.out


# ---- plan needs no appliance


def test_plan_prints_settings_model_and_command(shell: Shell, tmp_path: Path) -> None:
    shell.enter(environment(tmp_path, engine_command="vllm", api_key="s3cret-key"))
    assert shell.run("plan") == 0
    assert "MiniMaxM2ForCausalLM" in shell.out
    assert "vllm serve" in shell.out
    assert shell.run("plan", "--json") == 0
    view = json.loads(shell.out)
    assert view["settings"]["profile"] == {"value": "demo", "origin": "APPLIANCE_PROFILE"}
    assert view["engine"]["argv"][:2] == ["vllm", "serve"]
    assert "s3cret-key" not in shell.out
    assert shell.run("plan", "--settings") == 0
    assert "APPLIANCE_MAX_WAITING" in shell.out
    assert "s3cret-key" not in shell.out


def test_plan_shell_is_the_command_ready_to_paste(shell: Shell, tmp_path: Path) -> None:
    shell.enter(environment(tmp_path, engine_command="vllm"))
    assert shell.run("plan", "--shell") == 0
    words = shlex.split(shell.out.replace("\\\n", " "))
    assert words[words.index("serve") + 1] == str(tmp_path / "model")
    assert any(word.startswith("VLLM_PLUGINS=unglitched_") for word in words)


def test_plan_of_a_missing_model_is_1_and_prints_all_the_same(shell: Shell, tmp_path: Path) -> None:
    shell.enter(environment(tmp_path, model_dir="/nowhere"))
    assert shell.run("plan", "--json") == 1
    assert "/nowhere does not exist" in json.loads(shell.out)["problem"]["what"]
    assert "/nowhere does not exist" in shell.err


def test_plan_for_another_machine_is_78_where_it_does_not_fit(shell: Shell) -> None:
    shell.enter({})
    model = ("--model-file", str(GOLDEN / "models" / "nikola.json"))
    assert shell.run("plan", "--host-file", str(GOLDEN / "hosts" / "spark.json"), *model) == 0
    assert "--max-model-len 27648" in shell.out
    assert shell.run("plan", "--host-file", str(GOLDEN / "hosts/spark-bad-kit.json"), *model) == 78
    assert "it does not fit" in shell.out
    assert "are missing" in shell.err
    assert shell.run("plan", "--host-file", "/nowhere.json", *model) == 78
    assert "/nowhere.json cannot be read" in shell.err


def test_plan_by_force_takes_the_cards_utilization_with_the_guards_on(shell: Shell) -> None:
    shell.enter({"APPLIANCE_GPU_MEMORY_UTILIZATION": "0.95"})
    spark = ("--host-file", str(GOLDEN / "hosts" / "spark.json"))
    nikola = ("--model-file", str(GOLDEN / "models" / "nikola.json"))
    assert shell.run("plan", *spark, *nikola) == 78
    assert "--force" in shell.out
    assert shell.run("plan", *spark, *nikola, "--force") == 0
    assert "forced: " in shell.out
    shell.enter({"APPLIANCE_MEMORY_GUARDS": "off"})
    assert shell.run("plan", *spark, *nikola, "--force") == 78
    assert "APPLIANCE_MEMORY_GUARDS=on" in shell.err


# ---- start and stop


def test_stop_and_start_see_it_through(shell: Shell, run: RunAppliance) -> None:
    box = run()
    box.until("ready")
    shell.enter(dict(box.env))
    assert shell.run("stop") == 0
    assert "stopped" in shell.out
    assert shell.run("status") == 1
    assert shell.run("stop") == 0  # it is stopped already
    operator = ("--url", box.base_url, "--key", box.key("operator"))
    assert shell.run("start", *operator, "--json") == 0
    assert json.loads(shell.out)["state"] == "ready"
    assert shell.run("stop", "--no-wait", *operator) == 0
    box.until("stopped")
    assert shell.run("start", "--no-wait") == 0
    assert "appliance status" in shell.out
    box.until("ready")


def test_start_is_1_when_the_engine_fails_again_and_stop_settles_it(
    shell: Shell, run: RunAppliance
) -> None:
    box = run(model_dir="/nowhere")
    box.until("failed")
    shell.enter(dict(box.env))
    assert shell.run("status") == 1
    assert "/nowhere does not exist" in shell.out
    assert "APPLIANCE_MODEL_DIR" in shell.out  # what to type next
    assert shell.run("start") == 1
    assert "failed" in shell.out
    assert shell.run("stop") == 0
    assert box.status()["state"] == "stopped"


# ---- nobody there


@pytest.mark.parametrize("command", ["status", "start", "stop", "smoke", "key"])
def test_without_an_appliance_one_clear_message_and_1(
    shell: Shell, tmp_path: Path, command: str
) -> None:
    shell.enter(environment(tmp_path))
    assert shell.run(command) == 1
    assert shell.err.startswith("appliance: ")
    assert "start" in shell.err  # what to type next
    assert shell.out == ""


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{free}", "http://127.0.0.1:port", "spark.local", "http://["]
)
@pytest.mark.parametrize("command", ["status", "smoke"])
def test_an_address_that_leads_nowhere_is_1_and_no_traceback(
    shell: Shell, tmp_path: Path, command: str, url: str
) -> None:
    url = url.format(free=free_port())
    shell.enter(environment(tmp_path))
    where = (url,) if command == "smoke" else ("--url", url)
    assert shell.run(command, *where, "--key", "any") == 1
    assert "appliance: " in shell.err or "FAILED" in shell.out


def test_an_address_of_something_else_is_called_no_appliance(
    here: Shell, box: ApplianceProcess
) -> None:
    assert here.run("status", "--url", box.fake.url, "--key", "any") == 1
    assert "no appliance" in here.err
