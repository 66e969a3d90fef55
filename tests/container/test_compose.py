"""compose.yaml, its overlay and .env.example, by every Compose that is here."""

import json
import re
from typing import Any

import pytest

from appliance.settings import Settings
from tests.container import world
from tests.container.world import PROJECT

pytestmark = pytest.mark.container

EXAMPLE = PROJECT / ".env.example"
BOXES = ("spark", "thor", "demo")
# What Compose itself and docker/up.sh read, and compose.yaml does not.
OF_SCRIPTS = ("COMPOSE_PROFILES", "COMPOSE_FILE", "MODEL_REVISION")
Composes = dict[str, list[str]]


def configured(compose: list[str], *options: str, env: dict[str, str] | None = None) -> Any:
    """Return the whole configuration as a Compose understands it. Its refusal is a failure."""
    done = world.run(*compose, *options, "config", "--format", "json", env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def service(compose: list[str], box: str, **env: str) -> Any:
    """Return one box's service."""
    plain = ("--env-file", world.NO_SETTINGS, "--profile", box)
    return configured(compose, *plain, env=env)["services"][box]


def test_two_versions_of_compose_are_asked(composes: Composes) -> None:
    assert len({version.partition(".")[0] for version in composes}) >= 2, sorted(composes)


@pytest.mark.parametrize("box", BOXES)
def test_a_profile_is_one_service(composes: Composes, box: str) -> None:
    for compose in composes.values():
        plain = ("--env-file", world.NO_SETTINGS, "--profile", box)
        assert list(configured(compose, *plain)["services"]) == [box]


@pytest.mark.parametrize("box", BOXES)
def test_a_container_has_no_rights_and_is_not_restarted(composes: Composes, box: str) -> None:
    for compose in composes.values():
        found = service(compose, box)
        assert found["restart"] == "no"
        assert found["cap_drop"] == ["ALL"]
        assert found["read_only"] is True
        assert found["init"] is True
        assert not {"privileged", "cap_add", "pid", "ipc", "network_mode"} & set(found)
        assert "docker.sock" not in json.dumps(found)
        assert int(found["shm_size"]) <= 16 * 2**30


@pytest.mark.parametrize("box", BOXES)
def test_the_grace_is_longer_than_drain_stop_and_reaping(composes: Composes, box: str) -> None:
    fields = Settings.model_fields
    needed_s = fields["drain_timeout_s"].default + fields["stop_timeout_s"].default + 10
    for compose in composes.values():
        minutes, seconds = re.fullmatch(
            r"(\d+)m(\d+)s", service(compose, box)["stop_grace_period"]
        ).groups()  # type: ignore[union-attr]
        assert int(minutes) * 60 + int(seconds) > needed_s


@pytest.mark.parametrize(("listen", "address"), [("loopback", "127.0.0.1"), ("lan", "0.0.0.0")])
def test_listen_says_where_the_port_is_published(
    composes: Composes, listen: str, address: str
) -> None:
    for compose in composes.values():
        (port,) = service(compose, "demo", APPLIANCE_LISTEN=listen)["ports"]
        assert (port["host_ip"], port["target"]) == (address, 9000)


def test_an_unknown_way_to_listen_is_refused_by_its_name(composes: Composes) -> None:
    for compose in composes.values():
        words = ("--profile", "demo", "config", "--quiet")
        done = world.run(*compose, *words, env={"APPLIANCE_LISTEN": "lann"})
        assert done.returncode != 0
        assert '"lann" not found' in done.stderr


@pytest.mark.parametrize("box", ["spark", "thor"])
def test_a_box_gets_its_gpu_and_may_lock_memory(composes: Composes, box: str) -> None:
    for compose in composes.values():
        found = service(compose, box)
        (device,) = found["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
        assert found["ulimits"]["memlock"] in (-1, {"single": -1})
        assert found["build"]["args"]["TARGET"] == box


def test_the_demo_asks_for_nothing_that_a_laptop_lacks(composes: Composes) -> None:
    for compose in composes.values():
        found = service(compose, "demo")
        assert not {"deploy", "runtime", "ulimits", "devices", "env_file"} & set(found)
        assert [mount["type"] for mount in found["volumes"]] == ["volume"]


def test_a_missing_model_path_is_named_and_no_folder_is_made_for_it(composes: Composes) -> None:
    for compose in composes.values():
        mounts = service(compose, "spark")["volumes"]
        (model,) = (mount for mount in mounts if mount["type"] == "bind")
        assert "MODEL_PATH-is-not-set" in model["source"]
        assert model["read_only"] is True
        assert not model.get("bind", {}).get("create_host_path", False)


def test_the_example_is_a_whole_configuration(composes: Composes) -> None:
    for compose in composes.values():
        found = configured(compose, "--env-file", str(EXAMPLE))["services"]
        assert list(found) == ["spark"]


def test_every_line_of_the_example_is_a_setting_or_compose_reads_it() -> None:
    names = re.findall(r"^#?([A-Z][A-Z_]+)=", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
    read = "".join(path.read_text(encoding="utf-8") for path in PROJECT.glob("compose*.yaml"))
    read += (PROJECT / "docker" / "listen.yaml").read_text(encoding="utf-8")
    for name in names:
        ours = name.removeprefix("APPLIANCE_").lower()
        known = name in OF_SCRIPTS or f"${{{name}" in read
        assert known or (name.startswith("APPLIANCE_") and ours in Settings.model_fields), name


def test_the_evict_overlay_asks_for_the_cgroup(composes: Composes) -> None:
    files = ("-f", "compose.yaml", "-f", "compose.evict.yaml", "--profile", "spark")
    for compose in composes.values():
        refused = world.run(*compose, *files, "config", "--quiet", env={"EVICT_CGROUP": ""})
        assert "name the cgroup that appliance host install lent" in refused.stderr
        name = "user.slice/user-1000.slice"
        found = configured(compose, *files, env={"EVICT_CGROUP": name})["services"]["spark"]
        assert found["environment"]["APPLIANCE_EVICT_CGROUPS"] == name
        assert f"/host/cgroup/{name}" in [mount["target"] for mount in found["volumes"]]
        assert "/models/Nikola" in [mount["target"] for mount in found["volumes"]]
