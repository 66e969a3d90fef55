"""What the doctor sees of a Docker engine: the real SDK, over a socket, on recorded answers."""

import hashlib
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from appliance.doctor.dockerfacts import DockerFacts
from appliance.doctor.dockerlook import look_at_docker
from appliance.doctor.dockerrows import docker_rows
from appliance.doctor.row import Level, Row, Unseen, exit_code
from tests.fakes.docker_engine import FakeDocker, docker_engine

IMAGE = "unglitched:spark"
ENGINE = {
    "format": 1,
    "source": "wheel",
    "vllm": "0.33.0",
    "target": "spark",
    "patches": ["0001-a"],
}


class See(Protocol):
    def __call__(self, fake: FakeDocker, call_s: float = 10) -> DockerFacts | Unseen: ...


@pytest.fixture
def see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[See]:
    """Look at a fake engine."""
    with ExitStack() as stack:

        def look(fake: FakeDocker, call_s: float = 10) -> DockerFacts | Unseen:
            monkeypatch.setenv("DOCKER_HOST", stack.enter_context(docker_engine(tmp_path, fake)))
            return look_at_docker(IMAGE, call_s)

        yield look


def rows_of(docker: DockerFacts | Unseen, *, needs_gpu: bool = True) -> dict[str, Row]:
    return {row.name: row for row in docker_rows(docker, IMAGE, needs_gpu=needs_gpu)}


CONTAINER = "container unglitched-appliance-1"


# ---- an engine that answers


def test_a_healthy_box_is_ok_in_every_row(see: See) -> None:
    fake = FakeDocker(image="image-arm64", containers=("container-healthy",))
    rows = rows_of(see(fake))
    assert [row.level for row in rows.values()] == [Level.OK] * 4
    assert rows["docker"].value.startswith("28.2.2 (API 1.50) at unix:///")
    assert rows["nvidia runtime"].value == "registered"
    assert rows["image"].value == "unglitched:spark 0.1.0 arm64 18.0 GiB"
    assert rows[CONTAINER].value == "running, healthy"


def test_an_engine_without_the_nvidia_runtime_fails_where_a_gpu_is_needed(see: See) -> None:
    docker = see(FakeDocker(info="info-plain"))
    row = rows_of(docker)["nvidia runtime"]
    assert row.level is Level.FAIL
    assert "io.containerd.runc.v2, runc" in row.value
    assert row.next.startswith("sudo nvidia-ctk runtime configure")
    assert "nvidia runtime" not in rows_of(docker, needs_gpu=False)


def test_a_gpu_by_cdi_is_as_good_as_the_runtime(see: See) -> None:
    row = rows_of(see(FakeDocker(info="info-cdi")))["nvidia runtime"]
    assert (row.level, row.value) == (Level.OK, "by CDI: nvidia.com/gpu=0")


def test_a_rootless_engine_is_told_as_one(see: See) -> None:
    docker = see(FakeDocker(version="version-20-amd64", info="info-rootless"))
    assert "20.10.24+dfsg1 (API 1.41, rootless)" in rows_of(docker)["docker"].value
    assert isinstance(docker, DockerFacts)
    assert docker.folder == "/home/user/.local/share/docker"


def test_an_engine_older_than_20_10_fails(see: See) -> None:
    row = rows_of(see(FakeDocker(version="version-19-amd64")))["docker"]
    assert row.level is Level.FAIL
    assert "19.03.15" in row.value


def test_one_older_than_25_is_warned_of_for_the_compose_file_wants_that(see: See) -> None:
    row = rows_of(see(FakeDocker(version="version-20-amd64")))["docker"]
    assert row.level is Level.WARN
    assert "older than 25" in row.value


def test_an_image_of_another_architecture_fails_and_a_missing_one_is_to_be_made(see: See) -> None:
    row = rows_of(see(FakeDocker(image="image-amd64")))["image"]
    assert row.level is Level.FAIL
    assert "amd64" in row.value
    assert "this engine runs arm64" in row.value


def test_a_missing_image_is_to_be_made(see: See) -> None:
    row = rows_of(see(FakeDocker()))["image"]
    assert (row.level, row.next) == (Level.WARN, "make image")


@pytest.mark.parametrize(
    ("recorded", "level", "told", "hint"),
    [
        ("container-starting", Level.WARN, "not ready yet", "docker logs"),
        ("container-unhealthy", Level.FAIL, 'unhealthy: {"status":"not_ready",', "docker logs"),
        ("container-older", Level.WARN, "of an older build than", "docker compose up -d"),
        ("container-exited", Level.FAIL, "exited with 78: its settings are wrong", "docker logs"),
        ("container-stopped", Level.WARN, "exited with 0: it was stopped", "docker compose up"),
        ("container-oom", Level.FAIL, "exited with 137: its cgroup had no mem", "docker logs"),
        ("container-no-gpu", Level.FAIL, 'could not select device driver "nvidia"', "docker logs"),
    ],
)
def test_a_container_is_told_by_its_state(
    see: See, recorded: str, level: Level, told: str, hint: str
) -> None:
    row = rows_of(see(FakeDocker(image="image-arm64", containers=(recorded,))))[CONTAINER]
    assert row.level is level
    assert told in row.value
    assert hint in row.next


