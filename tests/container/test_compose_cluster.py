"""compose.cluster.yaml: what each of two boxes runs, by every Compose that is here."""

import json
from typing import Any

import pytest

from tests.container import world

pytestmark = pytest.mark.container

CABLE = {
    "APPLIANCE_CLUSTER_HEAD": "192.168.100.1",
    "APPLIANCE_CLUSTER_WORKER": "192.168.100.2",
    "APPLIANCE_CLUSTER_INTERFACE": "enp1s0f0np0",
}
FILES = ("-f", "compose.yaml", "-f", "compose.cluster.yaml")
Composes = dict[str, list[str]]


def asked(compose: list[str], box: str, env: dict[str, str]) -> Any:
    words = ("--env-file", world.NO_SETTINGS, *FILES, "--profile", box)
    return world.run(*compose, *words, "config", "--format", "json", env=env)


def service(compose: list[str], box: str, role: str) -> Any:
    done = asked(compose, box, CABLE | {"APPLIANCE_CLUSTER_ROLE": role})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["services"][box]


@pytest.mark.parametrize("box", ["spark", "thor"])
@pytest.mark.parametrize(("role", "command"), [("head", ["run"]), ("worker", ["node"])])
def test_a_box_runs_what_its_role_is(
    composes: Composes, box: str, role: str, command: list[str]
) -> None:
    for compose in composes.values():
        found = service(compose, box, role)
        assert found["command"] == command
        assert found["environment"]["APPLIANCE_CLUSTER_ROLE"] == role


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_box_of_two_uses_the_hosts_network_and_its_address(composes: Composes, role: str) -> None:
    for compose in composes.values():
        found = service(compose, "spark", role)
        assert found["network_mode"] == "host"
        assert not found.get("ports")
        # blank is unset: the loopback, or what APPLIANCE_LISTEN says; never every address
        assert found["environment"]["APPLIANCE_HOST"] == ""


def test_a_box_of_two_has_no_more_rights_than_one_alone(composes: Composes) -> None:
    for compose in composes.values():
        found = service(compose, "spark", "worker")
        assert found["cap_drop"] == ["ALL"]
        assert found["read_only"] is True
        assert not {"privileged", "cap_add", "pid", "ipc"} & set(found)


@pytest.mark.parametrize("name", [*CABLE, "APPLIANCE_CLUSTER_ROLE"])
def test_what_is_not_set_is_named(composes: Composes, name: str) -> None:
    given = CABLE | {"APPLIANCE_CLUSTER_ROLE": "head"}
    for compose in composes.values():
        done = asked(compose, "spark", {n: v for n, v in given.items() if n != name})
        assert done.returncode != 0
        assert name in done.stderr
