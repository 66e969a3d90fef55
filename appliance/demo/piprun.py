"""Run pip (or any quiet child) and tell how far it is; parse what it prints."""

import os
import re
import selectors
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final, TextIO

Say = Callable[[str], None]

TICK_S: Final = 1.0  # a status on a terminal is never older than this
LINE_S: Final = 5.0  # elsewhere it is a line, so less often
TERM_S: Final = 5.0  # what a child that must end gets to clean up
STEP_DEADLINE_S: Final = 2 * 3600  # 600 MB over a slow line; pip itself gives up on silence
TAIL_LINES: Final = 8

# Settings of the user's own pip that would send the packages elsewhere, or refuse the lock.
# Indexes, find-links, proxies and certificates are the user's to choose, and stay.
_DROPPED: Final = re.compile(
    "PYTHONPATH|PYTHONHOME|PIP_(TARGET|PREFIX|ROOT|CONSTRAINT|REQUIREMENT|UPGRADE|DRY_RUN|EDITABLE"
    "|NO_BINARY|ONLY_BINARY|IGNORE_INSTALLED|FORCE_REINSTALL|PYTHON|VERBOSE|QUIET|LOG)"
)

_HINTS: Final = (
    ("No space left on device", "the disk is full: free some space"),
    ("DO NOT MATCH THE HASHES", "a mirror or proxy serves other files than the lock names: "
     "ask who runs it, or use another index"),
    ("No matching distribution found", "no index that pip asked has this version: check "
     "`pip config list` and the network"),
    ("Connection", "the package index was not reached: check the network, and HTTPS_PROXY"),
    ("timed out", "the package index was not reached: check the network, and HTTPS_PROXY"),
    ("SSL", "the package index's certificate was refused: set PIP_CERT to your proxy's"),
)  # fmt: skip


@dataclass(frozen=True)
class Progress:
    """How far a pip is. ``done`` counts of ``total`` packages; ``item`` is the current one."""

    label: str
    total: int
    done: int = 0
    item: str = ""
    installing: bool = False

    def after(self, line: str) -> "Progress":
        """Return the progress once pip has printed ``line``."""
        if found := re.match(r"(?:Collecting|Requirement already satisfied:) ([^\s=(]+)", line):
            return replace(self, done=min(self.done + 1, self.total), item=found[1])
        if found := re.match(r"Processing (\S+\.whl)", line):  # it lies in a folder
            return replace(self, done=min(self.done + 1, self.total), item=_wheel_name(found[1]))
        if found := re.match(r"\s+(?:Downloading|Using cached) (\S+) \(([^)]+)\)", line):
            return replace(self, item=f"{_wheel_name(found[1])}, {found[2]}")
        if line.startswith("Installing collected packages"):
            return replace(self, installing=True, item="")
        return self

    def text(self, elapsed_s: float, present: int) -> str:
        """Return the status for people; ``present`` counts the packages that are in place."""
        if self.total == 0:
            return f"{self.label}, {elapsed_s:.0f} s"
        if self.installing:
            return f"{self.label}: installed {present} of {self.total}, {elapsed_s:.0f} s"
        item = f" ({self.item})" if self.item else ""
        return f"{self.label}: fetching {self.done} of {self.total}{item}, {elapsed_s:.0f} s"


def _wheel_name(place: str) -> str:
    return place.rpartition("/")[2].partition("-")[0]


@dataclass(frozen=True)
class Outcome:
    """How a child ended: its exit code (negative: the signal) and its last lines."""

    code: int
    tail: tuple[str, ...]

    @property
    def not_found(self) -> bool:
        """Whether pip says that no index it asked has the package."""
        return any("No matching distribution found" in line for line in self.tail)


class Teller:
    """Passes a status on as often as its reader can use it.

    ``tick`` gets it every second, for a terminal's one changing line. Without a ``tick``, ``say``
    gets it as a line every five seconds.
    """

    def __init__(self, say: Say, tick: Say | None = None) -> None:
        self.say = say
        self._tick = tick
        self._next_s = 0.0

    def begin(self, now_s: float) -> None:
        """Count from here: what is over within one interval is not worth a status."""
        self._next_s = now_s + (TICK_S if self._tick else LINE_S)

    def due(self, now_s: float) -> bool:
        """Tell whether it is time for a status."""
        return now_s >= self._next_s

    def status(self, now_s: float, text: str) -> None:
        """Tell the status, and count from here."""
        (self._tick or self.say)(text)
        self.begin(now_s)


