"""Engines that end unasked: while they load, while they serve, with whatever code."""

from pathlib import Path

from tests.appliance_tasks import StartAppliance
from tests.appliances import CONTROL, engines_of
from tests.fault.clients import (
    QUICK,
    Chronicle,
    ask,
    asking,
    incidents,
    lives,
    saying,
    streaming,
)
from tests.fault.table import Faults

CODES = [0, 1, 2, 139, 137]
KILLED = {137: "engine_killed"}


async def test_an_engine_that_ends_while_serving_is_started_again_whatever_its_code(
    start: StartAppliance, faults: Faults
) -> None:
    box = await start(restart_max_failures=99, **QUICK)
    chronicle = Chronicle(box)
    for number, code in enumerate(CODES, 1):
        box.fake.be(chunk_delay=0.02)
        cut = await streaming(box)
        chronicle.mark()
        box.fake.be(exit_code=code)
        detected_s = await chronicle.until("backoff")
        late = asking(box)
        recovered_s = await chronicle.until("ready")
        assert (await cut).is_cut
        assert (await late).is_true
        assert box.snapshot.spawn == number + 1
        newest = incidents(box.folder)[0]
        assert newest.code == KILLED.get(code, "engine_died")
        assert (newest.state, newest.exit, newest.spawn) == ("ready", f"exit code {code}", number)
        seen = "the running stream broke off, without [DONE]; who came after was answered"
        faults.row(f"engine ends while serving: exit code {code}", detected_s, recovered_s, seen)


async def test_an_engine_that_ends_while_loading_is_started_again_whatever_its_code(
    start: StartAppliance, tmp_path: Path, faults: Faults
) -> None:
    box = await start(*lives(tmp_path), restart_max_failures=99, **QUICK)
    chronicle = Chronicle(box)
    for code in CODES:
        lives(tmp_path, f"--never-ready --exit-code {code}")
        chronicle.mark()
        await box.operator.post(f"{CONTROL}/restart")
        begun_s = await chronicle.until("starting")
        early = asking(box)
        detected_s = await chronicle.until("backoff")
        recovered_s = await chronicle.until("ready")
        assert (await early).is_true
        newest = incidents(box.folder)[0]
        assert newest.code == KILLED.get(code, "engine_died_loading")
        assert (newest.state, newest.exit) == ("starting", f"exit code {code}")
        assert "serve" in newest.plan.argv
        faults.row(
            f"engine ends while loading: exit code {code}",
            detected_s - begun_s,
            recovered_s - begun_s,
            "who waited was answered by the next engine",
        )


async def test_a_flag_that_the_engine_does_not_know_is_not_tried_again(
    start: StartAppliance, tmp_path: Path, faults: Faults
) -> None:
    ill = saying(tmp_path, "E vllm: error: unrecognized arguments: --no-such-flag")
    ill = ill.replace("--exit-code 1", "--exit-code 2")
    box = await start(*lives(tmp_path, ill), state="starting", **QUICK)
    chronicle = Chronicle(box)
    early = asking(box)
    detected_s = await chronicle.until("failed")
    assert "backoff" not in chronicle.states
    told = await early
    assert (told.status, told.code, "retry-after" in told.headers) == (503, "engine_failed", True)
    assert box.snapshot.spawn == 1
    assert "--no-such-flag" in box.snapshot.reason.what
    (incident,) = incidents(box.folder)
    assert (incident.code, incident.grade) == ("bad_engine_flag", "permanent")
    await box.operator.post(f"{CONTROL}/start")  # a permanent cause counts for no breaker
    await box.until("ready")
    faults.row("engine refuses a flag: exit code 2", detected_s, None, "503 that names the flag")


async def test_a_port_that_is_taken_is_tried_again_with_another(
    start: StartAppliance, tmp_path: Path, faults: Faults
) -> None:
    ill = saying(tmp_path, "E OSError: [Errno 98] Address already in use")
    box = await start(*lives(tmp_path, ill), state="starting", **QUICK)
    first = box.fake.url
    chronicle = Chronicle(box)
    detected_s = await chronicle.until("backoff")
    recovered_s = await chronicle.until("ready")
    assert chronicle.of("backoff")[0].reason.code == "engine_port_taken"
    assert box.fake.url != first
    assert (await ask(box.client)).is_true
    faults.row("port taken", detected_s, recovered_s, "who waited was answered")


async def test_a_grandchild_that_holds_the_pipe_does_not_hide_the_end(
    start: StartAppliance, faults: Faults
) -> None:
    box = await start("--fork-grandchild", **QUICK)
    before = engines_of(box.folder)
    assert len(before) == 2
    chronicle = Chronicle(box)
    box.fake.be(exit_code=1)
    detected_s = await chronicle.until("backoff")
    assert not before & engines_of(box.folder)
    recovered_s = await chronicle.until("ready")
    faults.row("grandchild holds the pipe", detected_s, recovered_s, "as for any end")


async def test_a_model_that_vanishes_between_two_starts_is_named_and_not_waited_for(
    start: StartAppliance, faults: Faults
) -> None:
    box = await start(**QUICK)
    model, away = box.folder / "model", box.folder / "away"
    model.rename(away)
    chronicle = Chronicle(box)
    box.fake.be(exit_code=0)
    await chronicle.until("backoff")
    late = asking(box)
    detected_s = await chronicle.until("failed")
    assert ("failed", "model_missing") in chronicle.codes
    assert str(model) in box.snapshot.reason.what
    told = await late
    assert (told.status, told.code) == (503, "engine_failed")
    assert [incident.code for incident in incidents(box.folder)] == ["model_missing", "engine_died"]
    away.rename(model)
    await box.operator.post(f"{CONTROL}/start")
    await box.until("ready")
    faults.row("model folder vanishes", detected_s, None, "503 that names the folder")
