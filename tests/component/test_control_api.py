"""The control API: what an operator sees, and the stream of what changes."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from tests.appliance_tasks import Appliance, StartAppliance, eventually
from tests.appliances import CHAT, CONTROL, LONG, ApplianceProcess
from tests.engines import MODEL


async def test_status_tells_state_model_and_places(start: StartAppliance) -> None:
    box = await start("--chunk-delay", "0.05", max_model_len=4096)
    async with box.client.stream("POST", CHAT, json=LONG | {"stream": True}):
        status = (await box.operator.get(f"{CONTROL}/status")).json()
    assert (status["status"], status["state"], status["spawn"]) == ("ready", "ready", 1)
    assert (status["model"], status["max_model_len"]) == (MODEL, 4096)
    assert (status["profile"], status["engine"]) == ("demo", "spawn")
    by_key = {"default": {"running": 1, "waiting": 0}}
    places = {"running": 1, "waiting": 0, "places": 64, "by_key": by_key}
    assert status["requests"] == places


def test_plan_shows_the_running_command_and_no_key(box: ApplianceProcess) -> None:
    with box.http("operator") as operator:
        reply = operator.get(f"{CONTROL}/plan")
    command = reply.json()["command"]
    assert str(box.folder / "model") in command["argv"]
    assert command["env"]["VLLM_API_KEY"] == "(hidden)"
    (pid,) = [entry for entry in Path("/proc").iterdir() if _runs(entry, command["argv"])]
    environ = dict(
        pair.split(b"=", 1) for pair in (pid / "environ").read_bytes().split(b"\0") if pair
    )
    assert environ[b"VLLM_API_KEY"].decode() not in reply.text
    for which in ("client", "operator"):
        assert box.key(which) not in reply.text


def _runs(entry: Path, argv: list[str]) -> bool:
    try:
        return (entry / "cmdline").read_bytes() == "\0".join([*argv, ""]).encode()
    except OSError:
        return False


async def test_logs_are_the_last_lines_or_those_after_a_number(
    start: StartAppliance, tmp_path: Path
) -> None:
    said = tmp_path / "said.txt"
    said.write_text("".join(f"line {number}\n" for number in range(1, 301)))
    box = await start("--log-lines", str(said))

    async def lines(query: str = "") -> list[dict[str, Any]]:
        reply = await box.operator.get(f"{CONTROL}/logs{query}")
        found: list[dict[str, Any]] = reply.json()["lines"]
        return found

    assert len(await lines()) == 100
    told = await lines("?lines=2000")
    assert [line["number"] for line in told] == list(range(1, len(told) + 1))
    assert told[0]["text"] == "line 1"
    assert await lines("?lines=3") == told[-3:]
    assert await lines(f"?after={told[-4]['number']}") == told[-3:]
    assert await lines(f"?after={told[-1]['number']}") == []


async def test_keys_in_the_engines_lines_are_hidden(start: StartAppliance, tmp_path: Path) -> None:
    said = tmp_path / "said.txt"
    said.write_text("args: {'api_key': ['s3cret-one']}\nAuthorization: Bearer s3cret-two\n")
    box = await start("--log-lines", str(said))
    told = (await box.operator.get(f"{CONTROL}/logs")).text
    assert "(hidden)" in told
    assert "s3cret" not in told


# ---- events


async def events(reply: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    """Yield each event's name and its data."""
    name = ""
    async for line in reply.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


async def until(stream: AsyncIterator[tuple[str, Any]], state: str) -> list[tuple[str, Any]]:
    """Read events up to the status that tells ``state``."""
    seen = []
    async with asyncio.timeout(10):
        async for name, value in stream:
            seen.append((name, value))
            if name == "status" and value["state"] == state:
                return seen
    raise AssertionError(f"the stream ended without {state}: {seen}")


def watch(box: Appliance) -> Any:
    return box.operator.stream("GET", f"{CONTROL}/events", timeout=30)


