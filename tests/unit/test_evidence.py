"""Stacks of the engine's processes: from real ones that answer, and real ones that cannot."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest

from appliance.evidence import TEXT_LIMIT, gather_stacks
from tests.engines import ROOT, wait_until

PLUGIN = ROOT / "unglitched_vllm" / "plugin"
LISTENS = "from unglitched_vllm_plugin.evidence import register; register()"
# "up" is said on the line where they stay: so whoever was told finds them there.
WAITS = """
def reads_for_ever():
    os.write(1, b"up\\n"); sys.stdin.read()
reads_for_ever()
"""
SPINS = """
def holds_the_lock():
    os.write(1, b"up\\n"); re.match(r"(a*)*b", "a" * 60)
holds_the_lock()
"""
MANY_THREADS = """
def deep_down_in_the_code_of_a_thread_with_a_long_name(n):
    if n:
        deep_down_in_the_code_of_a_thread_with_a_long_name(n - 1)
    end.wait()
end = threading.Event()
for _ in range(30):
    threading.Thread(target=deep_down_in_the_code_of_a_thread_with_a_long_name, args=(90,)).start()
"""
DIES = """
def dies(number, frame):
    os._exit(3)
signal.signal(signal.SIGUSR2, dies)
"""
ANSWERS_LATE = """
def late(number, frame):
    threading.Event().wait(0.6)
    with open(f"{os.environ['UNGLITCHED_EVIDENCE_DIR']}/stacks-{os.getpid()}.txt", "a") as file:
        file.write("late but whole")
signal.signal(signal.SIGUSR2, late)
"""
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start Python processes with the plug-in at hand; wait until they are up; end them."""
    with ExitStack() as stack:

        def begin(*lines: str) -> subprocess.Popen[bytes]:
            env = os.environ | {"PYTHONPATH": str(PLUGIN), "UNGLITCHED_EVIDENCE_DIR": str(tmp_path)}
            body = "\n".join(("import os, re, signal, sys, threading", *lines))
            pipe = subprocess.PIPE
            argv = [sys.executable, "-c", body]
            started = subprocess.Popen(argv, env=env, stdin=pipe, stdout=pipe)
            stack.callback(started.communicate)
            stack.callback(started.kill)
            assert started.stdout is not None
            assert started.stdout.readline() == b"up\n"
            return started

        yield begin


def state(process: subprocess.Popen[bytes]) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def name(process: subprocess.Popen[bytes]) -> str:
    return f"{process.pid} {Path(f'/proc/{process.pid}/comm').read_text().strip()}"


@pytest.mark.parametrize(("body", "where"), [(WAITS, "reads_for_ever"), (SPINS, "holds_the_lock")])
async def test_each_process_tells_where_it_is(
    tmp_path: Path, start: Start, body: str, where: str
) -> None:
    first, second = start(LISTENS, body), start(LISTENS, body)
    stacks = await gather_stacks([first.pid, second.pid], tmp_path, within_s=20)
    assert list(stacks) == [name(first), name(second)]
    for text in stacks.values():
        assert text.count(f"in {where}\n") == 1
        assert "most recent call first" in text
    assert first.poll() is None


async def test_the_second_answer_is_as_whole_as_the_first(tmp_path: Path, start: Start) -> None:
    process = start(LISTENS, WAITS)
    answers = [await gather_stacks([process.pid], tmp_path, within_s=20) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert "\0" not in answers[2][name(process)]


async def test_what_was_written_before_is_not_in_the_answer(tmp_path: Path, start: Start) -> None:
    process = start(LISTENS, WAITS)
    file = tmp_path / f"stacks-{process.pid}.txt"
    process.send_signal(signal.SIGUSR2)
    wait_until(lambda: "<module>" in file.read_text(), 10, "an answer that nobody asked us for")
    stacks = await gather_stacks([process.pid], tmp_path, within_s=20)
    assert stacks[name(process)].count("in reads_for_ever\n") == 1


async def test_a_process_without_the_handler_survives(tmp_path: Path, start: Start) -> None:
    process = start(WAITS)
    (tmp_path / f"stacks-{process.pid}.txt").touch()  # of an earlier process of that number
    stacks = await gather_stacks([process.pid], tmp_path)
    text = stacks[name(process)]
    assert text.startswith("no answer: it does not listen for SIGUSR2; state ")
    assert process.poll() is None
    assert "up" not in text
    await answers_still(process)


async def test_a_handler_that_is_not_the_plug_in_s_is_left_alone(
    tmp_path: Path, start: Start
) -> None:
    process = start(DIES, WAITS)
    stacks = await gather_stacks([process.pid], tmp_path)
    assert "does not listen" in stacks[name(process)]
    await answers_still(process)


async def answers_still(process: subprocess.Popen[bytes]) -> None:
    """See that no signal is on its way: the process ends of its own will, when told to."""
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdin = None


async def test_a_stopped_process_is_told_at_once_and_goes_on_later(
    tmp_path: Path, start: Start
) -> None:
    process = start(LISTENS, WAITS)
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: state(process) == "T", 10, "the process to stop")
    begun = monotonic()
    stacks = await gather_stacks([process.pid], tmp_path, within_s=60)
    assert monotonic() - begun < 30
    assert stacks[name(process)].startswith("no answer: stopped (state T (stopped))")
    assert state(process) == "T"
    process.send_signal(signal.SIGCONT)
    stacks = await gather_stacks([process.pid], tmp_path, within_s=20)
    assert stacks[name(process)].count("in reads_for_ever\n") == 1


