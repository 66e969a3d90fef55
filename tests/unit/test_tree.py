"""Who belongs to a tree, what it used, how it is signalled: shown on small real families."""

import ctypes
import os
import platform
import secrets
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import launch, tree
from appliance.tree import Process, TreeUsage, is_working
from tests.engines import wait_until

TOKEN = secrets.token_hex(8)  # of this run alone: others may be testing beside us

# What the scripts of the families below may say. Each process tells its name once it is settled.
PRELUDE = """
import ctypes, os, signal, sys, threading
def say(name):
    os.write(1, f"{name} {os.getpid()}\\n".encode())
def hang():
    while True:
        signal.pause()
def child(name, *acts):
    pid = os.fork()
    if pid == 0:
        for act in acts:
            act()
        say(name)
        hang()
    return pid
def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
def ended():
    os._exit(0)
def own_group():
    os.setpgid(0, 0)
def nameless():
    # as setproctitle does: the environment can no more be read, whatever it held
    os.execve("/bin/sleep", ["sleep", "600"], {"UNGLITCHED_TEST_RUN": os.environ["UNGLITCHED_TEST_RUN"]})
def orphan(name, *acts):
    # the middle one ends and is waited for: the last one has lost its parent
    pid = os.fork()
    if pid == 0:
        child(name, *acts)
        os._exit(0)
    os.waitpid(pid, 0)
"""  # noqa: E501


def script(source: str) -> list[str]:
    """Return the command of a family: ``source`` is its leader, which says ``leader`` and hangs."""
    return [sys.executable, "-c", f"{PRELUDE}\n{source}\nsay('leader')\nhang()"]


@dataclass
class Family:
    """A leader of a session and what it started, by name."""

    process: subprocess.Popen[bytes]
    pids: dict[str, int]

    @property
    def pid(self) -> int:
        return self.process.pid

    def end(self) -> None:
        """Kill all whose names are known, and wait for the leader."""
        for pid in {self.pid, *self.pids.values()}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.wait(10)


class Families:
    """Starts families."""

    def __init__(self) -> None:
        self.started: list[Family] = []

    def __call__(self, source: str, *names: str, token: str = "") -> Family:
        env = dict(os.environ) | ({launch.SPAWN_VARIABLE: token} if token else {})
        process = subprocess.Popen(
            script(source), env=env, stdout=subprocess.PIPE, start_new_session=True
        )
        family = Family(process, {})
        self.started.append(family)
        assert process.stdout is not None
        while not {"leader", *names} <= set(family.pids):
            line = process.stdout.readline()
            assert line, f"the family ended early: {family.pids}"
            name, pid = line.decode().split()
            family.pids[name] = int(pid)
        return family


@pytest.fixture
def family() -> Iterator[Families]:
    """Start families, and leave none behind."""
    families = Families()
    yield families
    for one in families.started:
        one.end()


@pytest.fixture
def subreaper() -> Iterator[None]:
    """Make orphans ours for one test."""
    assert tree.become_subreaper()
    yield
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)


def wait_gone(pid: int) -> None:
    """Wait until a process is a zombie or less."""

    def is_gone() -> bool:
        process = tree.read_process(pid)
        return process is None or not process.is_alive

    wait_until(is_gone, 10, f"the end of {pid}")


# ---- who belongs


def test_a_session_holds_children_orphans_and_those_who_left_the_group(family: Families) -> None:
    engine = family("child('a'); child('b', own_group); orphan('c')", "a", "b", "c")
    assert tree.members(engine.pid) == set(engine.pids.values())


def test_members_outlive_the_leader_of_their_session(family: Families) -> None:
    engine = family("child('a'); orphan('b')", "a", "b")
    engine.process.kill()
    engine.process.wait(10)
    assert tree.members(engine.pid) == {engine.pids["a"], engine.pids["b"]}


def test_an_ended_leader_that_nobody_waited_for_is_no_member(family: Families) -> None:
    engine = family("child('a')", "a")
    engine.process.kill()
    wait_gone(engine.pid)
    assert tree.members(engine.pid) == {engine.pids["a"]}


def test_an_orphan_with_a_session_of_its_own_is_found_by_the_token_alone(
    family: Families,
) -> None:
    engine = family("orphan('a', os.setsid)", "a", token=TOKEN)
    assert engine.pids["a"] not in tree.members(engine.pid)
    assert tree.members(engine.pid, TOKEN) == set(engine.pids.values())
    assert tree.members(0, TOKEN) == set(engine.pids.values())


