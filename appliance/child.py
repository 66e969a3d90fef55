"""One engine process with all that it starts: start it, read it, signal it, know its end.

The exit is learned from a pidfd, not from the pipe: a grandchild may hold the pipe open long
after the process itself is gone.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Final

from appliance import segments, tree
from appliance.errors import SpawnFailed
from appliance.launch import SPAWN_VARIABLE
from appliance.restart import Reason
from appliance.tree import Process, TreeUsage

LINE_LIMIT = 16 * 1024  # bytes kept of one line; a longer one is cut
SWEEP_EVERY_S: Final = 0.05
REAP_EVERY_S: Final = 5.0

# The leaders that a Child here has yet to wait for: nobody else may.
_leaders: set[int] = set()


class Child:
    """A running engine, the leader of its session, and its tree. Made by ``spawn``.

    Each child must be swept. Until then the leader that ended stays a zombie: so its number, which
    is that of its group and session too, cannot become a stranger's while we signal by it.
    ``why`` is why it ended, where somebody knows more than its exit tells.
    """

    why: Reason | None = None

    def __init__(
        self, process: subprocess.Popen[bytes], on_line: Callable[[str], None], token: str = ""
    ) -> None:
        self._process = process
        self.pid = process.pid
        self._token = token
        self._is_gone = False
        self._holds_number = True
        self._number = threading.Lock()  # held while signalling by it, and while letting go of it
        # Members seen outside the session, as (pid, start): the proof may go with their parent.
        self._runaways: set[tuple[int, int]] = set()
        self._segments: set[int] = set()  # inodes
        self._exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pidfd = os.pidfd_open(self.pid)
        self._lines = _LineReader(process, on_line)
        _leaders.add(self.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._learn_exit)

    def _learn_exit(self) -> bool:
        """Tell whether the leader has ended, and how, to those who wait; keep its zombie."""
        if self._exited.done():
            return True
        try:
            end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:  # SIGCHLD was ignored when we were started: there is no zombie
            self._holds_number = False
            code = self._process.wait()
        else:
            if end is None:
                return False
            code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._exited.set_result(code)
        return True

    async def wait(self) -> int:
        """Return the exit code (negative: the signal), once the leader is gone."""
        return int(await asyncio.shield(self._exited))

    def terminate(self) -> None:
        """Ask the leader alone to end: it tells its own workers, and its clients, in order."""
        if not self._is_gone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def tree(self) -> set[int]:
        """Return all living processes of the engine, wherever they went; empty once swept.

        Raises OSError when /proc cannot be read (no file descriptor left).
        """
        return set(self._find())

    def note_segments(self) -> None:
        """Remember the shared memory that the tree maps now: once it is dead, nothing tells."""
        self._segments |= segments.mapped(self._find())

    def usage(self) -> TreeUsage:
        """Return what the living tree has used: two of these tell ``tree.is_working``."""
        return tree.usage(self._find())

    def signal_group(self, number: signal.Signals) -> None:
        """Signal every process of the tree that is still there."""
        tree.signal_all(self._find().values(), number)

    def kill_group(self) -> None:
        """Kill the leader's group, which the kernel does at one stroke; from any thread.

        A process that forks and exits faster than one can look escapes any list of pids.
        """
        with self._number:
            if self._holds_number and not self._is_gone:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)

    async def sweep(self, timeout_s: float = 10.0) -> bool:
        """Kill the tree and wait for it to go; True once nothing is left. May be called again.

        vLLM's EngineCore and Worker outlive a killed API server by more than a minute.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not self._is_gone:
            if self._kill():
                self._bury()
            elif loop.time() > deadline:
                return False
            else:
                await asyncio.sleep(SWEEP_EVERY_S)
        return True

    def _find(self) -> dict[int, Process]:
        if self._is_gone:  # the number may be a stranger's by now
            return {}
        found = tree.find(self.pid, self._token, self._runaways)
        self._runaways |= {(p.pid, p.start_ticks) for p in found.values() if p.session != self.pid}
        return found

    def _kill(self) -> bool:
        """Kill what is there; True when two looks in a row saw nobody.

        Two looks, as a fork may fall between the reading of /proc's names and that of its files.
        """
        try:
            try:
                found = self._find()  # before the parents go, who are the proof of some
                self._segments |= segments.mapped(found)
            finally:
                self.kill_group()
            tree.signal_all(found.values(), signal.SIGKILL)
            self._reap()
            return not found and not self._find() and self._learn_exit()
        except OSError:  # no descriptor is left to read /proc with: not seen is not gone
            return False

    def _bury(self) -> None:
        """Let go of the number, the pipe and the segments: nothing of the tree is left."""
        with self._number:
            self._is_gone = True
            self._process.wait()
        _leaders.discard(self.pid)
        self._lines.close()
        segments.remove(self._segments)

    def _reap(self) -> None:
        """Reap the tree's dead that became our children when their own parent ended."""
        for dead in tree.zombie_children():
            is_ours = dead.session == self.pid or (dead.pid, dead.start_ticks) in self._runaways
            if is_ours and dead.pid not in _leaders:
                _wait_for(dead.pid)