async def test_a_stopped_process_does_not_keep_the_others_from_telling(
    tmp_path: Path, start: Start
) -> None:
    stopped, running = start(LISTENS, WAITS), start(LISTENS, WAITS)
    stopped.send_signal(signal.SIGSTOP)
    wait_until(lambda: state(stopped) == "T", 10, "the process to stop")
    stacks = await gather_stacks([stopped.pid, running.pid], tmp_path, within_s=20)
    assert "stopped" in stacks[name(stopped)]
    assert "reads_for_ever" in stacks[name(running)]


async def test_a_process_that_is_gone_is_said_to_be_gone(tmp_path: Path, start: Start) -> None:
    process = start(LISTENS, WAITS)
    process.kill()
    process.wait()
    file = tmp_path / f"stacks-{process.pid}.txt"
    assert file.exists()
    assert await gather_stacks([process.pid], tmp_path) == {f"{process.pid} ?": "no answer: gone"}
    assert not file.exists()


async def test_a_zombie_does_not_hold_us(tmp_path: Path, start: Start) -> None:
    process = start(LISTENS, WAITS)
    process.kill()
    wait_until(lambda: state(process) == "Z", 10, "the process to be a zombie")
    begun = monotonic()
    stacks = await gather_stacks([process.pid], tmp_path, within_s=60)
    assert monotonic() - begun < 30
    assert [text.startswith("no answer: ") for text in stacks.values()] == [True]


async def test_a_process_that_dies_of_the_question_does_not_hold_us(
    tmp_path: Path, start: Start
) -> None:
    process = start(DIES, WAITS)
    (tmp_path / f"stacks-{process.pid}.txt").touch()
    begun = monotonic()
    stacks = await gather_stacks([process.pid], tmp_path, within_s=60)
    assert monotonic() - begun < 30
    assert process.wait(10) == 3
    assert [text.startswith("no answer: ") for text in stacks.values()] == [True]


async def test_a_process_that_does_not_answer_is_told_by_its_state(
    tmp_path: Path, start: Start
) -> None:
    process = start("signal.signal(signal.SIGUSR2, lambda *_: None)", WAITS)
    (tmp_path / f"stacks-{process.pid}.txt").touch()
    stacks = await gather_stacks([process.pid], tmp_path, within_s=0.2)
    assert stacks[name(process)].startswith("no answer: state ")


async def test_a_late_answer_is_waited_for(tmp_path: Path, start: Start) -> None:
    process = start(ANSWERS_LATE, WAITS)
    (tmp_path / f"stacks-{process.pid}.txt").touch()
    stacks = await gather_stacks([process.pid], tmp_path, within_s=20)
    assert stacks == {name(process): "late but whole"}


async def test_an_answer_is_bounded_and_keeps_the_main_thread(tmp_path: Path, start: Start) -> None:
    process = start(LISTENS, MANY_THREADS, WAITS)
    stacks = await gather_stacks([process.pid], tmp_path, within_s=20)
    text = stacks[name(process)]
    assert TEXT_LIMIT // 2 < len(text.encode()) <= TEXT_LIMIT
    assert text.startswith('(cut)\n  File "<string>", line ')
    assert "in reads_for_ever\n" in text


async def test_the_folder_stays_small(tmp_path: Path, start: Start) -> None:
    process = start(LISTENS, WAITS)
    other = tmp_path / "notes.txt"
    other.write_text("not ours")
    (tmp_path / "stacks-4194305.txt").write_text("of a number that no process can have")
    await gather_stacks([process.pid], tmp_path, within_s=20)
    own = tmp_path / f"stacks-{process.pid}.txt"
    assert sorted(os.listdir(tmp_path)) == sorted([other.name, own.name])
    assert own.stat().st_size == 0


async def test_a_folder_that_is_not_there_and_odd_numbers_raise_nothing(tmp_path: Path) -> None:
    stacks = await gather_stacks([4194305, 0, -1, 4194305], tmp_path / "none")
    assert stacks == {f"{pid} ?": "no answer: gone" for pid in (4194305, 0, -1)}
    assert await gather_stacks([], tmp_path / "none") == {}