@pytest.mark.parametrize(
    "token", [TOKEN[:-1], TOKEN + "0", ""], ids=["a_part", "with_more", "none"]
)
def test_a_token_marks_only_as_a_whole(family: Families, token: str) -> None:
    family("orphan('a', os.setsid)", "a", token=TOKEN)
    assert tree.members(0, token) == set()


def test_a_child_that_left_the_session_and_hides_its_environment_is_found_by_its_parent(
    family: Families,
) -> None:
    engine = family("child('a', os.setsid, lambda: say('b'), nameless)", "b", token=TOKEN)
    hidden = engine.pids["b"]
    assert hidden in tree.members(engine.pid)
    assert hidden in tree.members(engine.pid, TOKEN)


def test_a_blanked_environment_does_not_hide_a_member_of_the_session(family: Families) -> None:
    engine = family("orphan('a', lambda: say('b'), nameless)", "b", token=TOKEN)
    assert engine.pids["b"] in tree.members(engine.pid, TOKEN)


def test_a_process_whose_first_thread_ended_lives_on(family: Families) -> None:
    number = {"x86_64": 60, "aarch64": 93}[platform.machine()]  # exit, of the one thread
    engine = family(
        f"""
def lead():
    while tree_state() != "Z":
        pass
    say("headless")
    hang_thread.wait()
def tree_state():
    return open("/proc/self/stat").read().rpartition(")")[2].split()[0]
hang_thread = threading.Event()
say("leader")
threading.Thread(target=lead).start()
ctypes.CDLL(None).syscall({number}, 0)
""",
        "headless",
    )
    process = tree.read_process(engine.pid)
    assert process is not None
    assert (process.state, process.is_alive) == ("Z", True)
    assert tree.members(engine.pid) == {engine.pid}


def test_who_was_found_once_stays_known_though_all_proof_is_gone(family: Families) -> None:
    engine = family("child('a', os.setsid, lambda: say('b'), nameless)", "b")
    found = tree.find(engine.pid).values()
    known = {(p.pid, p.start_ticks) for p in found}
    engine.process.kill()
    engine.process.wait(10)
    assert tree.members(engine.pid) == set()
    assert set(tree.find(engine.pid, known=known)) == {engine.pids["b"]}
    assert tree.find(engine.pid, known={(pid, ticks - 1) for pid, ticks in known}) == {}


def test_nobody_is_a_member_of_no_session(family: Families) -> None:
    family("")
    assert tree.members(0) == tree.members(-1) == set()


def test_we_are_never_a_member() -> None:
    assert os.getpid() not in tree.members(os.getsid(0))


# ---- one process


def test_a_name_that_looks_like_the_rest_of_the_line_is_only_a_name(family: Families) -> None:
    engine = family("open('/proc/self/comm', 'w').write(') Z 1 (x')")
    process = tree.read_process(engine.pid)
    assert process is not None
    assert (process.parent, process.session) == (os.getpid(), engine.pid)
    assert process.is_alive


def test_the_start_of_a_process_stays_the_same_until_it_is_waited_for(family: Families) -> None:
    engine = family("")
    started = tree.start_ticks(engine.pid)
    assert started is not None
    assert started >= (tree.start_ticks(os.getpid()) or 0) > 0
    engine.process.kill()
    wait_gone(engine.pid)
    assert tree.start_ticks(engine.pid) == started
    engine.process.wait(10)
    assert tree.start_ticks(engine.pid) is None


@pytest.mark.parametrize("pid", [0, -1])
def test_what_is_no_pid_never_started(pid: int) -> None:
    assert tree.start_ticks(pid) is None


def test_the_boot_has_one_id() -> None:
    assert tree.boot_id() == str(uuid.UUID(tree.boot_id()))


# ---- what was used


def test_the_cpu_time_of_a_finished_child_counts_once_it_was_waited_for(family: Families) -> None:
    engine = family("""
if (pid := os.fork()) == 0:
    while sum(os.times()[:2]) < 0.3:
        pass
    os._exit(0)
os.waitpid(pid, 0)
""")
    used = tree.usage([engine.pid])
    assert used.processes == 1
    assert used.cpu_s >= 0.28  # the kernel counts in ticks


def test_bytes_count_though_the_page_cache_has_them_and_the_child_that_read_is_gone(
    family: Families,
) -> None:
    engine = family("""
if (pid := os.fork()) == 0:
    with open("/dev/zero", "rb") as source:
        source.read(3_000_000)
    os._exit(0)
os.waitpid(pid, 0)
""")
    assert tree.usage([engine.pid]).io_bytes >= 3_000_000