class Console:
    """Lines for people on a stream; on a terminal also one status line that changes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._tty = stream.isatty()
        self._status = False

    @property
    def tick(self) -> Say | None:
        """What shows a status; None where the stream is no terminal."""
        return self._show if self._tty else None

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._stream.write(f"{self._clear()}{text}\n")
        self._stream.flush()

    def _show(self, text: str) -> None:
        columns = os.get_terminal_size(self._stream.fileno()).columns or 80  # 0: it does not know
        self._stream.write(f"{self._clear()}{text[: columns - 1]}")
        self._stream.flush()
        self._status = True

    def _clear(self) -> str:
        status, self._status = self._status, False
        return "\r\x1b[K" if status else ""


def pip_environment(environ: Mapping[str, str], temporary: Path) -> dict[str, str]:
    """Return the environment for pip: the user's, less what would misplace the packages.

    Downloads go through ``temporary``, so the disk that was checked is the disk that is used.
    """
    kept = {name: value for name, value in environ.items() if not _DROPPED.fullmatch(name)}
    return kept | {
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_PROGRESS_BAR": "off",
        "PIP_REQUIRE_HASHES": "0",  # the lock asks for them itself; torch has none to give
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_USER": "0",
        "PYTHONNOUSERSITE": "1",
        "TMPDIR": str(temporary),
    }


def hint_for(tail: Iterable[str]) -> str:
    """Return what to check, by pip's last lines; empty when they say nothing that we know."""
    text = "\n".join(tail)
    return next((hint for needle, hint in _HINTS if needle in text), "")


def run(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    log: Path,
    progress: Progress,
    present: Callable[[], int],
    teller: Teller,
    keep_open: tuple[int, ...] = (),
    deadline_s: float = STEP_DEADLINE_S,
) -> Outcome:
    """Run a child to its end, append all it prints to ``log``, and tell how far it is.

    ``keep_open`` are descriptors that the child shares: a lock lives as long as the last of them,
    so an orphaned child still holds it. The child is ended when this is interrupted, and at the
    deadline (``code`` is then negative).
    """
    start_s = time.monotonic()
    teller.begin(start_s)
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with log.open("ab") as record:
        record.write(f"$ {' '.join(argv)}\n".encode())
        child = subprocess.Popen(
            argv,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=keep_open,
            bufsize=0,
        )
        try:
            for line in _lines(child, start_s + deadline_s):
                if line:
                    record.write(f"{line}\n".encode())
                    record.flush()
                    progress = progress.after(line)
                    if line.strip():
                        tail.append(line.strip())
                if teller.due(now_s := time.monotonic()):
                    teller.status(now_s, progress.text(now_s - start_s, present()))
            if time.monotonic() >= start_s + deadline_s:
                tail.append(f"stopped: it had not ended after {deadline_s:.0f} s")
            else:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(TERM_S)  # its output has ended, so it is about to
        finally:
            _end(child)
    return Outcome(child.returncode, tuple(tail))


def _lines(child: subprocess.Popen[bytes], deadline_s: float) -> Iterable[str]:
    """Yield the child's lines, and "" whenever half a tick has passed without one."""
    stream = child.stdout
    assert stream is not None  # noqa: S101  (it was opened as a pipe)
    with stream, selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        rest = b""
        while time.monotonic() < deadline_s:
            if not selector.select(TICK_S / 2):
                if child.poll() is not None:
                    break  # a grandchild may hold the pipe: its lines are not ours to wait for
                yield ""
                continue
            chunk = _read(stream)
            if not chunk:
                break
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace").rstrip("\r") or " "
        if rest:
            yield rest.decode(errors="replace")


def _read(stream: IO[bytes]) -> bytes:
    return os.read(stream.fileno(), 65536)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Make sure that a child has ended."""
    if child.poll() is not None:
        return
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(TERM_S)
        return
    child.kill()
    child.wait()
