"""One engine process with its whole process group: start it, read it, signal it, know its end.

The exit is learned from a pidfd, not from the pipe: a grandchild may hold the pipe open long
after the process itself is gone.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from appliance.errors import SpawnFailed

LINE_LIMIT = 16 * 1024  # bytes kept of one line; a longer one is cut


class Child:
    """A running engine. Made by ``spawn``."""

    def __init__(self, process: subprocess.Popen[bytes], on_line: Callable[[str], None]) -> None:
        self._process = process
        self.pid = process.pid
        self._exited = asyncio.get_running_loop().create_future()
        self._pidfd = os.pidfd_open(self.pid)
        self._lines = _LineReader(process, on_line)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        if not self._exited.done():
            self._exited.set_result(self._process.wait())

    async def wait(self) -> int:
        """Return the exit code (negative: the signal), once the process is gone."""
        return int(await asyncio.shield(self._exited))

    def terminate(self) -> None:
        """Ask the leader alone to end: it tells its own workers, and its clients, in order."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def signal_group(self, number: signal.Signals) -> None:
        """Signal every process of the group that is still there."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def group_is_alive(self) -> bool:
        """Tell whether any process of the group, zombies excepted, is left."""
        return any(_is_member(self.pid, entry) for entry in Path("/proc").iterdir())

    async def sweep(self, timeout_s: float = 10.0) -> bool:
        """Kill what is left of the group and wait for it to go; True once nothing is left.

        vLLM's EngineCore and Worker outlive a killed API server by more than a minute.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self.group_is_alive():
            self.signal_group(signal.SIGKILL)
            if loop.time() > deadline:
                return False
            await asyncio.sleep(0.05)
        self._lines.close()
        return True


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

    Raises SpawnFailed naming the program when it cannot be executed.
    """
    try:
        process = subprocess.Popen(
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
    return Child(process, on_line)


def _is_member(group: int, entry: Path) -> bool:
    if not entry.name.isdigit():
        return False
    try:
        stat = (entry / "stat").read_text()
    except OSError:
        return False
    # after the command's closing bracket: state, parent, process group
    state, _parent, pgrp = stat.rpartition(")")[2].split()[:3]
    return int(pgrp) == group and state not in ("Z", "X")