def test_the_usage_of_the_gone_is_nothing(family: Families) -> None:
    engine = family("")
    engine.end()
    assert tree.usage([engine.pid]) == tree.usage([]) == TreeUsage(0, 0, 0)


def test_a_sleeping_tree_does_not_work_and_a_silent_burner_does(family: Families) -> None:
    sleeper = family("child('a')", "a")
    burner = family("if os.fork() == 0:\n  say('a')\n  while True: pass", "a")
    asleep, awake = (tree.usage(tree.members(one.pid)) for one in (sleeper, burner))

    def used() -> TreeUsage:
        return tree.usage(tree.members(burner.pid))

    # seconds of CPU, not of the clock: a loaded machine decides nothing here
    wait_until(lambda: used().cpu_s - awake.cpu_s > 0.1, 30, "a tenth of a second of CPU")
    assert is_working(awake, used(), 1.0)
    assert not is_working(asleep, tree.usage(tree.members(sleeper.pid)), 1.0)


@pytest.mark.parametrize(
    ("cpu_s", "io_bytes", "seconds", "working"),
    [
        (0.0, 0, 10.0, False),
        (0.4, 0, 10.0, False),  # 4 %: polling
        (0.6, 0, 10.0, True),
        (0.0, 1_000_000, 10.0, False),
        (0.0, 1_048_576, 10.0, True),
        (9.0, 9_000_000, 0.0, False),  # no time has passed: nothing can be said
        (-5.0, -100, 10.0, False),  # a process went, with what it had used
    ],
)
def test_progress_is_five_percent_of_a_core_or_a_mebibyte(
    cpu_s: float, io_bytes: int, seconds: float, working: bool
) -> None:
    before = TreeUsage(2, 100.0, 10_000_000)
    after = TreeUsage(2, 100.0 + cpu_s, 10_000_000 + io_bytes)
    assert is_working(before, after, seconds) is working


seconds = st.floats(0.1, 1e4)
usages = st.builds(TreeUsage, st.integers(0, 50), st.floats(0, 1e6), st.integers(0, 10**14))


@given(usages, usages, seconds, st.floats(0, 1e4), st.integers(0, 10**9))
def test_who_works_still_works_with_more_use_or_in_less_time(
    before: TreeUsage, after: TreeUsage, length: float, cpu_s: float, io_bytes: int
) -> None:
    if is_working(before, after, length):
        more = replace(after, cpu_s=after.cpu_s + cpu_s, io_bytes=after.io_bytes + io_bytes)
        assert is_working(before, more, length)
        assert is_working(before, after, length / 2)


@given(usages, seconds)
def test_no_change_is_no_work(before: TreeUsage, length: float) -> None:
    assert not is_working(before, before, length)


# ---- signals and orphans


def test_only_the_very_process_that_was_seen_is_signalled(family: Families) -> None:
    engine = family("child('a')", "a")
    a = tree.read_process(engine.pids["a"])
    leader = tree.read_process(engine.pid)
    assert a is not None
    assert leader is not None
    stale = replace(leader, start_ticks=leader.start_ticks - 1)  # its pid was used again
    tree.signal_all([stale, a], signal.SIGKILL)
    wait_gone(a.pid)
    assert tree.members(engine.pid) == {engine.pid}


def test_a_signal_to_the_gone_is_no_error(family: Families) -> None:
    engine = family("")
    process = tree.read_process(engine.pid)
    assert process is not None
    engine.end()
    tree.signal_all([process], signal.SIGKILL)


def test_an_orphan_of_a_subreaper_becomes_its_child(family: Families, subreaper: None) -> None:
    engine = family("orphan('a')", "a")
    orphan = tree.read_process(engine.pids["a"])
    assert orphan is not None
    assert orphan.parent == os.getpid()
    os.kill(orphan.pid, signal.SIGKILL)
    assert os.waitpid(orphan.pid, 0) == (orphan.pid, signal.SIGKILL)


def test_a_dead_child_is_shown_and_not_reaped() -> None:
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as process:
        wait_gone(process.pid)
        shown: list[Process] = tree.zombie_children()
        assert process.pid in {one.pid for one in shown}
        assert process.wait(10) == 3
    assert process.pid not in {one.pid for one in tree.zombie_children()}
