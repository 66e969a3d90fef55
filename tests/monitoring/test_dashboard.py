"""The dashboard as code: the file is what the tables say, and what it asks for exists."""

import json
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from appliance import hostmetrics
from appliance.lifecycle import EngineState
from appliance.metrics import Metrics
from tests.engines import ROOT
from tests.monitoring.watching import DASHBOARD, MONITORING, RULES, promtool

BOARD: dict[str, Any] = json.loads(DASHBOARD.read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]


def provisioned(kind: str) -> dict[str, Any]:
    """Return the one file by which Grafana is told of its data sources, or dashboards."""
    (file,) = (MONITORING / "grafana" / "provisioning" / kind).glob("*.yml")
    found: dict[str, Any] = yaml.safe_load(file.read_text())
    return found


def families() -> set[str]:
    """Return every name of ours that a query may use: families, and their samples."""
    told = re.findall(r"^# TYPE (\w+) (\w+)$", Metrics().text().decode(), re.MULTILINE)
    host = re.findall(r'"(\w+)", "[A-Z]|"(\w+)", about', Path(hostmetrics.__file__).read_text())
    names = {f"appliance_host_{one or other}" for one, other in host}
    names |= {f"{name}_bucket" for name, kind in told if kind == "histogram"}
    return names | {f"{name}_total" for name in names} | {name for name, _ in told}


def used() -> set[str]:
    """Return the names of ours in the dashboard and in the rules."""
    return set(re.findall(r"\bappliance_\w+", "\n".join([*QUERIES, RULES.read_text()])))


def run(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-B", str(MONITORING / "dashboard.py"), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_the_committed_dashboard_is_what_the_tables_say() -> None:
    done = run("--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_that_is_asked_for_exists() -> None:
    assert len(used()) > 40
    assert sorted(used() - families()) == []


def test_a_metric_that_was_renamed_would_be_noticed() -> None:
    assert "appliance_requests_total" in families()
    assert "appliance_request_count_total" not in families()


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert all(target["legendFormat"] for target in panel["targets"])
    steps = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
    assert steps[0] is None
    assert steps[1:] == sorted(steps[1:])


def test_a_name_on_a_panel_is_that_of_now_and_not_of_an_hour_ago() -> None:
    names = [panel for panel in PANELS if panel["options"].get("textMode") == "name"]
    assert [panel["title"] for panel in names] == ["State", "Alerts"]
    asked = [target for panel in names for target in panel["targets"]]
    assert all(target["instant"] and not target["range"] for target in asked)


def test_every_state_has_a_colour_and_red_is_for_what_is_wrong() -> None:
    (panel,) = (one for one in PANELS if one["title"] == "State")
    coloured = {one["matcher"]["options"] for one in panel["fieldConfig"]["overrides"]}
    assert set(EngineState) - coloured == {"failed"}
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["color"] == "red"


def test_no_two_panels_lie_upon_each_other_and_none_sticks_out() -> None:
    places = [panel["gridPos"] for panel in BOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_numbers_and_letters_of_panels_and_queries_are_unique() -> None:
    numbers = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in PANELS:
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)


def test_the_dashboard_asks_the_source_that_is_provisioned() -> None:
    (source,) = provisioned("datasources")["datasources"]
    asked = {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]}
    assert asked == {source["uid"]}


def test_rates_reach_over_the_pace_of_the_scrapes() -> None:
    (source,) = provisioned("datasources")["datasources"]
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]


def test_promtool_accepts_the_configuration_once_the_key_is_there(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(RULES.read_text())
    key = tmp_path / "key"
    key.write_text("k\n")
    text = (MONITORING / "prometheus.yml").read_text()
    assert text.count("/run/secrets/prometheus_key") == 1
    config = tmp_path / "prometheus.yml"
    config.write_text(text.replace("/run/secrets/prometheus_key", str(key)))
    done = promtool("check", "config", config)
    assert done.returncode == 0, done.stdout + done.stderr
    # the variant for HTTPS that stands there as comments is a configuration too
    secure = re.sub(r"^    # (scheme|tls_config|  \w+):", r"    \1:", config.read_text(),
                    flags=re.MULTILINE)  # fmt: skip
    secure = secure.replace("/run/secrets/appliance_cert", str(key))
    (job, _) = yaml.safe_load(secure)["scrape_configs"]
    assert (job["scheme"], sorted(job["tls_config"])) == ("https", ["ca_file", "server_name"])


def test_no_key_is_in_what_is_committed() -> None:
    kept = [*MONITORING.rglob("*"), ROOT / "compose.monitoring.yaml"]
    for file in (one for one in kept if one.is_file() and one.suffix != ".pyc"):
        assert not re.search(r"\b[0-9a-f]{32,}\b|admin_password:|credentials:", file.read_text())
