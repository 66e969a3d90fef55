"""What is in the demo image, and what is not."""

import json

import pytest

from tests.container import world
from tests.container.world import BASE, DEMO, docker, inspect

pytestmark = pytest.mark.container

LIMIT_BYTES = 1_600_000_000
UID = "10001:10001"
SETUID = 0o6000


def sh(image: str, command: str, *options: str) -> str:
    """Return what a command printed in a hardened container of the image."""
    hardened = ("--read-only", "--cap-drop", "ALL", "--network", "none", "--init")
    return docker("run", "--rm", *hardened, *options, "--entrypoint", "sh", image, "-c", command)


def test_it_is_at_most_1_6_gb(image: str) -> None:
    assert inspect("image", image)["Size"] <= LIMIT_BYTES


def test_the_sidecar_and_the_engine_have_layers_of_their_own(image: str) -> None:
    rows = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    copied = [line for line in rows.splitlines() if line.startswith("COPY")]
    for folder in ("/opt/engine /opt/engine", "/opt/appliance /opt/appliance"):
        assert sum(folder in line for line in copied) == 1
    # What changes most, our code, comes after what changes least.
    assert copied.index(next(line for line in copied if "/code" in line)) < copied.index(
        next(line for line in copied if "/opt/engine" in line)
    )


def test_it_runs_as_a_fixed_user_that_has_a_name(image: str) -> None:
    assert inspect("image", image)["Config"]["User"] == UID
    assert sh(image, "id -u; id -un").split() == ["10001", "unglitched"]


def test_it_carries_oci_labels(image: str) -> None:
    labels = inspect("image", image)["Config"]["Labels"]
    names = ("title", "description", "licenses", "version", "revision")
    assert all(labels[f"org.opencontainers.image.{name}"] for name in names)
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_readiness_is_its_health_and_sigterm_its_end(image: str) -> None:
    config = inspect("image", image)["Config"]
    assert config["Healthcheck"]["Test"] == ["CMD", "/opt/appliance/bin/ready.py"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["/opt/appliance/bin/appliance"]


def test_every_cache_is_on_the_one_volume(image: str) -> None:
    config = inspect("image", image)["Config"]
    (volume,) = config["Volumes"]
    env = dict(entry.split("=", 1) for entry in config["Env"])
    names = (
        *("HOME", "XDG_CACHE_HOME", "VLLM_CACHE_ROOT", "FLASHINFER_WORKSPACE_BASE"),
        *("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH", "APPLIANCE_STATE_DIR"),
    )
    assert {name: env[name].startswith(f"{volume}/") for name in names} == dict.fromkeys(
        names, True
    )


def test_it_says_which_engine_it_has(image: str) -> None:
    facts = json.loads(sh(image, "cat /opt/engine/ENGINE.json"))
    assert facts["source"] == "cpu"
    assert facts["patches"] == []
    found = sh(
        image,
        "/opt/engine/bin/python -c 'import importlib.metadata as m; print(m.version(\"vllm\"))'",
    )
    assert found.startswith(facts["vllm"].partition("+")[0])


def test_engine_and_sidecar_do_not_see_each_others_packages(image: str) -> None:
    look = "/opt/{}/bin/python -c 'import {}' 2>&1 || echo missing"
    assert "missing" in sh(image, look.format("appliance", "torch"))
    assert "missing" in sh(image, look.format("engine", "structlog"))


LIST = """
import importlib.metadata as m
for d in m.distributions():
    print(d.metadata["Name"].lower().replace("_", "-"), d.version)
"""


def test_the_packages_are_those_of_the_lock(image: str) -> None:
    listed = sh(image, f"/opt/appliance/bin/python -c '{LIST}'")
    found = dict(line.split() for line in listed.splitlines())
    for line in (world.PROJECT / "requirements.lock").read_text().splitlines():
        pin, _, marker = line.rstrip("\\ ").partition(";")
        if "==" in pin and not line.startswith((" ", "#")) and not marker:
            name, _, version = pin.strip().partition("==")
            assert found[name.partition("[")[0].lower()] == version.strip()


def test_nothing_in_it_can_gain_rights_beyond_the_base(image: str) -> None:
    find = "find /opt /usr/local /var/lib/unglitched -perm /6000 -type f; true"
    assert sh(image, find) == ""


def test_no_shipped_file_belongs_to_the_user_it_runs_as(image: str) -> None:
    assert sh(image, "find /opt /usr/local /models -user 10001; true") == ""


def test_it_has_no_compiler_and_no_pip(image: str) -> None:
    assert sh(image, "command -v gcc g++ cc pip nvcc; ls -d /opt/*/bin/pip; true") == ""


def test_force_swap_is_there_and_runs(image: str) -> None:
    report = json.loads(sh(image, "force_swap selftest"))
    assert report["exit_code"] == 0
    assert report["stop_reason"] == "observed"


def test_the_policy_and_the_template_came_along(image: str) -> None:
    listed = sh(image, "ls /opt/appliance/lib/python3*/site-packages/appliance/_extras")
    assert "chat_template.jinja" in listed.split()


def test_a_folder_without_a_model_is_said_and_the_appliance_stays(image: str) -> None:
    name = docker("run", "--detach", "--rm", "--init", "--tmpfs", "/models:mode=755", DEMO)
    try:
        told = world.run(
            "docker", "exec", name, "/opt/appliance/bin/ready.py", "--wait", within_s=120
        )
        assert told.returncode == 1
        assert "model_missing" in told.stdout
        assert inspect("container", name)["State"]["Running"]
    finally:
        docker("rm", "--force", name)


def test_the_base_is_the_one_that_was_asked_for(image: str) -> None:
    layers = inspect("image", image)["RootFS"]["Layers"]
    assert layers[0] == inspect("image", BASE)["RootFS"]["Layers"][0]
