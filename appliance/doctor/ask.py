"""Asks a program, or a function, and never waits for it longer than it said."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from appliance.doctor.row import Unseen
from appliance.errors import ApplianceError

T = TypeVar("T")
ASK_S = 6.0  # a program
LOOK_S = 15.0  # a look, which may ask more than once
_KILLED_S = 1.0


@dataclass(frozen=True)
class Answer:
    """What a program printed; or, in ``why``, why that is nothing to go by."""

    text: str = ""
    why: str = ""
    is_late: bool = False


def ask(argv: Sequence[str], within_s: float = ASK_S, folder: Path | None = None) -> Answer:
    """Run a program for its answer, in ``folder``. It is killed, with its children, when late."""
    nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
    try:
        process = subprocess.Popen(
            argv, stdin=nothing, stdout=pipe, stderr=pipe, cwd=folder, start_new_session=True
        )
    except OSError as cause:
        missing = isinstance(cause, FileNotFoundError)
        why = "is not installed" if missing else f"cannot be run: {cause.strerror}"
        return Answer(why=f"{argv[0]} {why}")
    try:
        output, said = process.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        _kill(process)
        return Answer(why=f"{argv[0]} does not answer within {within_s:g} s", is_late=True)
    text = output.decode("utf-8", "replace")
    if process.returncode == 0:
        return Answer(text)
    last = said.decode("utf-8", "replace").strip() or text.strip()
    last = last.rpartition("\n")[2]
    return Answer(text, why=last or f"{argv[0]} ended with {process.returncode}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    # one that asks a hung driver does not die: do not wait for it
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_KILLED_S)
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()


class Look(Generic[T]):
    """A look at something, in a thread of its own, that nobody has to wait for.

    The thread is a daemon: one that hangs in the kernel (a dead network folder) must not keep the
    command from ending.
    """

    def __init__(self, what: str, look: Callable[[], T], within_s: float = LOOK_S) -> None:
        self._what = what
        self._within_s = within_s
        self._until = time.monotonic() + within_s
        self._future: Future[T] = Future()
        threading.Thread(target=self._run, args=(look,), name=what, daemon=True).start()

    def _run(self, look: Callable[[], T]) -> None:
        try:
            self._future.set_result(look())
        except Exception as fault:  # a doctor who dies of one look tells nothing of the others
            self._future.set_exception(fault)

    def seen(self) -> T | Unseen:
        """Return what was seen, or why nothing was. Waits until its time is over, at most."""
        try:
            fault = self._future.exception(max(0.0, self._until - time.monotonic()))
        except TimeoutError:
            return Unseen(f"no answer within {self._within_s:g} s")
        if fault is None:
            return self._future.result()
        if isinstance(fault, ApplianceError):
            return Unseen(fault.what, fault.hint)
        return Unseen(f"{self._what} could not be looked at: {type(fault).__name__}: {fault}")
