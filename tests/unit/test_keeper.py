"""What is kept over the appliance's life, in which order, and what is told when it cannot be."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from appliance import tree
from appliance.engine import Snapshot, Traffic
from appliance.incarnation import Findings, Incarnation
from appliance.incidents import Incident, IncidentStore
from appliance.keeper import NOT_SAVED, Keeper, open_keeper
from appliance.launch import HIDDEN, LaunchPlan
from appliance.lifecycle import EngineState, Machine
from appliance.logs import EngineLog
from appliance.progress import Progress
from appliance.restart import Grade, History, Reason
from appliance.statefile import Kept, StateFile
from tests.appliance_tasks import eventually

CHOICE = "a choice"
TOKEN = "0123456789abcdef"
DIED = Reason("engine_died", "it died", "do this", Grade.TRANSIENT)
FALLEN = Snapshot("backoff", DIED, 0.0, next="starts again (failure 1 of 3)")


def kept_in(folder: Path) -> Kept:
    """What another life of the appliance would find."""
    return StateFile(folder / "engine.json").load()


class CountedFile(StateFile):
    """A state file that counts its writes, and holds each up while ``shut``."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.saves = 0
        self.entered = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def save(self, kept: Kept) -> str:
        self.saves += 1
        self.entered.set()
        assert self.open.wait(10)
        return super().save(kept)


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return open_keeper(tmp_path, CHOICE)


@contextmanager
def counted(folder: Path) -> Iterator[tuple[Keeper, CountedFile]]:
    file = CountedFile(folder / "engine.json")
    try:
        yield Keeper(file, IncidentStore(folder / "incidents"), Kept()), file
    finally:
        file.open.set()


# ---- what is kept


def test_a_first_life_has_no_past_and_is_wanted(keeper: Keeper) -> None:
    assert keeper.history == History()
    assert keeper.is_wanted
    assert keeper.degraded == ()


def test_the_next_life_has_the_same_past(keeper: Keeper, tmp_path: Path) -> None:
    past = History((10.0, 20.0), 1, Reason("gave_up", "thrice", "appliance reset", Grade.MEMORY))
    keeper.remember(past)
    keeper.want(False)
    keeper.save_now()
    again = open_keeper(tmp_path, CHOICE)
    assert again.history == past
    assert not again.is_wanted


def test_another_choice_forgives_but_its_orphan_is_still_there(
    keeper: Keeper, tmp_path: Path
) -> None:
    keeper.remember(History((10.0,), 2, DIED))
    keeper.want(False)
    keeper.born(1, TOKEN)
    keeper.save_now()
    again = open_keeper(tmp_path, "another choice")
    assert again.history == History()
    assert not again.is_wanted
    assert again.kept.engine == keeper.kept.engine


async def test_an_engine_is_written_down_before_it_is_there(keeper: Keeper, tmp_path: Path) -> None:
    await keeper.announce(TOKEN)
    engine = kept_in(tmp_path).engine
    assert engine is not None
    assert (engine.pid, engine.start_ticks, engine.token) == (0, 0, TOKEN)
    assert engine.init_ticks == tree.start_ticks(1)


def test_a_born_engine_is_named_for_good_and_forgotten_when_gone(
    keeper: Keeper, tmp_path: Path
) -> None:
    keeper.born(1, TOKEN)
    keeper.save_now()
    engine = kept_in(tmp_path).engine
    assert engine is not None
    assert (engine.pid, engine.start_ticks) == (1, tree.start_ticks(1))
    keeper.gone()
    keeper.save_now()
    assert kept_in(tmp_path).engine is None


# ---- in which order


