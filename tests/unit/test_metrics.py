"""The metrics' text: our families alone, in base units, with few labels."""

import re
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from appliance import metrics as metrics_module
from appliance.lifecycle import EngineState
from appliance.metrics import CONTENT_TYPE, Metrics

STATES = tuple(EngineState)
LABELS = {"route", "outcome", "window", "state", "kind", "cause", "le", "key", "code"}


def families(metrics: Metrics) -> dict[str, Metric]:
    text = metrics.text().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def used() -> Metrics:
    """Metrics with every family touched once."""
    metrics = Metrics()
    metrics.requests.labels("/v1/chat/completions", "ok").inc()
    metrics.hang_ups.labels("queue").inc()
    metrics.injected.labels("/v1/chat/completions").inc()
    metrics.ttft_s.labels("/v1/chat/completions").observe(0.2)
    metrics.exits.labels("requested").inc()
    metrics.degraded.labels("output_suspect").set(0)
    metrics.enter_state(EngineState.READY, STATES)
    return metrics


def test_every_family_is_ours_so_that_the_engines_text_can_follow() -> None:
    assert {name.partition("_")[0] for name in families(used())} == {"appliance"}


def test_every_family_says_what_it_means() -> None:
    assert [name for name, family in families(used()).items() if not family.documentation] == []


def test_the_help_of_hang_ups_names_every_window_that_a_client_can_leave_in() -> None:
    windows = {
        name
        for path in Path(metrics_module.__file__).parent.glob("*.py")
        for name in re.findall(r'\bwindow(?:: str)? = "(\w+)"', path.read_text())
    }
    assert windows >= {"body", "queue", "head", "prefill", "stream"}
    told = families(used())["appliance_hang_ups"].documentation
    assert [name for name in sorted(windows) if not re.search(rf"\b{name}\b", told)] == []


def test_no_label_carries_an_id_a_path_or_a_prompt() -> None:
    names = {
        label
        for family in families(used()).values()
        for sample in family.samples
        for label in sample.labels
    }
    assert names <= LABELS


def test_times_are_in_seconds() -> None:
    histograms = [name for name, family in families(used()).items() if family.type == "histogram"]
    assert histograms
    assert all(name.endswith("_seconds") for name in histograms)


@pytest.mark.parametrize("state", STATES)
def test_exactly_one_state_holds(state: EngineState) -> None:
    metrics = Metrics()
    metrics.enter_state(EngineState.FAILED, STATES)
    metrics.enter_state(state, STATES)
    samples = families(metrics)["appliance_engine_state"].samples
    holding = [sample.labels["state"] for sample in samples if sample.value == 1]
    assert holding == [state.value]
    assert len(samples) == len(STATES)


def test_the_gauges_of_the_gate_are_read_when_asked() -> None:
    metrics = Metrics()
    queue = [1, 2, 3]
    metrics.waiting.set_function(lambda: len(queue))
    queue.pop()
    waiting = [f for name, f in families(metrics).items() if "waiting" in name]
    assert [family.samples[0].value for family in waiting] == [2]


def test_two_appliances_in_one_process_do_not_share_their_counts() -> None:
    one, other = Metrics(), Metrics()
    one.spawns.inc()
    assert b"appliance_engine_spawns_total 1.0" in one.text()
    assert b"appliance_engine_spawns_total 0.0" in other.text()


def test_the_content_type_is_prometheus_text() -> None:
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