def test_what_its_health_check_said_stays_on_one_line(see: See) -> None:
    row = rows_of(see(FakeDocker(containers=("container-unhealthy",))))[CONTAINER]
    assert '"state":"failed", "reason":"gave_up"}' in row.value
    assert "\n" not in row.value


def test_the_engine_inside_is_read_from_the_container(see: See) -> None:
    fake = FakeDocker(containers=("container-exited",), engine_json=json.dumps(ENGINE))
    docker = see(fake)
    assert isinstance(docker, DockerFacts)
    (container,) = docker.containers
    assert container.engine is not None
    assert (container.engine.vllm, container.engine.patches) == ("0.33.0", ("0001-a",))


def test_an_engine_json_that_is_none_is_a_problem_and_no_traceback(see: See) -> None:
    docker = see(FakeDocker(containers=("container-healthy",), engine_json="{"))
    assert isinstance(docker, DockerFacts)
    engine = docker.containers[0].engine
    assert engine is not None
    assert engine.problem


def test_nothing_is_changed_by_looking(see: See) -> None:
    fake = FakeDocker(image="image-arm64", containers=("container-healthy",))
    see(fake)
    assert set(fake.asked) == {
        *("/version", "/info", "/images/unglitched:spark/json", "/containers/json"),
        *("/containers/0/json", "/containers/0/archive"),
    }


def test_what_a_real_engine_answered_is_read(see: See) -> None:
    """As 26.1.5 answered beside the demo's container, but for the names of its machine."""
    fake = FakeDocker(
        version="real-version",
        info="real-info",
        image="real-image-demo",
        containers=("real-container-demo",),
    )
    rows = rows_of(see(fake), needs_gpu=False)
    assert rows["docker"].value.startswith("26.1.5+dfsg1 (API 1.45) at unix://")
    assert "amd64 1.4 GiB" in rows["image"].value
    assert rows["container unglitched-demo-1"].level in (Level.OK, Level.WARN)
    assert "running, healthy" in rows["container unglitched-demo-1"].value


# ---- one that does not


def refusal(docker: DockerFacts | Unseen) -> Unseen:
    assert isinstance(docker, Unseen)
    rows = rows_of(docker)
    assert {row.level for row in rows.values()} == {Level.WARN}  # one may do without Docker
    assert exit_code(rows.values()) == 0
    assert list(rows) == ["docker", "image", "container"]
    return docker


def test_without_a_socket_docker_is_to_be_installed_or_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    found = refusal(look_at_docker(IMAGE))
    assert found.why == f"unix://{tmp_path}/none.sock: there is no socket"
    assert "appliance run" in found.next


def test_a_socket_that_nobody_serves_is_to_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "d.sock"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/d.sock")
    found = refusal(look_at_docker(IMAGE))
    assert "nobody answers" in found.why
    assert found.next == "sudo systemctl start docker"


@pytest.mark.parametrize("route", ["/version", "/info", "/containers/json"])
def test_an_engine_that_hangs_is_given_up(see: See, route: str) -> None:
    found = refusal(see(FakeDocker(silent=(route,)), call_s=0.2))
    assert "does not answer in time" in found.why
    assert found.next == "sudo systemctl restart docker"


@pytest.mark.parametrize("route", ["/version", "/info", "/containers/json"])
def test_what_is_no_docker_engine_is_told_and_no_traceback(see: See, route: str) -> None:
    assert refusal(see(FakeDocker(garbage=(route,)))).why


def test_an_engine_that_fails_is_quoted(see: See) -> None:
    assert "layer does not exist" in refusal(see(FakeDocker(broken=("/info",)))).why


@pytest.mark.parametrize("address", ["nonsense://x", "tcp://127.0.0.1:1", "unix://"])
def test_an_address_that_leads_nowhere_is_told(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    assert refusal(look_at_docker(IMAGE, 2)).why


def test_the_context_of_dockers_command_line_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a rootless engine sets itself up."""
    config = tmp_path / "config"
    with docker_engine(tmp_path, FakeDocker()) as address:
        name = "rootless"
        meta = config / "contexts" / "meta" / _digest(name)
        meta.mkdir(parents=True)
        endpoint = {"Host": address, "SkipTLSVerify": False}
        about = {"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}
        (meta / "meta.json").write_text(json.dumps(about))
        (config / "config.json").write_text(json.dumps({"currentContext": name}))
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        monkeypatch.setenv("DOCKER_CONFIG", str(config))
        docker = look_at_docker(IMAGE)
    assert isinstance(docker, DockerFacts)
    assert docker.address == address


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
