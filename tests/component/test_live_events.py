"""What a console sees live: figures once a second, incidents, a dead engine with its diagnosis."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.appliance_tasks import Appliance, StartAppliance
from tests.appliances import CHAT, CONTROL, LONG, ApplianceProcess, engines_of
from tests.component.test_control_api import events, listeners, until

MARKUP = "<img src=x onerror=alert(1)>"


def watch(box: Appliance, query: str = "") -> Any:
    return box.operator.stream("GET", f"{CONTROL}/events{query}", timeout=30)


async def next_of(stream: AsyncIterator[tuple[str, Any]], wanted: str) -> Any:
    """Return the data of the next event of this name."""
    async with asyncio.timeout(20):
        async for name, value in stream:
            if name == wanted:
                return value
    raise AssertionError(f"the stream ended without {wanted}")


async def test_figures_come_by_themselves_with_all_that_a_page_draws(
    start: StartAppliance,
) -> None:
    box = await start()
    async with watch(box) as reply:
        stream = events(reply)
        figures = await next_of(stream, "figures")
    assert set(figures) == {
        *("at", "prompt_tokens_per_s", "completion_tokens_per_s", "ttft_s", "running", "waiting"),
        *("places", "kv_cache_used", "prefix_cache_hit", "memory", "glitches", "keepalives"),
        *("spawns", "exits", "nodes"),
    }
    assert (figures["running"], figures["waiting"], figures["places"]) == (0, 0, 64)
    memory = figures["memory"]
    assert set(memory) == {"total", "available", "free", "swap_free", "floor"}
    assert 0 < memory["floor"] < memory["total"]
    assert (figures["spawns"], figures["exits"], figures["glitches"]) == (1, {}, {})


async def test_the_speed_is_told_while_a_stream_runs_and_its_wait_after(
    start: StartAppliance,
) -> None:
    box = await start("--chunk-delay", "0.02")
    async with watch(box) as reply:
        stream = events(reply)
        async with box.client.stream("POST", CHAT, json=LONG | {"stream": True}):
            while not (figures := await next_of(stream, "figures"))["completion_tokens_per_s"]:
                pass
            assert figures["running"] == 1
            assert figures["ttft_s"] is None  # counted when the answer has ended
        while (figures := await next_of(stream, "figures"))["ttft_s"] is None:
            pass
        assert 0 <= figures["ttft_s"]["p50"] <= figures["ttft_s"]["p90"]


async def test_nobody_looks_and_nothing_is_sampled(start: StartAppliance) -> None:
    box = await start()
    empty = (await box.operator.get(f"{CONTROL}/figures")).json()
    assert empty == {"figures": [], "newest": None}
    before = listeners(box)
    async with watch(box) as one, watch(box) as other:
        streams = [events(one), events(other)]
        seen = [await next_of(stream, "figures") for stream in streams]
        assert listeners(box) == before + 2  # however many watch
    kept = (await box.operator.get(f"{CONTROL}/figures")).json()
    assert kept["newest"] == kept["figures"][-1]
    assert seen[0] in kept["figures"]
    moments = [sample["at"] for sample in kept["figures"]]
    assert moments == sorted(set(moments))  # one sampler for both


async def test_without_an_engine_its_figures_are_null(start: StartAppliance) -> None:
    box = await start("--never-ready", state="starting")
    async with watch(box) as reply:
        figures = await next_of(events(reply), "figures")
    unknown = ("prompt_tokens_per_s", "completion_tokens_per_s", "kv_cache_used", "ttft_s")
    assert [figures[name] for name in unknown] == [None] * 4


async def test_a_killed_engine_is_told_with_its_diagnosis_within_two_seconds(
    start: StartAppliance,
) -> None:
    box = await start()
    async with watch(box) as reply:
        stream = events(reply)
        await until(stream, "ready")
        for pid in engines_of(box.folder):
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(2):  # the promise itself
            seen = await until(stream, "backoff")
    status = seen[-1][1]
    assert status["reason"] == "engine_killed"
    assert "signal 9" in status["message"]
    assert "dmesg" in status["hint"]
    (incident,) = [value for name, value in seen if name == "incident"]
    kept = (await box.operator.get(f"{CONTROL}/incidents/{incident['id']}")).json()
    assert incident == {name: kept[name] for name in incident}
    assert (incident["code"], incident["exit"]) == ("engine_killed", "signal 9")
    assert "lines" not in incident


async def test_the_engines_lines_are_left_out_when_nobody_wants_them(
    start: StartAppliance, tmp_path: Path
) -> None:
    said = tmp_path / "said.txt"
    said.write_text("one line more\n")
    box = await start("--log-lines", str(said))
    async with watch(box, "?log=0") as quiet, watch(box) as whole:
        streams = [events(quiet), events(whole)]
        for stream in streams:
            await until(stream, "ready")
        await box.operator.post(f"{CONTROL}/restart")
        seen = [await until(stream, "starting") for stream in streams]
        more = [await until(stream, "ready") for stream in streams]
    names = [{name for name, _ in [*first, *then]} for first, then in zip(seen, more, strict=True)]
    assert "log" not in names[0]
    assert "log" in names[1]


# ---- the budget and Kilo's block


def test_the_budget_is_the_plan_part_by_part_beside_what_was_taken(box: ApplianceProcess) -> None:
    with box.http("operator") as client:
        told = client.get(f"{CONTROL}/budget").json()
    parts = {part["name"]: part for part in told["parts"]}
    assert sum(part["plan_bytes"] for part in told["parts"]) == told["total_bytes"]
    assert parts["kv_cache"]["plan_bytes"] == 2**30
    assert list(parts)[:2] == ["weights", "kv_cache"]
    assert {"note", "actual_bytes"} <= set(parts["weights"])
    assert 0 < told["floor_bytes"] < told["available_bytes"] < told["total_bytes"]


def test_kilos_block_comes_without_the_key_and_says_what_prints_it(box: ApplianceProcess) -> None:
    with box.http("operator") as client:
        told = client.get(f"{CONTROL}/kilo").json()
        assert told["config"] == client.get("/kilo.json").json()
    assert told["key_command"] == "appliance key"
    assert told["key_variable"] in json.dumps(told["config"])
    assert box.key("client") not in json.dumps(told)


# ---- what the engine and the settings say stays data


async def test_markup_in_a_models_name_or_a_line_goes_out_as_json(
    start: StartAppliance, tmp_path: Path
) -> None:
    said = tmp_path / "said.txt"
    said.write_text(f"{MARKUP}\r\n{MARKUP}\n\nevent: status\n")
    box = await start("--log-lines", str(said), served_model_name=MARKUP, state=None)
    async with watch(box) as stream:
        told = events(stream)
        status = await next_of(told, "status")
        assert status["model"] == MARKUP
        while (await next_of(told, "log"))["text"] != MARKUP:
            pass
    reply = await box.operator.get(f"{CONTROL}/logs")
    assert reply.headers["content-type"] == "application/json"
    assert MARKUP in [line["text"] for line in reply.json()["lines"]]
    told_kilo = (await box.operator.get(f"{CONTROL}/kilo")).json()
    assert told_kilo["config"]["model"] == f"unglitched/{MARKUP}"
