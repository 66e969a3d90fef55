"""One engine process and all that it starts: its end is learned, and nothing of it is left."""

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance import tree
from appliance.child import Child, reap_strays, spawn
from appliance.errors import SpawnFailed
from appliance.launch import SPAWN_VARIABLE
from tests.engines import wait_until
from tests.unit.test_tree import PRELUDE, TOKEN, script, subreaper, wait_gone

__all__ = ["subreaper"]  # a fixture

NOBODY = 65534  # the uid
ENV = dict(os.environ) | {SPAWN_VARIABLE: TOKEN}


class Engine:
    """A child under test, with what it said."""

    def __init__(self, source: str) -> None:
        self.lines: list[str] = []
        self._said = asyncio.Event()
        self.child: Child = spawn(script(source), ENV, self._line)

    def _line(self, line: str) -> None:
        self.lines.append(line)
        self._said.set()

    @property
    def pids(self) -> dict[str, int]:
        return {line.split()[0]: int(line.split()[1]) for line in self.lines}

    async def said(self, *names: str) -> None:
        async with asyncio.timeout(20):
            while not set(names) <= set(self.pids):
                self._said.clear()
                await self._said.wait()


@asynccontextmanager
async def engine(source: str, *names: str) -> AsyncIterator[Engine]:
    """Run an engine until all of it have said their names; sweep it at the end."""
    started = Engine(source)
    try:
        await started.said(*(names or ("leader",)))
        yield started
    finally:
        assert await started.child.sweep(20)


def own_zombies() -> set[int]:
    return {process.pid for process in tree.zombie_children()}


# ---- its end


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("sys.exit(0)", 0),
        ("sys.exit(137)", 137),
        ("os.kill(os.getpid(), 9)", -9),
        ("signal.signal(11, signal.SIG_DFL); os.kill(os.getpid(), 11)", -11),
    ],
)
async def test_the_exit_code_is_told_with_the_signal_as_a_negative(source: str, code: int) -> None:
    child = spawn(script(source), ENV, lambda _line: None)
    async with asyncio.timeout(20):
        assert await child.wait() == code
    assert await child.sweep()
    assert await child.wait() == code


async def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(SpawnFailed, match="/nowhere/vllm"):
        spawn(["/nowhere/vllm"], ENV, lambda _line: None)


async def test_the_end_is_learned_though_a_grandchild_holds_the_pipe() -> None:
    async with engine("child('a', deaf)\nsay('leader')\nos._exit(4)", "a") as one:
        async with asyncio.timeout(20):
            assert await one.child.wait() == 4
        assert one.child.tree() == {one.pids["a"]}


async def test_what_was_said_before_the_end_is_read_by_the_sweep() -> None:
    source = """
heard, tell = os.pipe()
if os.fork() == 0:
    say("a")
    os.write(tell, b".")
    hang()
os.read(heard, 1)
os.write(1, b"x 1\\n" * 5000 + b"unended 2")
os._exit(1)
"""
    async with engine(source, "a") as one:
        await one.child.wait()
    assert one.lines.count("x 1") == 5000
    assert one.lines[-1] == "unended 2"


async def test_the_number_of_a_dead_leader_is_held_until_the_sweep() -> None:
    async with engine("child('a')\nsay('leader')\nos._exit(0)", "a") as one:
        await one.child.wait()
        reap_strays()
        assert one.child.pid in own_zombies()
    assert one.child.pid not in own_zombies()
    assert tree.start_ticks(one.child.pid) is None


# ---- its tree


FAMILIES = {
    "a_child": "child('a')",
    "deaf_to_sigterm": "child('a', deaf)",
    "another_group": "child('a', own_group, deaf)",
    "an_orphan": "orphan('a', deaf)",
    "an_orphan_of_another_group": "orphan('a', own_group)",
    "an_orphan_of_another_session": "orphan('a', os.setsid, deaf)",
    "a_child_without_environment": "child('-', os.setsid, lambda: say('a'), nameless)",
    "a_stopped_one": "child('-', lambda: say('a'), lambda: os.kill(os.getpid(), 19))",
}


