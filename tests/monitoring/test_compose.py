"""compose.monitoring.yaml: what runs beside the box has few rights, and no port for others."""

import json
import re
import subprocess
import sys
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.container.world import NO_SETTINGS
from tests.engines import ROOT
from tests.monitoring.watching import MONITORING

PROFILES = ("spark", "thor", "demo", "monitoring")
CHOICES = list(chain.from_iterable(combinations(PROFILES, n) for n in range(len(PROFILES) + 1)))
SERVICES = ("prometheus", "grafana")


def configured(*profiles: str, **env: str) -> dict[str, Any]:
    """Return the whole configuration as Compose understands it."""
    options = [word for profile in profiles for word in ("--profile", profile)]
    compose = str(Path(sys.executable).with_name("docker-compose"))
    argv = [compose, "--env-file", NO_SETTINGS, *options, "config", "--format", "json"]
    done = subprocess.run(
        argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("chosen", CHOICES, ids="+".join)
def test_every_choice_of_profiles_is_a_whole_configuration(chosen: tuple[str, ...]) -> None:
    boxes = {name for name in chosen if name != "monitoring"}
    beside = set(SERVICES) if "monitoring" in chosen else set()
    assert set(configured(*chosen)["services"]) == boxes | beside


@pytest.mark.parametrize("name", SERVICES)
def test_what_watches_has_no_rights_and_a_limit_on_memory(name: str) -> None:
    service = configured("monitoring")["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["mem_limit"]) <= 2**29
    assert service["pids_limit"] > 0
    assert not {"privileged", "cap_add", "pid", "ipc", "network_mode", "devices"} & set(service)
    assert "docker.sock" not in json.dumps(service)


@pytest.mark.parametrize("name", SERVICES)
def test_its_port_is_on_the_loopback_alone_and_can_be_chosen(name: str) -> None:
    chosen = configured("monitoring", **{f"{name.upper()}_PORT": "12345"})
    (port,) = chosen["services"][name]["ports"]
    assert (port["host_ip"], port["published"]) == ("127.0.0.1", "12345")


@pytest.mark.parametrize("name", SERVICES)
def test_its_image_is_of_one_version_and_can_be_pinned(name: str) -> None:
    digest = "@sha256:" + "0" * 64
    image = configured("monitoring", **{f"{name.upper()}_DIGEST": digest})["services"][name][
        "image"
    ]
    assert re.fullmatch(rf"[a-z]+/{name}:v?\d+\.\d+\.\d+{digest}", image)


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there_and_cannot_be_written(name: str) -> None:
    mounts = configured("monitoring")["services"][name]["volumes"]
    kinds = [mount["type"] for mount in mounts]
    assert kinds.count("volume") == 1
    for mount in (one for one in mounts if one["type"] == "bind"):
        assert Path(mount["source"]).exists()
        assert mount["read_only"] is True


def test_the_key_is_a_secret_that_the_configuration_only_names() -> None:
    service = configured("monitoring")["services"]["prometheus"]
    (job, _) = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    targets = [f"/run/secrets/{Path(one.get('target', one['source'])).name}"
               for one in service["secrets"]]  # fmt: skip
    assert [job["authorization"]["credentials_file"]] == targets


def test_what_is_kept_has_a_limit_in_bytes() -> None:
    command = configured("monitoring", PROMETHEUS_SIZE="5GB")["services"]["prometheus"]["command"]
    assert "--storage.tsdb.retention.size=5GB" in command


@pytest.mark.parametrize("box", PROFILES[:3])
def test_prometheus_asks_each_box_by_the_name_and_port_that_it_has(box: str) -> None:
    service = configured(box, "monitoring")["services"][box]
    (job, _) = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    ((host, _, port),) = (one.partition(":") for one in job["static_configs"][0]["targets"])
    assert host in service["networks"]["default"]["aliases"]
    assert int(port) == service["ports"][0]["target"]


def test_grafana_lets_nobody_in_without_the_password_of_a_secret_and_asks_nobody_outside() -> None:
    service = configured("monitoring")["services"]["grafana"]
    given = service["environment"]
    assert given["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert given["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_password"
    assert "GF_SECURITY_ADMIN_PASSWORD" not in given
    outside = ("ANALYTICS_REPORTING_ENABLED", "ANALYTICS_CHECK_FOR_UPDATES",
               "ANALYTICS_CHECK_FOR_PLUGIN_UPDATES", "NEWS_NEWS_FEED_ENABLED",
               "SNAPSHOTS_EXTERNAL_ENABLED")  # fmt: skip
    assert {given[f"GF_{name}"] for name in outside} == {"false"}


def test_the_dashboard_lies_where_grafana_is_told_to_look() -> None:
    service = configured("monitoring")["services"]["grafana"]
    board = Path(service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    (mount,) = (one for one in service["volumes"] if one["target"] == str(board.parent))
    assert (Path(mount["source"]) / board.name).is_file()
    (file,) = (MONITORING / "grafana" / "provisioning" / "dashboards").glob("*.yml")
    (provider,) = yaml.safe_load(file.read_text())["providers"]
    assert provider["options"]["path"] == str(board.parent)
