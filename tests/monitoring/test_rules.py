"""Every alert fires on the series that it is about, alone, and not on a healthy box (promtool)."""

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from appliance.cli import build_parser
from appliance.lifecycle import EngineState
from tests.monitoring.watching import RULES, promtool

GIB = 2**30
BOX = 'instance="box",job="unglitched"'
HOURS = 3
EVERY_S = 60
SAMPLES = HOURS * 3600 // EVERY_S

Series = Mapping[str, str]


def steady(value: float) -> str:
    """Return three hours of one value, in promtool's notation."""
    return f"{value:g}x{SAMPLES}"


def series(name: str, **labels: str) -> str:
    """Return a series of the box."""
    own = "".join(f',{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{BOX}{own}}}"


def state(holding: str) -> dict[str, str]:
    """Return the engine's states, of which one holds."""
    return {
        series("appliance_engine_state", state=name): steady(name == holding)
        for name in EngineState
    }


def degraded(kind: str, value: int = 1) -> dict[str, str]:
    return {series("appliance_engine_degraded", kind=kind): steady(value)}


UP = series("up")
AVAILABLE = series("appliance_host_memory_available_bytes")
SPAWNS = series("appliance_engine_spawns_total")
BEGAN = series("appliance_process_start_time_seconds")
WEDGES = series("appliance_engine_wedges_total")
DRIFT = series("appliance_tokenizer_mismatches")
WAITING = series("appliance_requests_waiting")
OK = series("appliance_requests_total", route="/v1/chat/completions", outcome="ok")
GLITCHES = series("appliance_path_glitches_total", kind="case", action="observed")
TURNED_AWAY = series("appliance_responses_total", route="/v1/chat/completions", code="429")
HEALTHY: Series = {
    UP: steady(1),
    **state("ready"),
    **degraded("output_suspect", 0),
    **degraded("silent", 0),
    **degraded("state_not_saved", 0),
    AVAILABLE: steady(20 * GIB),
    series("appliance_memory_floor_bytes", floor="warn"): steady(8 * GIB),
    series("appliance_memory_floor_bytes", floor="stop"): steady(6 * GIB),
    series("appliance_memory_floor_bytes", floor="kill"): steady(4 * GIB),
    SPAWNS: steady(1),
    BEGAN: steady(1_800_000_000),
    WEDGES: steady(0),
    DRIFT: steady(0),
    WAITING: steady(3),
    series("appliance_requests_limit", what="running"): steady(4),
    series("appliance_requests_limit", what="waiting"): steady(16),
    OK: f"0+1x{SAMPLES}",
    GLITCHES: f"0+0.01x{SAMPLES}",
}


@dataclass(frozen=True)
class Case:
    """What differs from a healthy box, and which alerts must follow, at once or after ``for``."""

    alerts: tuple[str, ...]
    changed: Series = field(default_factory=dict)


CASES = {
    "nobody answers": Case(("ScrapeDown",), {UP: steady(0)}),
    "there is no target": Case(("ScrapeDown",), {UP: "_"}),
    "it loads for ever": Case(("NotReady",), state("starting")),
    "it falls again and again": Case(("NotReady",), state("backoff")),
    "it gave up": Case(("GaveUp",), state("failed")),
    "it was restarted": Case(("RestartsOften",), {SPAWNS: f"1x{SAMPLES - 100} 2x25 3x25 4x50"}),
    "the appliance comes and goes": Case(
        ("SidecarRestartsOften",), {BEGAN: f"1800000000x{SAMPLES - 30} 1800008000+50x30"}
    ),
    "memory is low": Case(("MemoryLow",), {AVAILABLE: steady(7 * GIB)}),
    "memory is below the stop floor": Case(
        ("MemoryFloor", "MemoryLow"), {AVAILABLE: steady(5 * GIB)}
    ),
    "it is silent": Case(("WedgeSuspected",), degraded("silent")),
    "it was killed for a hang": Case(("WedgeSuspected",), {WEDGES: f"0x{SAMPLES - 5} 1x5"}),
    "its output is wrong": Case(("OutputSuspect",), degraded("output_suspect")),
    "its state is not saved": Case(("Degraded",), degraded("state_not_saved")),
    "the tokenizer differs": Case(("TokenizerDrift",), {DRIFT: steady(738)}),
    "paths are changed": Case(("GlitchRate",), {GLITCHES: f"0+0.2x{SAMPLES}"}),
    "the queue is full": Case(("QueueFull",), {WAITING: steady(16)}),
    "clients are sent away": Case(("QueueFull",), {TURNED_AWAY: f"0+1x{SAMPLES}"}),
    # silent: what an operator did, what is normal, what cannot be known
    "an operator stopped it": Case((), state("stopped")),
    "an operator drains it": Case((), state("draining")),
    "a glitch now and then": Case((), {OK: steady(1), GLITCHES: f"0x{SAMPLES - 30} 3x30"}),
    "two starts in two hours": Case((), {SPAWNS: f"1x{SAMPLES - 50} 2x25 3x25"}),
    "the tokenizer was not compared": Case((), {DRIFT: " ".join(["NaN"] * SAMPLES)}),
    "there is no queue": Case(
        (), {WAITING: steady(0), series("appliance_requests_limit", what="waiting"): steady(0)}
    ),
    "all is well": Case(()),
}


def rules() -> list[dict[str, Any]]:
    """Return the alert rules."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_raises_its_alert_and_no_other(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    given = {**HEALTHY, **case.changed}
    asked = {
        "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": f"{HOURS}h",
        "exp_samples": [
            {"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in case.alerts
        ],
    }
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": f"{EVERY_S}s",
        "tests": [
            {
                "interval": f"{EVERY_S}s",
                "input_series": [{"series": of, "values": values} for of, values in given.items()],
                "promql_expr_test": [asked],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(json.dumps(test))  # JSON is YAML
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_shown_to_fire() -> None:
    shown = {alert for case in CASES.values() for alert in case.alerts}
    assert shown == {rule["alert"] for rule in rules()}


def test_promtool_accepts_the_rules() -> None:
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_severity_and_says_what_to_type() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]
        assert commands(rule["annotations"]["description"]), rule["alert"]


def test_every_command_that_an_alert_names_is_there() -> None:
    (subparsers,) = (
        action
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    named = {word for rule in rules() for word in commands(rule["annotations"]["description"])}
    assert named <= set(subparsers.choices)


def commands(text: str) -> list[str]:
    """Return the commands in a text: the words behind "appliance", but for prose."""
    return [word for word in re.findall(r"\bappliance ([a-z]+)", text) if word not in PROSE]


PROSE = {"is", "itself", "does"}