async def test_each_change_is_written_by_itself(keeper: Keeper, tmp_path: Path) -> None:
    writing = asyncio.create_task(keeper.run())
    for wanted in (False, True, False):
        keeper.want(wanted)

        async def stands(wanted: bool = wanted) -> bool:
            path = tmp_path / "engine.json"
            return path.exists() and json.loads(path.read_bytes())["wanted"] is wanted

        await eventually(stands, f"wanted={wanted} on disk")
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_what_did_not_change_is_not_written(tmp_path: Path) -> None:
    with counted(tmp_path) as (keeper, file):
        keeper.kept = Kept(failures=(1.0,), wanted=True)
        writing = asyncio.create_task(keeper.run())
        keeper.want(True)
        keeper.gone()
        keeper.remember(History((1.0,)))
        # one that did change: all before it has been looked at by then
        keeper.remember(History((1.0, 2.0)))

        async def written() -> bool:
            return kept_in(tmp_path).failures == (1.0, 2.0)

        await eventually(written, "the change on disk")
        assert file.saves == 1
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


def test_the_newest_state_is_written_last(tmp_path: Path) -> None:
    with counted(tmp_path) as (keeper, file):
        file.open.clear()
        first = threading.Thread(target=keeper.save_now)
        first.start()
        assert file.entered.wait(10)
        keeper.remember(History((1.0,)))
        second = threading.Thread(target=keeper.save_now)
        second.start()  # it waits for the first, and must not write what it saw before
        keeper.remember(History((1.0, 2.0)))
        file.open.set()
        first.join(10)
        second.join(10)
        assert kept_in(tmp_path).failures == (1.0, 2.0)


