"""Requests that wait at the gate: who may, in which order they pass, and how waiting ends."""

import asyncio
import os
from pathlib import Path

import httpx

from appliance.engine import Request
from tests.appliance_tasks import Appliance, StartAppliance, eventually
from tests.appliances import ASKED, CHAT, CONTROL, LONG


def dam(folder: Path) -> Path:
    """Make a pipe that holds an engine (--log-lines) in loading until it is opened here."""
    pipe = folder / "dam"
    os.mkfifo(pipe)
    return pipe


async def open_dam(pipe: Path) -> None:
    await asyncio.to_thread(pipe.write_text, "loaded\n")


def ask(box: Appliance, name: str = "any", **more: object) -> asyncio.Task[httpx.Response]:
    headers = {"x-request-id": name}
    return asyncio.create_task(box.client.post(CHAT, json=ASKED | more, headers=headers))


async def waiting(box: Appliance, count: int) -> None:
    async def there() -> bool:
        return box.running.gate.waiting == count

    await eventually(there, f"{count} to wait")


async def test_the_65th_that_waits_is_turned_away(start: StartAppliance) -> None:
    box = await start("--never-ready", state="starting")
    crowd = [ask(box) for _ in range(64)]
    await waiting(box, 64)
    reply = await box.ask()
    assert reply.status_code == 429
    assert reply.json()["error"]["code"] == "queue_full"
    assert int(reply.headers["retry-after"]) > 0
    assert await box.metric("appliance_requests_waiting") == 64
    await box.operator.post(f"{CONTROL}/stop")
    for reply in await asyncio.gather(*crowd):
        assert reply.status_code == 503
        assert int(reply.headers["retry-after"]) > 0
    assert box.running.gate.waiting == 0


async def test_who_waits_for_a_start_is_served_first_in_first_out(
    start: StartAppliance, tmp_path: Path
) -> None:
    pipe = dam(tmp_path)
    box = await start("--log-lines", str(pipe), state="starting", max_num_seqs=1)
    crowd = []
    for number in range(8):
        crowd.append(ask(box, f"nr-{number}"))
        await waiting(box, number + 1)
    await open_dam(pipe)
    assert [reply.status_code for reply in await asyncio.gather(*crowd)] == [200] * 8
    served = [request["headers"].get("x-request-id") for request in box.fake.requests(CHAT)]
    assert served[1:] == [f"nr-{number}" for number in range(8)]  # the first was the warm-up


async def test_who_has_waited_too_long_gets_a_503(start: StartAppliance) -> None:
    box = await start("--never-ready", state="starting", queue_timeout_s=0.3)
    reply = await box.ask()
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "queue_timeout"
    assert int(reply.headers["retry-after"]) > 0
    assert box.running.gate.waiting == 0


async def test_who_waits_when_the_engine_fails_is_told_at_once(
    start: StartAppliance, tmp_path: Path
) -> None:
    pipe = dam(tmp_path)
    fault = ("--exit-code", "1", "--never-ready")
    last = {"queue_timeout_s": 600, "restart_max_failures": 1}
    box = await start("--log-lines", str(pipe), *fault, state="starting", **last)
    crowd = [ask(box) for _ in range(3)]
    await waiting(box, 3)
    await open_dam(pipe)
    for reply in await asyncio.gather(*crowd):
        assert reply.status_code == 503
        error = reply.json()["error"]
        assert error["code"] == "engine_failed"
        assert "exit code 1" in error["message"]


async def test_who_waits_behind_a_full_gate_is_told_of_a_stop(start: StartAppliance) -> None:
    box = await start("--chunk-delay", "0.05", max_num_seqs=1)
    async with box.client.stream("POST", CHAT, json=LONG | {"stream": True}) as running:
        assert running.status_code == 200
        behind = ask(box)
        await waiting(box, 1)
        await box.operator.post(f"{CONTROL}/stop")
        reply = await behind
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "engine_not_ready"
    await box.until("stopped")
    assert (box.running.gate.running, box.running.gate.waiting) == (0, 0)


async def test_who_comes_while_an_engine_starts_again_waits_for_it(start: StartAppliance) -> None:
    box = await start("--deaf-to-sigterm")
    await box.operator.post(f"{CONTROL}/stop")
    await box.operator.post(f"{CONTROL}/start")
    assert box.snapshot.state == "stopping"
    reply = await box.ask()
    assert reply.status_code == 200
    assert box.snapshot.spawn == 2


async def test_no_place_to_wait_still_lets_the_first_pass(start: StartAppliance) -> None:
    box = await start("--chunk-delay", "0.05", max_num_seqs=1, max_waiting=0)
    async with box.client.stream("POST", CHAT, json=LONG | {"stream": True}) as running:
        assert running.status_code == 200
        assert (await box.ask()).status_code == 429


async def test_routes_that_generate_nothing_take_no_place(start: StartAppliance) -> None:
    box = await start("--chunk-delay", "0.05", max_num_seqs=1, max_waiting=0)
    async with box.client.stream("POST", CHAT, json=LONG | {"stream": True}):
        assert (await box.client.get("/v1/models")).status_code == 200
        counted = await box.client.post("/tokenize", json={"prompt": "one two"})
        assert counted.status_code == 200
    box.running.engine.request(Request.STOP)
    await box.until("stopped")
    refused = await box.client.get("/v1/models")
    assert refused.status_code == 503
    assert "retry-after" in refused.headers
