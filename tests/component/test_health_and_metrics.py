"""Health and metrics, as probes and scrapers see them."""

import asyncio
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.appliance_tasks import Appliance, StartAppliance, eventually
from tests.appliances import CHAT, CONTROL, WEB, ApplianceProcess, metric

READY = ("/health", "/health/ready", "/v1/health/ready")
LIVE = ("/health/live", "/v1/health/live")


async def get(box: Appliance, path: str) -> httpx.Response:
    """Ask without a key, as a probe does."""
    return await asyncio.to_thread(WEB.get, box.running.base_url + path)


async def test_health_tells_the_loading_phase_and_how_far_it_is(
    start: StartAppliance, tmp_path: Path
) -> None:
    said = tmp_path / "said.txt"
    said.write_text(
        "Starting to load model\nE Loading safetensors checkpoint shards:  37% Completed | 3/8\n"
    )
    box = await start("--log-lines", str(said), "--never-ready", state="starting")

    async def loading() -> bool:
        return bool((await get(box, "/health")).json()["progress"] == 0.37)

    await eventually(loading, "progress 0.37")
    for path in READY:
        reply = await get(box, path)
        assert reply.status_code == 503
        assert int(reply.headers["retry-after"]) > 0
        health = reply.json()
        assert (health["status"], health["state"], health["reason"]) == (
            "not_ready",
            "starting",
            "loading",
        )
        assert health["phase"] == "loading weights 37%"
    for path in LIVE:
        assert (await get(box, path)).status_code == 200


async def test_live_is_200_whatever_the_engine_does(start: StartAppliance) -> None:
    box = await start(state="ready")
    for path in (*READY, *LIVE):
        assert (await get(box, path)).status_code == 200
    await box.operator.post(f"{CONTROL}/stop")
    await box.until("stopped")
    for path in LIVE:
        assert (await get(box, path)).status_code == 200
    for path in READY:
        assert (await get(box, path)).status_code == 503


def test_a_probe_may_ask_with_head(box: ApplianceProcess) -> None:
    for path in (*READY, *LIVE):
        reply = WEB.head(box.base_url + path)
        assert (reply.status_code, reply.content) == (200, b"")


def test_metrics_are_ours_then_the_engines_and_no_family_twice(box: ApplianceProcess) -> None:
    with box.http() as client:
        reply = client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = [family.name for family in text_string_to_metric_families(reply.text)]
    assert len(families) == len(set(families))
    ours = [name for name in families if name.startswith("appliance_")]
    engines = [name for name in families if name.startswith("vllm:")]
    assert ours
    assert engines
    assert families == [*ours, *engines]
    assert WEB.get(f"{box.fake.url}/metrics").text.splitlines()[0] in reply.text


async def test_the_state_gauge_shows_the_one_state(start: StartAppliance) -> None:
    box = await start("--never-ready", state="starting")

    async def states() -> dict[str, float]:
        text = (await box.client.get("/metrics")).text
        return {
            sample.labels["state"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "appliance_engine_state"
        }

    assert await states() == dict.fromkeys(box.running.engine.states, 0.0) | {"starting": 1.0}
    await box.operator.post(f"{CONTROL}/stop")
    await box.until("stopped")
    assert await states() == dict.fromkeys(box.running.engine.states, 0.0) | {"stopped": 1.0}
    assert await box.metric("appliance_engine_spawns_total") == 1
    assert await box.metric("appliance_engine_exits_total", cause="requested") == 1


async def test_an_exit_that_nobody_asked_for_is_counted_by_its_cause(
    start: StartAppliance,
) -> None:
    box = await start("--exit-code", "0", "--never-ready", state="backoff")
    assert await box.metric("appliance_engine_exits_total", cause="engine_died_loading") == 1


@pytest.mark.parametrize(
    ("body", "outcome"),
    [({"max_tokens": 3}, "ok"), ({"max_tokens": 0}, "refused"), ({"model": "x"}, "refused")],
)
def test_each_request_is_counted_by_its_outcome(
    box: ApplianceProcess, body: dict[str, object], outcome: str
) -> None:
    asked = {"messages": [{"role": "user", "content": "x"}], **body}
    names = {"route": CHAT, "outcome": outcome}
    with box.http() as client:
        before = client.get("/metrics").text
        client.post(CHAT, json=asked | {"stream": True})
        after = client.get("/metrics").text
    for name, labels, more in (
        ("appliance_requests_total", names, 1),
        ("appliance_request_seconds_count", {"route": CHAT}, 1),
        ("appliance_ttft_seconds_count", {"route": CHAT}, int("model" not in body)),
    ):
        assert metric(after, name, **labels) - metric(before, name, **labels) == more, name
    if outcome != "ok":  # a short answer may come in one piece
        gaps = "appliance_inter_chunk_seconds_count"
        assert metric(after, gaps) == metric(before, gaps)


async def test_the_plan_stands_beside_what_the_engine_took(start: StartAppliance) -> None:
    box = await start()
    planned = await box.metric("appliance_memory_plan_bytes", part="available")
    actual = await box.metric("appliance_memory_actual_bytes", part="available")
    total = await box.metric("appliance_host_memory_total_bytes")
    assert 0 < planned < total
    assert 0 < actual < total
    assert await box.metric("appliance_memory_plan_bytes", part="kv_cache") == 2**30


async def test_what_does_not_fit_leaves_the_appliance_alive_with_the_table(
    start: StartAppliance,
) -> None:
    floors = dict.fromkeys(("memory_warn_floor", "memory_stop_floor", "memory_kill_floor"), "9TiB")
    box = await start(state="failed", **floors)
    health = await box.health()
    assert (health["state"], health["reason"]) == ("failed", "does_not_fit")
    assert [row["name"] for row in health["memory"]["rows"]][:2] == ["weights", "kv_cache"]
    assert health["memory"]["shortfalls"][0]["missing_bytes"] > 8 * 2**40
    assert (await box.ask()).status_code == 503