@pytest.mark.parametrize("leader", ["lives", "was_killed"])
@pytest.mark.parametrize("name", FAMILIES)
async def test_a_sweep_ends_all_that_was_started_and_nobody_else(
    stranger: int, name: str, leader: str
) -> None:
    async with engine(FAMILIES[name], "leader", "a") as one:
        assert one.child.tree() == set(one.pids.values())
        if leader == "was_killed":
            os.kill(one.child.pid, signal.SIGKILL)
            assert await one.child.wait() == -9
            assert one.child.tree() == {one.pids["a"]}
        assert await one.child.sweep(20)
    for pid in one.pids.values():
        wait_gone(pid)


async def test_a_chain_that_forks_and_exits_faster_than_one_can_look_is_ended() -> None:
    # it ends by itself, in case that this test is ended before it
    chain = """
import time
end = time.monotonic() + 60
if os.fork() == 0:
    say('a')
    while time.monotonic() < end:
        if os.fork(): os._exit(0)
    os._exit(0)
"""
    async with engine(chain, "a", "leader") as one:
        assert await one.child.sweep(20)
        assert tree.members(one.child.pid) == set()


async def test_a_tree_that_breeds_outside_the_group_is_ended() -> None:
    breed = """
if os.fork() == 0:
    own_group()
    say('a')
    for _ in range(3000):
        if os.fork() == 0: own_group(); hang()
        signal.sigtimedwait([], 0.01)
"""
    async with engine(breed, "a", "leader") as one:
        assert await one.child.sweep(20)
        assert tree.members(one.child.pid, TOKEN) == set()


async def test_a_child_without_any_proof_but_its_parent_goes_with_it() -> None:
    async with engine(FAMILIES["a_child_without_environment"], "leader", "a") as one:
        assert await one.child.sweep(20)  # though nobody has looked at the tree before
        wait_gone(one.pids["a"])


async def test_two_sweeps_at_once_both_end() -> None:
    async with engine("child('a', deaf)", "a", "leader") as one:
        assert all(await asyncio.gather(one.child.sweep(20), one.child.sweep(20)))


async def test_a_swept_child_touches_nobody_any_more(stranger: int) -> None:
    async with engine("") as one:
        pass
    one.child.pid = stranger  # the number went to somebody else
    assert one.child.tree() == set()
    one.child.terminate()
    one.child.signal_group(signal.SIGKILL)
    assert await one.child.sweep()
    assert one.child.usage().processes == 0


async def test_a_signal_reaches_the_whole_tree() -> None:
    source = "child('a'); orphan('b', os.setsid); child('c', own_group)"
    async with engine(source, "a", "b", "c", "leader") as one:
        one.child.signal_group(signal.SIGTERM)
        assert await one.child.wait() == -15
        for pid in one.pids.values():
            wait_gone(pid)


async def test_a_terminate_is_for_the_leader_alone() -> None:
    async with engine("child('a')", "a", "leader") as one:
        one.child.terminate()
        assert await one.child.wait() == -15
        assert one.child.tree() == {one.pids["a"]}


async def test_who_hides_for_good_is_left_and_the_pipe_is_let_go() -> None:
    source = "orphan('a', os.setsid, lambda: say('hidden'), nameless)"
    async with engine(source, "hidden", "leader") as one:
        hidden = one.pids["hidden"]
        name = Path(f"/proc/{hidden}/comm")
        wait_until(lambda: name.read_text() == "sleep\n", 10, "its environment to be gone")
        assert await one.child.sweep(20)
        os.kill(hidden, signal.SIGKILL)  # it lived, and held the pipe
        wait_gone(hidden)


async def test_the_usage_is_that_of_the_whole_tree() -> None:
    async with engine("child('a'); orphan('b', os.setsid)", "a", "b", "leader") as one:
        used = one.child.usage()
        assert used.processes == 3
        assert used.io_bytes > 0


# ---- what cannot be done is told


