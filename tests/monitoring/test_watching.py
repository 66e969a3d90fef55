"""A real Prometheus asks the real appliance while it works: key, rules and every panel hold."""

import json
import math
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from appliance.demo.conversations import conversations
from appliance.openai import INJECTION_HEADER
from tests import engines
from tests.appliances import CHAT, COMMAND, ApplianceProcess, clean_environment, running_process
from tests.engines import CHECKPOINT, ENGINE_PYTHON, MODEL, wait_until
from tests.monitoring.watching import (
    DASHBOARD,
    Prometheus,
    configuration,
    promtool,
    running_prometheus,
)

pytestmark = pytest.mark.engine

LOAD_S = 240.0
SEEN_S = 30.0
CHATS = 36
RATE_OVER = "10s"  # in place of Grafana's $__rate_interval, for a scrape each second
# What this machine may lack, and its panels with it.
HAS_GPU = shutil.which("nvidia-smi") is not None
EMPTY = {
    "GPU power": not HAS_GPU,
    "GPU temperature": not HAS_GPU,
    "Memory pressure": not Path("/proc/pressure/memory").exists(),
}
QUERIES = [
    (panel["title"], target["expr"])
    for panel in json.loads(DASHBOARD.read_text())["panels"]
    for target in panel.get("targets", ())
]


@dataclass(frozen=True)
class Watched:
    """The appliance, who watches it since ``since`` (Unix seconds), and with which key file."""

    appliance: ApplianceProcess
    prometheus: Prometheus
    key_file: Path
    since: float

    def seen(self, expression: str) -> list[float]:
        """Return every finite value that a panel would have shown since the beginning."""
        query = expression.replace("$__rate_interval", RATE_OVER)
        times = {"start": str(self.since), "end": str(time.time()), "step": "1s"}
        series = self.prometheus.get("query_range", query=query, **times)["result"]
        values = [float(value) for one in series for _, value in one["values"]]
        return [value for value in values if math.isfinite(value)]

    def key(self, *words: str) -> str:
        """Run appliance key, as docker/monitoring/up.sh does; return what it prints."""
        done = subprocess.run(
            [*COMMAND, "key", *words],
            env=clean_environment() | {"APPLIANCE_STATE_DIR": str(self.appliance.state_dir)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    def until_health(self, health: str) -> dict[str, Any]:
        """Wait until Prometheus finds the appliance up or down; return the target."""
        wait_until(lambda: self.prometheus.target()["health"] == health, SEEN_S, health)
        return self.prometheus.target()


def converse(appliance: ApplianceProcess, prometheus: Prometheus) -> None:
    """Hold three dozen small conversations, four at a time: streams, tool calls and glitches.

    Prometheus counts the first half before the second begins: a series that is there from its
    first value on, as a route's times are, has no rate until it grows between two looks.
    """
    known = list(conversations())
    calling = [one for one in known if one.tool_calls and one.glitch != "none"]
    said = [*calling[: CHATS // 2], *known][:CHATS]

    def one(number: int) -> int:
        body = {**said[number].request(MODEL), "stream": number % 2 == 0}
        with appliance.http() as http:
            return http.post(CHAT, json=body, headers={INJECTION_HEADER: "off"}).status_code

    with ThreadPoolExecutor(4) as pool:
        for part in (range(CHATS // 2), range(CHATS // 2, CHATS)):
            assert set(pool.map(one, part)) == {200}
            counted = partial(_has_counted, prometheus, part.stop)
            wait_until(counted, SEEN_S, f"{part.stop} to be counted")


def _has_counted(prometheus: Prometheus, chats: int) -> bool:
    return prometheus.values("sum(appliance_requests_total)") >= [chats]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The demo appliance under a Prometheus that has seen it work."""
    engines.require_real()
    folder = tmp_path_factory.mktemp("watched")
    settings: dict[str, Any] = {
        "engine_command": str(ENGINE_PYTHON.parent / "vllm"),
        "engine_extra_args": None,
        "model_dir": CHECKPOINT,
        "start_timeout_s": LOAD_S,
        "stop_timeout_s": 20,
    }
    with running_process(folder / "box", **settings) as appliance:
        try:
            appliance.until("ready", within_s=LOAD_S)
            yield from _watched_by_prometheus(appliance, folder)
        finally:  # in order, also after a failure: only the appliance itself ends its engine
            appliance.signal(signal.SIGTERM)
            assert appliance.code(within_s=60) == 0, appliance.err


def _watched_by_prometheus(appliance: ApplianceProcess, folder: Path) -> Iterator[Watched]:
    key_file = folder / "prometheus.key"
    address = appliance.base_url.removeprefix("http://")
    with running_prometheus(folder, configuration(key_file, address)) as prometheus:
        watched = Watched(appliance, prometheus, key_file, time.time())
        key_file.write_text(watched.key("new", "prometheus", "--max-running", "1"))
        watched.until_health("up")
        converse(appliance, prometheus)
        yield watched


def test_the_appliance_is_read_with_a_key_of_its_own(watched: Watched) -> None:
    assert watched.until_health("up")["lastError"] == ""
    assert "prometheus" in watched.key("list")
    kept = watched.key_file.read_text().strip()
    assert kept not in {watched.appliance.key("client"), watched.appliance.key("operator")}


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_every_panel_shows_something(watched: Watched, title: str, query: str) -> None:
    assert bool(watched.seen(query)) is not EMPTY.get(title, False)


def test_the_load_is_on_the_panels_that_are_about_it(watched: Watched) -> None:
    shown = {title: [v for t, q in QUERIES if t == title for v in watched.seen(q)]
             for title in ("Output", "Glitches by kind", "Prefix cache hits", "Running and waiting",
                           "MemAvailable and the floors")}  # fmt: skip
    assert [title for title, values in shown.items() if max(values, default=0) <= 0] == []


def test_every_rule_can_be_evaluated_and_a_healthy_box_raises_no_alert(watched: Watched) -> None:
    (group,) = watched.prometheus.get("rules")["groups"]
    names = {rule["name"] for rule in group["rules"]}

    def all_looked() -> bool:
        (now,) = watched.prometheus.get("rules")["groups"]
        return all(rule["health"] == "ok" for rule in now["rules"])

    wait_until(all_looked, SEEN_S, f"an evaluation of {sorted(names)}")
    assert watched.prometheus.firing() == []


def test_promtool_finds_nothing_to_mend_in_our_metrics(watched: Watched) -> None:
    with watched.appliance.http() as http:
        text = http.get("/metrics").text
    ours = "".join(
        line for line in text.splitlines(keepends=True) if re.match(r"(# \w+ )?appliance_", line)
    )
    assert ours.count("# TYPE ") > 40
    checked = promtool("check", "metrics", text=ours)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_new_key_in_the_file_is_taken_without_a_restart(watched: Watched) -> None:
    watched.key("revoke", "prometheus")
    assert "401" in watched.until_health("down")["lastError"]
    assert watched.prometheus.values('up{job="unglitched"}') == [0]
    watched.key_file.write_text(watched.key("new", "prometheus"))
    watched.until_health("up")
