"""Starts that do not come to an end, and those that only look so; memory that is short."""

from pathlib import Path

from tests.appliance_tasks import Appliance, StartAppliance
from tests.appliances import CONTROL, engines_of
from tests.fault.clients import (
    QUICK,
    Chronicle,
    argv_value,
    ask,
    asking,
    incidents,
    lives,
    saying,
    waiting,
)
from tests.fault.table import Faults

OUT_OF_MEMORY = "E torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"


async def test_a_start_that_sleeps_without_a_word_is_ended_and_tried_again(
    start: StartAppliance, tmp_path: Path, faults: Faults
) -> None:
    ill = lives(tmp_path, "--never-ready --deaf-to-sigterm")
    box = await start(*ill, state="starting", start_quiet_s=1.5, **QUICK)
    chronicle = Chronicle(box)
    early = asking(box)
    await waiting(box, 1)
    detected_s = await chronicle.until("stopping")
    recovered_s = await chronicle.until("ready")
    assert [code for state, code in chronicle.codes if state != "starting"] == [
        *("start_stalled", "start_stalled", "preparing", "ready")
    ]
    assert detected_s >= 1.4
    assert (await early).is_true
    (incident,) = incidents(box.folder)
    assert (incident.code, incident.state) == ("start_stalled", "stopping")
    faults.row("never ready, asleep", detected_s, recovered_s, "who waited was answered")


async def test_a_start_that_computes_in_silence_is_left_alone(
    start: StartAppliance, faults: Faults
) -> None:
    box = await start("--busy-load", "3", state="starting", start_quiet_s=1.0, **QUICK)
    chronicle = Chronicle(box)
    early = asking(box)
    took_s = await chronicle.until("ready")
    assert took_s > 2  # twice the longest silence of one that sleeps
    assert box.snapshot.spawn == 1
    assert (await early).is_true
    faults.row("silent compile (3 x the quiet limit)", None, None, "waited, and was answered")


async def test_a_start_that_works_for_ever_ends_with_its_last_deadline(
    start: StartAppliance, tmp_path: Path, faults: Faults
) -> None:
    ill = lives(tmp_path, "--busy-load 60")
    limits = {"start_timeout_s": 2.5, "start_quiet_s": 1.0}
    box = await start(*ill, state="starting", **limits, **QUICK)
    chronicle = Chronicle(box)
    detected_s = await chronicle.until("stopping")
    assert ("stopping", "start_timeout") in chronicle.codes
    recovered_s = await chronicle.until("ready")
    faults.row("computes, but is never ready", detected_s, recovered_s, "who waited was answered")


async def test_a_restart_of_an_engine_that_is_deaf_to_sigterm_comes_through(
    start: StartAppliance, faults: Faults
) -> None:
    box = await start("--deaf-to-sigterm", "--fork-grandchild", **QUICK)
    before = engines_of(box.folder)
    chronicle = Chronicle(box)
    await box.operator.post(f"{CONTROL}/restart")
    detected_s = await chronicle.until("preparing")
    assert not before & engines_of(box.folder)
    recovered_s = await chronicle.until("ready")
    assert (await ask(box.client)).is_true
    assert incidents(box.folder) == []  # what was asked for is no failure
    faults.row("deaf to SIGTERM", detected_s, recovered_s, "who came meanwhile waited")


def contexts(box: Appliance) -> list[str]:
    """Collect the context of each spawn from now on."""
    found: list[str] = []
    seen: set[int] = set()

    def note(now: object) -> None:
        if box.snapshot.state == "starting" and box.snapshot.spawn not in seen:
            seen.add(box.snapshot.spawn)
            found.append(argv_value(box, "--max-model-len"))

    box.running.engine.listen(note)
    return found


async def test_a_death_for_memory_takes_the_next_safer_plan(
    start: StartAppliance, tmp_path: Path, faults: Faults
) -> None:
    ill = saying(tmp_path, OUT_OF_MEMORY)
    box = await start(*lives(tmp_path, ill, ill), state=None, max_model_len=49152, **QUICK)
    found, chronicle = contexts(box), Chronicle(box)
    early = asking(box)
    detected_s = await chronicle.until("backoff")
    recovered_s = await chronicle.until("ready")
    assert found == ["49152", "32768", "16384"]
    assert (await early).is_true
    status = (await box.operator.get(f"{CONTROL}/status")).json()
    assert (status["safer_plans"], status["max_model_len"]) == (2, 16384)
    assert {incident.grade for incident in incidents(box.folder)} == {"memory"}
    seen = "who waited was answered, with a context of 16384"
    faults.row("memory runs out in two starts", detected_s, recovered_s, seen)


async def test_the_safest_plan_that_does_not_fit_either_is_the_end(
    start: StartAppliance, tmp_path: Path, faults: Faults
) -> None:
    ill = lives(tmp_path, *[saying(tmp_path, OUT_OF_MEMORY)] * 9)
    limits = {"max_model_len": 49152, "restart_max_failures": 9, **QUICK}
    box = await start(*ill, state=None, **limits)
    found, chronicle = contexts(box), Chronicle(box)
    detected_s = await chronicle.until("failed")
    assert found == ["49152", "32768", "16384"]
    assert box.snapshot.reason.code == "gave_up"
    faults.row("memory runs out in each start", detected_s, None, "503 that says what to do")


async def test_a_state_folder_that_takes_nothing_costs_the_past_and_not_the_service(
    start: StartAppliance, tmp_path: Path, faults: Faults
) -> None:
    state = tmp_path / "box0" / "state"
    (state / ".engine.json.tmp").mkdir(parents=True)
    (state / "incidents").write_text("no folder")
    box = await start(**QUICK)
    assert "state_not_saved" in (await box.health())["degraded"]
    chronicle = Chronicle(box)
    box.fake.be(exit_code=1)
    detected_s = await chronicle.until("backoff")
    recovered_s = await chronicle.until("ready")
    assert "state_not_saved" in (await box.health())["degraded"]
    assert (await ask(box.client)).is_true
    assert not (state / "engine.json").exists()
    faults.row("state folder full", detected_s, recovered_s, "nothing of it")
