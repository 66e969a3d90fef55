"""The engine's life under a real supervisor, over a real child that misbehaves."""

import asyncio
from pathlib import Path

import pytest

from appliance.engine import Request
from tests import engines
from tests.appliance_tasks import Appliance, StartAppliance, running_here
from tests.appliances import CONTROL, engines_of


async def test_a_start_goes_through_loading_to_ready(start: StartAppliance) -> None:
    box = await start("--ready-after", "0.3", state=None)
    await box.until("ready")
    states = [state for state, _ in box.history]
    assert states[-2:] == ["starting", "ready"]
    assert (await box.ask()).status_code == 200


# ---- failures to start: the appliance lives on and says why


async def failed(box: Appliance, code: str) -> str:
    """Wait for FAILED for this reason; return its message as key holders see it."""
    await box.until("failed")
    async with asyncio.timeout(5):
        reply = await box.client.get("/health")
    health = reply.json()
    assert (reply.status_code, health["state"], health["reason"]) == (503, "failed", code)
    assert health["hint"]
    refused = await box.ask()
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "engine_failed"
    assert not engines_of(box.folder)
    return str(health["message"])


async def fell(box: Appliance, code: str) -> str:
    """Wait for a failure of this reason that is tried again; return its message."""
    await box.until("backoff")
    health = (await box.client.get("/health")).json()
    assert (health["state"], health["reason"]) == ("backoff", code)
    assert health["hint"]
    assert "starts again" in health["next"]
    assert health["next_at"]
    assert not engines_of(box.folder)
    return str(health["message"])


