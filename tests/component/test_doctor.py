"""``appliance doctor`` as it is typed, over made-up programs and a made-up Docker engine."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from appliance.cli import main
from tests.appliances import ApplianceProcess, environment
from tests.engines import StartFake, free_port
from tests.fakes.docker_engine import FakeDocker, docker_engine

SMI = "NVIDIA GB10, 580.159.04, 12.1, 405, 3003"


class Host:
    """This machine, but for the programs and the engine that a test makes up."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        self.programs = folder / "bin"
        self.programs.mkdir()
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.out = ""
        self.err = ""
        monkeypatch.setenv("PATH", f"{self.programs}:/usr/bin:/bin")
        monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/none.sock")
        monkeypatch.chdir(folder)
        for name in ("docker", "docker-compose", "nvidia-smi", "timedatectl"):
            self.program(name, "exit 1")
        self.enter(environment(folder, engine_command="vllm", host="127.0.0.1", port=free_port()))
        self.program("vllm", "exit 0")

    def enter(self, env: dict[str, str]) -> None:
        for name, value in env.items():
            self._monkeypatch.setenv(name, value)

    def program(self, name: str, body: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def compose(self, config: dict[str, Any]) -> None:
        """Put a compose.yaml into the folder that resolves to this."""
        (self.folder / "compose.yaml").write_text("services: {}\n")
        (self.folder / "config.json").write_text(json.dumps(config))
        self.program(
            "docker",
            'case "$*" in *version*) echo 2.26.1;; '
            f'*config*) cat "{self.folder}/config.json";; *) exit 1;; esac',
        )

    def doctor(self, *arguments: str) -> int:
        self._capsys.readouterr()
        code = main(["doctor", *arguments])
        self.out, self.err = self._capsys.readouterr()
        assert self.err == ""
        return code

    def rows(self, *arguments: str) -> dict[str, tuple[str, str]]:
        """Return level and value by name, as a program reads them; they agree with the code."""
        code = self.doctor("--json", *arguments)
        told = json.loads(self.out)
        assert told["ok"] == (code == 0)
        assert told["ok"] == all(row["level"] != "fail" for row in told["rows"])
        return {row["name"]: (row["level"], row["value"]) for row in told["rows"]}


@pytest.fixture
def host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Host:
    return Host(tmp_path, monkeypatch, capsys)


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


SERVICE: dict[str, Any] = {
    "image": "unglitched:demo",
    "environment": {"APPLIANCE_MEMORY_PROFILE": "safe"},
    "ports": [{"host_ip": "0.0.0.0", "target": 9000, "published": "0"}],
    "build": {"args": {"BUILD_DIGEST": ""}},
}


# ---- a host without Docker


def test_a_demo_machine_without_docker_is_warned_and_not_failed(host: Host) -> None:
    assert host.doctor() == 0
    assert "warn  docker" in host.out
    assert "-> install Docker; or do without: appliance run" in host.out
    assert "ok    model" in host.out
    assert host.out.splitlines()[-1].endswith("nothing failed")


def test_every_row_but_an_ok_one_says_what_to_type(host: Host) -> None:
    host.doctor("--json", "--profile", "spark", "--model-dir", "/nowhere")
    rows = json.loads(host.out)["rows"]
    bad = [row for row in rows if row["level"] != "ok"]
    assert {row["name"] for row in bad} >= {"docker", "gpu", "model"}
    assert [row["name"] for row in bad if not row["next"] and row["name"] != "memory"] == []


def test_a_spark_is_looked_at_with_its_gpu_and_its_clock(host: Host) -> None:
    host.program("nvidia-smi", f"echo '{SMI}'")
    host.program("timedatectl", "echo no")
    rows = host.rows("--profile", "spark")
    assert rows["gpu"] == ("ok", "NVIDIA GB10, compute capability 12.1")
    assert rows["driver"][0] == "ok"
    assert rows["clock"][0] == "warn"
    assert "not synchronized" in rows["clock"][1]


def test_without_model_and_gpu_it_fails_and_names_both(host: Host) -> None:
    assert host.doctor("--profile", "spark", "--model-dir", "/nowhere") == 1
    last = host.out.splitlines()[-1]
    assert "FAILED: " in last
    assert "gpu, model" in last


def test_what_a_token_reads_is_told_where_there_is_a_model(host: Host) -> None:
    level, value = host.rows("--profile", "spark")["decode"]
    assert level == "ok"
    assert " a token (" in value
    assert value.endswith(" tokens/s at most at 273 GB/s; computed")
    assert "decode" not in host.rows("--model-dir", "/nowhere")


def test_an_incomplete_model_folder_fails(host: Host) -> None:
    (host.folder / "model" / "model.safetensors").write_bytes(b"\0" * 4)
    level, value = host.rows()["model"]
    assert level == "fail"
    assert "model.safetensors" in value


def test_settings_that_are_wrong_end_it_with_78(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.enter({"APPLIANCE_PORT": "many"})
    assert main(["doctor"]) == 78
    assert "APPLIANCE_PORT='many'" in capsys.readouterr().err


# ---- with Docker


def test_beside_a_healthy_container_all_is_ok_but_the_digests(
    host: Host, serving: ExitStack
) -> None:
    fake = FakeDocker(image="image-arm64", containers=("container-healthy",))
    host.enter({"DOCKER_HOST": serving.enter_context(docker_engine(host.folder, fake))})
    host.compose({"services": {"demo": SERVICE}})
    rows = host.rows()
    assert {name for name, (level, _) in rows.items() if level != "ok"} == {"digests", "network"}
    assert rows["image"][1].startswith("unglitched:demo ")
    assert rows["model"] == ("ok", "in the image")
    assert "while the container unglitched-appliance-1 runs" in rows["memory"][1]
    assert "whoever is there can read keys" in rows["network"][1]


def test_the_containers_model_folder_is_the_hosts_own(host: Host) -> None:
    bind = {"type": "bind", "source": "/data/none", "target": "/models/Nikola"}
    host.compose({"services": {"demo": {**SERVICE, "volumes": [bind]}}})
    assert host.doctor() == 1
    assert "/data/none does not exist" in host.out
    assert "-> set MODEL_PATH in .env" in host.out
    assert host.rows("--model-dir", str(host.folder / "model"))["model"][0] == "ok"


def test_a_setting_of_the_container_that_is_wrong_is_a_row(host: Host) -> None:
    wrong = {**SERVICE, "environment": {"APPLIANCE_MAX_NUM_SEQS": "many"}}
    host.compose({"services": {"demo": wrong}})
    level, value = host.rows()["settings"]
    assert level == "fail"
    assert "max_num_seqs" in value


def test_files_that_compose_refuses_are_quoted(host: Host) -> None:
    host.compose({})
    host.program(
        "docker", 'case "$*" in *version*) echo 2.26.1;; *) echo "no such file" >&2; exit 1;; esac'
    )
    assert host.rows()["compose file"] == ("warn", "no such file")


# ---- who is there already


def test_the_port_of_our_appliance_is_its_own_and_anothers_is_not(
    host: Host, box: ApplianceProcess
) -> None:
    port = box.base_url.rpartition(":")[2]
    host.enter({"APPLIANCE_PORT": port})
    level, value = host.rows()["port"]
    assert level == "fail"
    assert "is taken by another program" in value
    rows = host.rows("--state-dir", str(box.state_dir))
    assert rows["port"] == ("ok", f"{port} on 127.0.0.1: an appliance runs here, ready")
    assert "while an appliance runs here, ready" in rows["memory"][1]


def test_an_attached_engine_is_asked_and_model_and_gpu_are_not(
    host: Host, fake_engine: StartFake
) -> None:
    engine = fake_engine()
    host.enter({"APPLIANCE_ENGINE": "attach", "APPLIANCE_ENGINE_URL": engine.base_url})
    rows = host.rows("--profile", "spark", "--model-dir", "/nowhere")
    assert rows["engine"] == ("ok", f"{engine.base_url} is healthy, and started elsewhere")
    assert not {"gpu", "driver", "model", "memory", "nvidia runtime"} & rows.keys()


def test_an_attached_engine_that_is_gone_fails(host: Host) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    host.enter({"APPLIANCE_ENGINE": "attach", "APPLIANCE_ENGINE_URL": url})
    assert host.rows()["engine"][0] == "fail"


# ---- nobody is waited for


@pytest.mark.long
def test_whatever_hangs_is_given_up_and_told(host: Host, serving: ExitStack) -> None:
    """Half a minute of patience: a driver, a clock, Compose and an engine that never answer."""
    fake = FakeDocker(silent=("/version",))
    host.enter({"DOCKER_HOST": serving.enter_context(docker_engine(host.folder, fake))})
    for name in ("nvidia-smi", "timedatectl", "docker", "docker-compose"):
        host.program(name, "sleep 300")
    rows = host.rows("--profile", "spark")
    assert "does not answer" in rows["gpu"][1]
    assert "does not answer" in rows["docker"][1]
    assert "does not answer" in rows["compose"][1]
    assert rows["clock"][0] == "ok"


def test_an_engine_url_that_takes_and_never_answers_is_given_up(host: Host) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        host.enter({"APPLIANCE_ENGINE": "attach", "APPLIANCE_ENGINE_URL": url})
        level, value = host.rows()["engine"]
    assert level == "fail"
    assert "ReadTimeout" in value
