"""In front of an engine that somebody else runs: seen, served from, never stopped."""

import asyncio
from functools import partial

import httpx
import pytest

from appliance.report import print_smoke
from tests.appliance_tasks import Appliance, StartAppliance, eventually
from tests.appliances import CHAT, CONTROL, NO_TLS, WEB, Fake, attached_to
from tests.engines import EngineHandle, StartFake, free_port


def probed(engine: EngineHandle) -> str:
    """Return the status of the engine's /health, or nothing."""
    try:
        return str(WEB.get(f"{engine.base_url}/health").status_code)
    except httpx.ConnectError:
        return ""


async def because(box: Appliance, code: str) -> None:
    """Wait until the engine is in its state for this reason."""

    async def there() -> bool:
        return box.snapshot.reason.code == code

    await eventually(there, f"{code}; it is {box.snapshot}")


async def in_warm_up(url: str) -> None:
    """Wait until the engine has the warm-up's question."""

    async def there() -> bool:
        return bool(Fake(url).requests(CHAT))

    await eventually(there, "the warm-up")


async def test_it_follows_the_engine_as_it_comes_and_goes(
    start: StartAppliance, fake_engine: StartFake
) -> None:
    engine = fake_engine("--health-status", "503", ready=False)
    box = await start(state=None, **attached_to(engine.base_url, engine.key))

    await because(box, "unreachable")
    refused = await box.ask()
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "engine_not_ready"
    assert (await box.client.get("/health")).status_code == 503

    async def listening() -> bool:
        return "503" in probed(engine)

    await eventually(listening, "the engine to listen")
    Fake(engine.base_url).be()
    await box.until("ready")
    assert (await box.ask()).status_code == 200
    engine.process.kill()
    now = await box.until("unreachable")
    assert engine.base_url in now.reason.what
    assert now.reason.hint
    assert (await box.ask()).status_code == 503


async def test_nobody_there_is_unreachable_and_told_with_its_address(
    start: StartAppliance,
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    box = await start(state=None, **attached_to(url, "key"))
    await because(box, "unreachable")
    assert url in box.snapshot.reason.what


async def test_a_wrong_engine_key_is_called_that(
    start: StartAppliance, fake_engine: StartFake
) -> None:
    engine = fake_engine()
    box = await start(state=None, **attached_to(engine.base_url, "wrong"))
    await because(box, "refused")
    health = await box.health()
    assert "401" in health["message"]
    assert "APPLIANCE_ENGINE_KEY" in health["hint"]


async def test_another_models_name_is_named(start: StartAppliance, fake_engine: StartFake) -> None:
    engine = fake_engine()
    other = attached_to(engine.base_url, engine.key, served_model_name="Tesla")
    box = await start(state=None, **other)
    await because(box, "other_model")
    health = await box.health()
    assert "serves Nikola, not Tesla" in health["message"]
    assert "APPLIANCE_SERVED_MODEL_NAME" in health["hint"]


async def test_the_engine_gets_its_own_key_and_never_the_clients(
    start: StartAppliance, fake_engine: StartFake
) -> None:
    engine = fake_engine()
    box = await start(**attached_to(engine.base_url, engine.key))
    await box.ask()
    seen = Fake(engine.base_url).requests(CHAT)[-1]
    assert seen["headers"]["authorization"] == f"Bearer {engine.key}"
    assert box.running.keys.client not in str(seen)


async def test_a_stop_shuts_the_gate_and_leaves_the_engine_alone(
    start: StartAppliance, fake_engine: StartFake
) -> None:
    engine = fake_engine("--chunk-delay", "0.02")
    box = await start(**attached_to(engine.base_url, engine.key))
    asked = {"messages": [{"role": "user", "content": "x"}], "stream": True}
    async with box.client.stream("POST", CHAT, json=asked) as running:
        await box.operator.post(f"{CONTROL}/stop")
        now = await box.until("draining")
        assert now.reason.code == "stopped_by_operator"
        assert (await box.ask()).status_code == 503
        text = "".join([part async for part in running.aiter_text()])
    assert "[DONE]" in text  # what ran ran to its end
    assert engine.process.poll() is None
    await box.operator.post(f"{CONTROL}/start")
    await box.until("ready")
    assert (await box.ask()).status_code == 200


async def test_the_end_of_the_appliance_leaves_the_engine_running(
    start: StartAppliance, fake_engine: StartFake
) -> None:
    engine = fake_engine()
    box = await start(**attached_to(engine.base_url, engine.key))
    assert await box.end() == 0
    assert Fake(engine.base_url).seen()
    assert engine.process.poll() is None


async def test_the_end_does_not_wait_for_a_long_warm_up(
    start: StartAppliance, fake_engine: StartFake
) -> None:
    engine = fake_engine("--slow-head", "600")
    box = await start(state=None, **attached_to(engine.base_url, engine.key))
    await in_warm_up(engine.base_url)
    async with asyncio.timeout(5):
        assert await box.end() == 0


async def test_an_engine_that_goes_in_its_warm_up_was_never_ready(
    start: StartAppliance, fake_engine: StartFake
) -> None:
    engine = fake_engine("--slow-head", "600")
    box = await start(state=None, **attached_to(engine.base_url, engine.key))
    await in_warm_up(engine.base_url)
    engine.process.kill()
    await because(box, "unreachable")
    assert "ready" not in [state for state, _ in box.history]


async def test_suspect_output_is_seen_in_health_and_fails_the_smoke(
    start: StartAppliance, fake_engine: StartFake, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = fake_engine("--garbage")
    box = await start(**attached_to(engine.base_url, engine.key))
    assert (await box.health())["degraded"] == ["output_suspect"]
    assert await box.metric("appliance_engine_degraded", kind="output_suspect") == 1
    keys = (box.running.base_url, box.running.keys.client)
    smoke = partial(print_smoke, *keys, expect_glitch=False, trust=NO_TLS)
    assert await asyncio.to_thread(smoke) == 1
    assert "output_suspect" in capsys.readouterr().out
    assert (await box.operator.get(f"{CONTROL}/plan")).json()["command"] is None


async def test_who_still_waits_for_a_head_when_the_appliance_ends_is_told_so(
    start: StartAppliance, fake_engine: StartFake
) -> None:
    engine = fake_engine()
    box = await start(**attached_to(engine.base_url, engine.key))
    fake = Fake(engine.base_url)
    fake.be(slow_head=600)
    asked = asyncio.create_task(box.ask())

    async def there() -> bool:
        return len(fake.requests(CHAT)) == 2  # after the warm-up

    await eventually(there, "the request at the engine")
    assert await box.end() == 0
    reply = await asked
    assert reply.status_code == 503
    assert "stopping" in reply.json()["error"]["message"]