async def test_events_tell_the_status_now_then_each_change_and_each_line(
    start: StartAppliance, tmp_path: Path
) -> None:
    said = tmp_path / "said.txt"
    said.write_text("Starting to load model\nE one line more\n")
    box = await start("--log-lines", str(said))
    async with watch(box) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        stream = events(reply)
        ((name, status),) = await until(stream, "ready")
        assert (name, status["spawn"]) == ("status", 1)
        assert status == (await box.operator.get(f"{CONTROL}/status")).json()
        await box.operator.post(f"{CONTROL}/stop")
        stopping = await until(stream, "stopped")
        assert "stopping" in [value["state"] for name, value in stopping if name == "status"]
        await box.operator.post(f"{CONTROL}/start")
        starting = await until(stream, "ready")
    phases = [value["phase"] for name, value in starting if name == "status"]
    assert "loading weights" in phases
    assert "one line more" in [value["text"] for name, value in starting if name == "log"]
    numbers = [value["number"] for name, value in starting if name == "log"]
    assert numbers == sorted(set(numbers))


async def test_a_watcher_that_leaves_is_forgotten(start: StartAppliance) -> None:
    box = await start()
    before = listeners(box)
    async with watch(box) as reply:
        await until(events(reply), "ready")
        assert listeners(box) > before

    async def forgotten() -> bool:
        return listeners(box) == before

    await eventually(forgotten, "the watcher to be forgotten")


def listeners(box: Appliance) -> int:
    engine: Any = box.running.engine
    return len(engine._listeners) + len(engine.log._listeners)


async def test_the_end_of_the_appliance_ends_the_stream_well(start: StartAppliance) -> None:
    box = await start()
    async with watch(box) as reply:
        stream = events(reply)
        await until(stream, "ready")
        ending = asyncio.create_task(box.end())
        seen = [value["state"] async for name, value in stream if name == "status"]
        assert await ending == 0
    assert seen[-1] == "stopped"


# ---- start and stop


async def test_start_and_stop_answer_at_once_with_the_status(start: StartAppliance) -> None:
    box = await start()
    again = await box.operator.post(f"{CONTROL}/start")
    assert again.status_code == 202
    assert (again.json()["accepted"], again.json()["state"]) == ("start", "ready")
    assert box.snapshot.spawn == 1  # it runs already: nothing happens
    stop = await box.operator.post(f"{CONTROL}/stop")
    assert (stop.status_code, stop.json()["accepted"]) == (202, "stop")
    await box.until("stopped")
    await box.operator.post(f"{CONTROL}/stop")
    assert box.snapshot.state == "stopped"


async def test_kilo_json_names_the_address_that_was_asked(start: StartAppliance) -> None:
    box = await start(max_model_len=49_152)
    config = (await box.client.get("/kilo.json")).json()
    options = config["provider"]["unglitched"]["options"]
    assert options["baseURL"] == f"{box.running.base_url}/v1"
    model = config["provider"]["unglitched"]["models"][MODEL]
    assert model["limit"] == {"context": 43_253, "output": 8_192}


async def test_kilo_json_holds_no_key_whoever_asks(start: StartAppliance) -> None:
    box = await start()
    for client in (box.client, box.operator):
        text = (await client.get("/kilo.json")).text
        assert box.running.keys.client not in text
        assert box.running.keys.operator not in text
        assert '"{env:UNGLITCHED_API_KEY}"' in text


async def test_kilo_json_is_made_for_no_foreign_host(start: StartAppliance) -> None:
    box = await start(allowed_hosts="box.example")
    foreign = await box.client.get("/kilo.json", headers={"host": "evil.example"})
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (400, "host_not_allowed")
    assert "evil" not in foreign.text
    allowed = await box.client.get("/kilo.json", headers={"host": "box.example:9000"})
    assert "http://box.example:9000/v1" in allowed.text


async def test_an_event_stream_is_not_to_be_held_back_by_a_proxy(start: StartAppliance) -> None:
    box = await start()
    async with box.operator.stream("GET", f"{CONTROL}/events") as reply:
        assert reply.headers["x-accel-buffering"] == "no"