async def test_a_tree_that_cannot_be_seen_is_not_called_gone() -> None:
    async with engine("child('a', own_group)", "a", "leader") as one:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))  # as when clients hold them all
        try:
            assert not await one.child.sweep(0.2)
            async with asyncio.timeout(20):
                assert await one.child.wait() == -9  # the group is killed blindly
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert one.pids["a"] in one.child.tree()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody without the right")
async def test_survivors_of_a_sweep_are_told() -> None:
    async with engine("child('a')", "a", "leader") as one:
        os.setresuid(NOBODY, NOBODY, 0)
        try:
            assert not await one.child.sweep(0.2)
        finally:
            os.setresuid(0, 0, 0)
        assert one.child.tree() == set(one.pids.values())


# ---- the dead that nobody waits for


async def test_a_sweep_reaps_the_orphans_that_became_ours(subreaper: None) -> None:
    source = "orphan('a'); orphan('b', os.setsid); child('c')"
    async with engine(source, "a", "b", "c", "leader") as one:
        assert await one.child.sweep(20)
        assert own_zombies() & set(one.pids.values()) == set()
        assert all(tree.start_ticks(pid) is None for pid in one.pids.values())


async def test_an_orphan_that_dies_while_the_engine_lives_is_reaped(subreaper: None) -> None:
    async with engine("orphan('a')", "a", "leader") as one:
        os.kill(one.pids["a"], signal.SIGKILL)
        wait_gone(one.pids["a"])
        assert reap_strays() == 1
        assert tree.start_ticks(one.pids["a"]) is None
        assert one.child.tree() == {one.child.pid}


@pytest.mark.parametrize("own_session", [False, True])
async def test_a_child_that_somebody_waits_for_keeps_its_exit_code(
    subreaper: None, own_session: bool
) -> None:
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    with subprocess.Popen(command, start_new_session=own_session) as helper:  # noqa: ASYNC220
        wait_gone(helper.pid)
        # as PID 1 a session that is not named as owned counts as a stranger's
        owned = {helper.pid} if os.getpid() == 1 else set()
        async with engine("orphan('a')", "a", "leader"):
            reap_strays(owned)
        reap_strays(owned)
        assert helper.wait(10) == 3


async def test_the_sweep_of_one_child_leaves_the_end_of_another() -> None:
    async with engine("child('a')\nos._exit(5)", "a") as other:
        wait_gone(other.child.pid)
        async with engine("child('a')", "a", "leader"):
            pass
        assert await other.child.wait() == 5


async def test_helpers_keep_their_codes_while_strays_are_reaped_without_pause(
    subreaper: None,
) -> None:
    def helpers() -> set[int]:
        return {
            subprocess.run(
                [sys.executable, "-S", "-c", "raise SystemExit(7)"], check=False
            ).returncode
            for _ in range(15)
        }

    source = "for _ in range(15): orphan('a', ended)"
    async with engine(source) as one:
        done = asyncio.create_task(asyncio.to_thread(helpers))
        while not done.done():
            reap_strays({one.child.pid})
            await asyncio.sleep(0)
        assert await done == {7}


AS_PID_1 = """
import asyncio
from appliance.child import reap_strays, spawn
from appliance.tree import zombie_children
assert os.getpid() == 1
if os.getsid(0) != 1:
    os.setsid()
async def main():
    orphan('stray', os.setsid, ended)
    owned = os.fork()
    if owned == 0:
        os.setsid()
        os._exit(3)
    child = spawn([sys.executable, "-S", "-c", "raise SystemExit(4)"], {}, print)
    while len(zombie_children()) < 3:
        pass
    assert reap_strays({owned}) == 1
    assert reap_strays({owned}) == 0
    assert os.waitstatus_to_exitcode(os.waitpid(owned, 0)[1]) == 3
    assert await child.wait() == 4
    assert await child.sweep()
    assert zombie_children() == []
asyncio.run(main())
"""


def test_pid_1_reaps_the_leaders_of_sessions_that_it_did_not_start() -> None:
    unshare = shutil.which("unshare")
    alone = [unshare or "unshare", "--pid", "--fork", "--mount-proc"]
    if not unshare or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right to make a PID namespace")
    # when unshare is killed, by a timeout say, its PID 1 goes too, and all below
    command = [*alone, "--kill-child", sys.executable, "-c", PRELUDE + AS_PID_1]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
