"""A real Prometheus for tests: our configuration, on the loopback, data in the test's folder."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from tests.appliances import web
from tests.engines import ROOT, free_port, wait_until

MONITORING = ROOT / "docker" / "monitoring"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "unglitched.json"
RULES = MONITORING / "rules.yml"
JOB = "unglitched"
READY_S = 30.0


def program(name: str) -> str:
    """Return a program of Debian's prometheus; without it skip, or fail in CI."""
    found = shutil.which(name)
    if found is None:
        lacks = f"{name} is not installed: apt-get install prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(lacks)
        pytest.skip(lacks)
    return found


def promtool(*words: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool to its end, whatever its exit code."""
    argv = [program("promtool"), *map(str, words)]
    return subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60, check=False)


def configuration(key_file: Path, target: str, every_s: int = 1) -> dict[str, Any]:
    """Return prometheus.yml with a test's key, target and pace in place of the container's."""
    config: dict[str, Any] = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    pace = {"scrape_interval": f"{every_s}s", "evaluation_interval": f"{every_s}s"}
    config["global"] |= {**pace, "scrape_timeout": f"{every_s}s"}
    config["rule_files"] = [str(MONITORING / name) for name in config["rule_files"]]
    (ours,) = (job for job in config["scrape_configs"] if job["job_name"] == JOB)
    ours["authorization"]["credentials_file"] = str(key_file)
    ours["static_configs"] = [{"targets": [target]}]
    return {**config, "scrape_configs": [ours]}


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    web: httpx.Client

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an API call."""
        answer = self.web.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, f"{parameters}: {answer.text}"
        return answer.json()["data"]

    def values(self, expression: str) -> list[float]:
        """Return the values of an instant query."""
        found = self.get("query", query=expression)
        return [float(sample["value"][1]) for sample in found["result"]]

    def target(self) -> dict[str, Any]:
        """Return what it knows of the appliance as a target; at first nothing."""
        found: list[dict[str, Any]] = self.get("targets")["activeTargets"]
        return found[0] if found else {"health": "unknown"}

    def firing(self) -> list[str]:
        """Return the names of the alerts that fire."""
        alerts = self.get("alerts")["alerts"]
        return sorted(a["labels"]["alertname"] for a in alerts if a["state"] == "firing")


@contextmanager
def running_prometheus(folder: Path, config: dict[str, Any]) -> Iterator[Prometheus]:
    """Run one with this configuration until the end of the ``with`` body."""
    settings, port = folder / "prometheus.yml", free_port()
    settings.write_text(json.dumps(config))  # JSON is YAML
    argv = [
        program("prometheus"),
        f"--config.file={settings}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    log = folder / "prometheus.log"
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        with web(f"http://127.0.0.1:{port}") as client:

            def is_ready() -> bool:
                assert process.poll() is None, log.read_text()
                try:
                    return client.get("/-/ready").status_code == 200
                except httpx.HTTPError:
                    return False

            wait_until(is_ready, READY_S, f"Prometheus:\n{log.read_text()}")
            yield Prometheus(client)
    finally:
        process.terminate()
        process.wait(timeout=READY_S)