def reap_strays(owned: Set[int] = frozenset()) -> int:
    """Reap the dead that were given to us as orphans; return how many. For each SIGCHLD.

    As PID 1 or subreaper we get children that we never started, and nobody else waits for them.
    A child that some Popen here waits for must be left alone: it would lose its exit code. What
    we fork is in our session, or, after setsid, in one named by its own pid. So a dead child
    whose session is neither is a stray. One that leads a session is a stray only where we are
    PID 1, and unless it is a Child's leader or in ``owned``: so in the appliance nothing but
    ``spawn`` may start a session, and helper commands stay in ours. A stray of our own session
    cannot be told from a helper, and is left.

    Call it on the loop's thread, where ``spawn`` runs: between fork and note is no gap then.
    """
    ours = os.getsid(0)
    strays = [
        dead.pid
        for dead in tree.zombie_children()
        if dead.session != ours
        and (dead.session != dead.pid or os.getpid() == 1)
        and dead.pid not in _leaders
        and dead.pid not in owned
    ]
    return sum(map(_wait_for, strays))


async def keep_reaping() -> None:
    """Reap strays again and again, until cancelled: as PID 1 or subreaper they are given to us."""
    while True:
        await asyncio.sleep(REAP_EVERY_S)
        with contextlib.suppress(OSError):  # no descriptor is free to look with: the next time
            reap_strays()


def _wait_for(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return False


class _LineReader:
    """Hands each line of the child's output to ``on_line``; carriage returns end lines too."""

    def __init__(self, process: subprocess.Popen[bytes], on_line: Callable[[str], None]) -> None:
        assert process.stdout is not None  # noqa: S101 - spawn always asks for the pipe
        self._pipe = process.stdout
        self._fd = self._pipe.fileno()
        self._on_line = on_line
        self._rest = b""
        os.set_blocking(self._fd, False)
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        # progress bars rewrite their line with \r: each state is a line to us
        *lines, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._emit(line)
        if len(self._rest) > LINE_LIMIT:
            self._emit(self._rest)
            self._rest = b""

    def _emit(self, line: bytes) -> None:
        text = line[:LINE_LIMIT].decode("utf-8", "replace")
        if text.strip():
            self._on_line(text)

    def close(self) -> None:
        """Read what has come, then let go of the pipe; safe to call twice."""
        if self._pipe.closed:
            return
        with contextlib.suppress(BlockingIOError, OSError):
            while data := os.read(self._fd, 65536):
                self._rest += data
        for line in self._rest.replace(b"\r", b"\n").split(b"\n"):
            self._emit(line)
        self._rest = b""
        asyncio.get_running_loop().remove_reader(self._fd)
        self._pipe.close()


def spawn(argv: Sequence[str], env: Mapping[str, str], on_line: Callable[[str], None]) -> Child:
    """Start ``argv`` as the leader of its own session and process group.

    What it starts is found by ``UNGLITCHED_SPAWN`` of ``env`` too, where that is set.

    Raises SpawnFailed naming the program when it cannot be executed.
    """
    return Child(open_process(argv, env), on_line, env.get(SPAWN_VARIABLE, ""))


def open_process(argv: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start ``argv`` for a Child: in a session of its own, with one pipe for all that it says.

    Raises SpawnFailed naming the program when it cannot be executed.
    """
    try:
        return subprocess.Popen(
            argv,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            bufsize=0,
        )
    except OSError as cause:
        raise SpawnFailed(
            f"{argv[0]} cannot be started: {cause.strerror}",
            "install vLLM, or point APPLIANCE_ENGINE_COMMAND at it; make demo brings its own",
            code="engine_missing",
        ) from cause