def test_saves_from_many_threads_leave_the_newest(keeper: Keeper, tmp_path: Path) -> None:
    def save_often() -> None:
        for _ in range(20):
            keeper.save_now()

    threads = [threading.Thread(target=save_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for moment in range(200):
        keeper.remember(History((float(moment),)))
    for thread in threads:
        thread.join(30)
    keeper.save_now()
    assert kept_in(tmp_path).failures == (199.0,)
    assert not list(tmp_path.glob(".*.tmp"))


# ---- when it cannot be kept


def test_a_folder_that_takes_no_file_is_told_until_it_does(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    keeper = open_keeper(folder, CHOICE)
    keeper.want(False)
    keeper.save_now()
    assert NOT_SAVED in keeper.degraded
    assert not keeper.is_wanted  # this life knows it all the same
    folder.mkdir()
    keeper.save_now()
    assert not keeper.degraded
    assert not kept_in(folder).wanted


def test_an_incident_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "incidents").write_text("a file in the way")
    keeper = open_keeper(tmp_path, CHOICE)
    note(keeper)
    assert keeper.degraded == (NOT_SAVED,)


def test_a_saved_state_does_not_hide_that_an_incident_was_lost(tmp_path: Path) -> None:
    (tmp_path / "incidents").write_text("a file in the way")
    keeper = open_keeper(tmp_path, CHOICE)
    note(keeper)
    keeper.save_now()
    assert keeper.degraded == (NOT_SAVED,)


# ---- incidents


@dataclass
class Spawn:
    """As much of an incarnation as an incident tells."""

    plan: LaunchPlan
    findings: Findings
    progress: Progress = field(default_factory=Progress)
    is_ready: bool = False
    uptime_s: float = 12.345


PLAN = LaunchPlan(
    argv=("vllm", "serve", "/models/x"),
    env={"PATH": "/private/bin", "OURS": "1", "VLLM_API_KEY": "spawn-key"},
    host="127.0.0.1",
    port=1,
    api_key="spawn-key",
    inherited=frozenset({"PATH"}),
)


def note(keeper: Keeper, engine: Spawn | None = None, lines: EngineLog | None = None) -> None:
    before = Machine(state=EngineState.READY, spawn=7)
    spawn = cast("Incarnation | None", engine)
    keeper.incident(before, DIED, FALLEN, lines or EngineLog(), spawn)


def kept_incident(keeper: Keeper) -> Incident:
    (incident,) = keeper.incidents.list()
    return incident


def test_an_incident_tells_where_why_and_what_follows(keeper: Keeper) -> None:
    note(keeper)
    told = kept_incident(keeper)
    assert (told.spawn, told.state, told.next) == (7, "ready", FALLEN.next)
    assert (told.code, told.grade) == ("engine_died", "transient")
    assert (told.what, told.hint) == ("it died", "do this")
    assert told.memory["after"]["MemTotal"] > 0


def test_an_incident_without_an_engine_has_the_rest(keeper: Keeper) -> None:
    note(keeper)
    told = kept_incident(keeper)
    assert (told.uptime_s, told.phase, told.exit, told.plan.argv) == (0.0, "", "", ())
    assert told.memory["before"] == {}


def test_an_incident_of_an_engine_has_what_was_found_out(keeper: Keeper) -> None:
    findings = Findings(
        exit="signal 9",
        traffic=Traffic(running=2, waiting=3),
        memory={"MemTotal": 5},
        stacks={"12 EngineCore": "Thread 1"},
        counters={"silence_s": 181.0},
    )
    note(keeper, Spawn(PLAN, findings, Progress("compiling")))
    told = kept_incident(keeper)
    assert (told.exit, told.phase, told.uptime_s) == ("signal 9", "compiling", 12.3)
    assert (told.requests_running, told.requests_waiting) == (2, 3)
    assert told.memory["before"] == {"MemTotal": 5}
    assert told.stacks == {"12 EngineCore": "Thread 1"}
    assert told.metrics == {"silence_s": 181.0}


def test_an_engine_that_served_died_in_no_phase_of_loading(keeper: Keeper) -> None:
    note(keeper, Spawn(PLAN, Findings(), Progress("compiling"), is_ready=True))
    assert kept_incident(keeper).phase == ""


def test_an_incident_has_the_plan_without_key_and_without_what_was_inherited(
    keeper: Keeper, tmp_path: Path
) -> None:
    note(keeper, Spawn(PLAN, Findings()))
    plan = kept_incident(keeper).plan
    assert plan.argv == PLAN.argv
    assert plan.env == {"OURS": "1", "VLLM_API_KEY": HIDDEN}
    (file,) = (tmp_path / "incidents").iterdir()
    assert b"spawn-key" not in file.read_bytes()
    assert b"/private/bin" not in file.read_bytes()


def test_an_incident_has_the_last_lines_as_the_gate_let_them_through(keeper: Keeper) -> None:
    lines = EngineLog()
    lines.gate.strict = True
    for number in range(500):
        lines.append(f"INFO:     Started server process [{number}]")
    lines.append("a prompt")
    note(keeper, lines=lines)
    told = kept_incident(keeper).lines
    assert len(told) == 400
    assert told[0] == "INFO:     Started server process [101]"
    assert told[-1] == "(hidden line)"


# ---- an earlier life


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a session, as an engine does."""
    command = [sys.executable, "-c", "import signal; signal.pause()"]
    process = subprocess.Popen(command, start_new_session=True)
    yield process
    process.kill()
    process.wait(10)


async def test_without_a_record_there_is_no_orphan(keeper: Keeper) -> None:
    assert not await keeper.end_orphans()


async def test_the_engine_of_an_earlier_life_is_ended_and_forgotten(
    keeper: Keeper, tmp_path: Path, leader: subprocess.Popen[bytes]
) -> None:
    keeper.born(leader.pid, TOKEN)
    keeper.save_now()
    again = open_keeper(tmp_path, CHOICE)
    assert await again.end_orphans()
    assert leader.wait(10) == -signal.SIGKILL
    assert again.kept.engine is None


async def test_an_engine_that_had_ended_by_itself_is_forgotten(
    keeper: Keeper, leader: subprocess.Popen[bytes]
) -> None:
    keeper.born(leader.pid, TOKEN)
    leader.kill()
    leader.wait(10)
    assert not await keeper.end_orphans()
    assert keeper.kept.engine is None