async def test_a_missing_model_folder_is_named(start: StartAppliance, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    box = await start(state=None, model_dir=missing)
    assert str(missing) in await failed(box, "model_missing")


async def test_a_folder_that_is_no_checkpoint_is_named(
    start: StartAppliance, tmp_path: Path
) -> None:
    box = await start(state=None, model_dir=tmp_path)
    assert str(tmp_path) in await failed(box, "model_not_a_checkpoint")


async def test_a_config_of_the_wrong_shape_is_no_checkpoint(
    start: StartAppliance, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["X"], "text_config": 3}')
    (tmp_path / "model.safetensors").touch()
    box = await start(state=None, model_dir=tmp_path)
    await failed(box, "model_not_a_checkpoint")


async def test_a_path_that_no_file_system_takes_is_told_at_once(start: StartAppliance) -> None:
    box = await start(state=None, model_dir="/" + "x" * 300)
    await failed(box, "model_missing")


async def test_a_missing_engine_program_is_named(start: StartAppliance) -> None:
    box = await start(state=None, engine_command="/nowhere/vllm")
    assert "/nowhere/vllm" in await failed(box, "engine_missing")


@pytest.mark.parametrize("code", [0, 1, 2])
async def test_an_engine_that_ends_while_loading_failed_whatever_its_code(
    start: StartAppliance, code: int
) -> None:
    box = await start("--never-ready", "--exit-code", str(code), state=None)
    message = await fell(box, "engine_died_loading")
    assert f"while loading (exit code {code})" in message


async def test_the_reason_is_for_all_the_values_for_clients_the_lines_for_the_operator(
    start: StartAppliance, tmp_path: Path
) -> None:
    said = tmp_path / "said.txt"
    said.write_text("loading\nE torch.OutOfMemoryError: CUDA out of memory at /secret/place\n")
    box = await start(
        "--log-lines", str(said), "--exit-code", "1", "--never-ready", state="backoff"
    )
    box.client.headers.pop("authorization")
    nobody = (await box.client.get("/health")).json()
    assert nobody["reason"] == "out_of_memory"
    assert "secret" not in str(nobody)
    operator = await box.health()
    assert "/secret/place" in operator["message"]
    assert operator["last_lines"][0] == "loading"
    assert len(operator["last_lines"]) == 2


async def test_a_flag_that_the_engine_refuses_is_called_that(
    start: StartAppliance, tmp_path: Path
) -> None:
    said = tmp_path / "said.txt"
    said.write_text("usage: vllm serve\nE vllm: error: unrecognized arguments: --no-such-flag\n")
    box = await start("--log-lines", str(said), "--exit-code", "2", "--never-ready", state=None)
    assert "--no-such-flag" in await failed(box, "bad_engine_flag")


async def test_an_engine_that_is_never_ready_is_given_up(start: StartAppliance) -> None:
    box = await start("--never-ready", state=None, start_timeout_s=1)
    assert "within 1 s" in await fell(box, "start_timeout")


async def test_an_engine_that_dies_while_serving_failed_though_it_exits_with_zero(
    start: StartAppliance,
) -> None:
    box = await start()
    box.fake.be(exit_code=0)
    assert "while serving (exit code 0)" in await fell(box, "engine_died")


async def test_an_engine_that_dies_in_its_warm_up_was_never_ready(start: StartAppliance) -> None:
    box = await start("--slow-head", "60", "--exit-code", "3", "--exit-after", "2", state=None)
    message = await fell(box, "engine_died_loading")
    assert "while loading (exit code 3)" in message
    assert "ready" not in [state for state, _ in box.history]


async def test_a_start_after_a_failure_starts_again(start: StartAppliance, tmp_path: Path) -> None:
    said = tmp_path / "said.txt"
    box = await start("--log-lines", str(said), state="backoff")  # no such file: the fake dies
    said.touch()
    assert (await box.operator.post(f"{CONTROL}/start")).status_code == 202
    now = await box.until("ready")
    assert now.spawn == 2
    assert (await box.ask()).status_code == 200


# ---- stopping


async def stopped(box: Appliance, within_s: float) -> None:
    assert (await box.operator.post(f"{CONTROL}/stop")).status_code == 202
    now = await box.until("stopped", within_s=within_s)
    assert now.reason.code == "stopped_by_operator"
    assert not engines_of(box.folder)


async def test_a_stop_ends_the_engine_and_keeps_the_appliance(start: StartAppliance) -> None:
    box = await start()
    await stopped(box, within_s=10)
    assert (await box.client.get("/health/live")).status_code == 200
    assert (await box.ask()).json()["error"]["code"] == "engine_failed"


async def test_a_stop_then_a_start_serves_from_a_new_engine(start: StartAppliance) -> None:
    box = await start()
    first = box.fake.url
    await stopped(box, within_s=10)
    await box.operator.post(f"{CONTROL}/start")
    assert (await box.until("ready")).spawn == 2
    assert box.fake.url != first
    assert (await box.ask()).status_code == 200


@pytest.mark.parametrize("fault", ["--deaf-until-ready", "--deaf-to-sigterm"])
async def test_a_stop_while_loading_ends_though_the_engine_is_deaf(
    start: StartAppliance, tmp_path: Path, fault: str
) -> None:
    said = tmp_path / "said.txt"
    said.write_text("Starting to load model\n")
    box = await start("--log-lines", str(said), fault, "--never-ready", state=None)
    await said_something(box)
    await stopped(box, within_s=10)
    assert [state for state, _ in box.history][-2:] == ["stopping", "stopped"]


async def test_a_stop_of_a_deaf_engine_ends_with_its_deadline(start: StartAppliance) -> None:
    box = await start("--deaf-to-sigterm")
    await stopped(box, within_s=10)


async def test_a_stop_before_the_plan_is_made_starts_nothing(start: StartAppliance) -> None:
    box = await start(state=None)
    box.running.engine.request(Request.STOP)
    await box.until("stopped")
    box.running.engine.request(Request.START)
    await box.until("ready")
    assert (await box.ask()).status_code == 200


async def test_a_start_during_a_stop_starts_again(start: StartAppliance) -> None:
    box = await start("--deaf-to-sigterm")
    await box.operator.post(f"{CONTROL}/stop")
    await box.until("stopping")
    await box.operator.post(f"{CONTROL}/start")
    now = await box.until("ready")
    assert now.spawn == 2
    assert "stopped" not in [state for state, _ in box.history]


async def test_the_last_word_counts_when_a_start_and_a_stop_meet_a_stop(
    start: StartAppliance,
) -> None:
    box = await start("--deaf-to-sigterm")
    for verb in ("stop", "start", "stop"):
        await box.operator.post(f"{CONTROL}/{verb}")
    assert (await box.until("stopped")).spawn == 1


# ---- nothing is left


async def test_a_grandchild_that_holds_the_pipes_is_swept_with_its_engine(
    start: StartAppliance,
) -> None:
    box = await start("--fork-grandchild")
    assert len(engines_of(box.folder)) == 2
    await stopped(box, within_s=10)


async def test_a_grandchild_of_an_engine_that_died_is_swept(start: StartAppliance) -> None:
    box = await start("--fork-grandchild")
    box.fake.be(exit_code=1)
    await fell(box, "engine_died")


@pytest.mark.parametrize("faults", [(), ("--deaf-to-sigterm", "--fork-grandchild")])
async def test_the_end_of_the_appliance_leaves_nothing(
    tmp_path: Path, faults: tuple[str, ...]
) -> None:
    async with running_here(tmp_path, *faults) as box:
        await box.until("ready")
        groups = engines_of(tmp_path)
        assert groups
    assert not engines_of(tmp_path)
    assert not any(engines.group_members(group) for group in groups)


async def test_the_end_while_loading_leaves_nothing(tmp_path: Path) -> None:
    said = tmp_path / "said.txt"
    said.write_text("Starting to load model\n")
    flags = ("--log-lines", str(said), "--never-ready", "--deaf-to-sigterm")
    async with running_here(tmp_path, *flags) as box:
        await said_something(box)
        assert engines_of(tmp_path)
    assert not engines_of(tmp_path)


async def said_something(box: Appliance) -> None:
    """Wait for the engine's first line."""
    heard = asyncio.Event()
    box.running.engine.log.listen(lambda _line: heard.set())
    if not box.running.engine.log.tail(1):
        async with asyncio.timeout(10):
            await heard.wait()
