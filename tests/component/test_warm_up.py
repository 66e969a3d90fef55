"""The warm-up's verdict: an engine whose output is suspect serves, and everybody can see it."""

from tests.appliance_tasks import StartAppliance
from tests.appliances import CONTROL

DEGRADED = "appliance_engine_degraded"


async def test_garbage_makes_a_ready_engine_degraded(start: StartAppliance) -> None:
    box = await start("--garbage")
    health = await box.client.get("/health")
    assert health.status_code == 200
    assert health.json()["status"] == "ready"
    assert health.json()["degraded"] == ["output_suspect"]
    assert await box.metric(DEGRADED, kind="output_suspect") == 1
    assert (await box.ask()).status_code == 200


async def test_a_right_answer_leaves_no_mark(start: StartAppliance) -> None:
    box = await start()
    assert (await box.health())["degraded"] == []
    assert DEGRADED in (await box.client.get("/metrics")).text
    assert await box.metric(DEGRADED, kind="output_suspect") == 0


async def test_the_mark_goes_with_the_engine_that_earned_it(start: StartAppliance) -> None:
    box = await start("--garbage")
    await box.operator.post(f"{CONTROL}/stop")
    await box.until("stopped")
    assert (await box.health())["degraded"] == []
    assert await box.metric(DEGRADED, kind="output_suspect") == 0


async def test_the_warm_up_carries_the_prompt_and_is_greedy(start: StartAppliance) -> None:
    box = await start()
    (request,) = box.fake.requests("/v1/chat/completions")
    assert request["body"]["temperature"] == 0
    assert request["body"]["messages"][0]["role"] == "system"
