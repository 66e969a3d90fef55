"""What the engine's processes are doing, asked of them before they are killed.

The plug-in in every engine process appends its Python stacks to ``stacks-PID.txt`` on SIGUSR2.
A process that cannot answer is told by what the kernel says of it.
"""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TEXT_LIMIT = 64 * 1024  # bytes kept of one process's stacks
_ASK = signal.SIGUSR2
_CUT = b"(cut)\n"
_POLL_S = 0.05
_SETTLED_POLLS = 3  # a file this often of the same size has stopped growing
_KERNEL_LIMIT = 4096
_FILE = re.compile(r"stacks-(\d+)\.txt")


async def gather_stacks(pids: Iterable[int], folder: Path, within_s: float = 3.0) -> dict[str, str]:
    """Return ``{"PID name": stacks}``, or why there are none, for each process.

    ``folder`` is the one the plug-in was given. Its files are emptied, and those of processes
    that are gone are removed. Never raises for a process that is gone, and never harms one that
    does not listen: SIGUSR2 would end it.
    """
    asked = [_ask(pid, folder) for pid in dict.fromkeys(pids)]
    try:
        await _settle([one for one in asked if not one.refusal], within_s)
        return {f"{one.pid} {one.name}": _answer(one) for one in asked}
    finally:
        _tidy(folder, {one.pid for one in asked})


@dataclass(frozen=True)
class _Asked:
    """One process that was asked, or why it was not, and how long its file was before."""

    pid: int
    name: str
    file: Path
    before: int = 0
    refusal: str = ""


def _ask(pid: int, folder: Path) -> _Asked:
    file = folder / f"stacks-{pid}.txt"
    try:
        # The descriptor comes before the look at /proc: if the number passes on to another
        # process, the signal meets the old one, which is gone.
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return _Asked(pid, "?", file, refusal="gone")
    try:
        status = _status(pid)
        name = status.get("Name", "?")
        size = _size(file)
        refusal = _refusal(status, size)
        if not refusal:
            signal.pidfd_send_signal(pidfd, _ASK)
        return _Asked(pid, name, file, size or 0, refusal)
    except ProcessLookupError:
        return _Asked(pid, name, file, refusal="gone")
    except PermissionError:
        return _Asked(pid, name, file, refusal="not ours to signal")
    finally:
        os.close(pidfd)


def _refusal(status: dict[str, str], size: int | None) -> str:
    """Say why a process is not asked; "" when it can answer."""
    if not status:
        return "gone"
    if status.get("State", "?")[0] in "Tt":
        return "stopped"  # the signal would wait, and write when nobody reads
    listens = int(status.get("SigCgt", "0"), 16) & (1 << (_ASK - 1))
    # Without its file the handler is not the plug-in's, and nobody knows what it does.
    return "" if listens and size is not None else f"it does not listen for {_ASK.name}"


async def _settle(asked: list[_Asked], within_s: float) -> None:
    """Wait until each file grew and stopped growing, or the time is over."""
    deadline = asyncio.get_running_loop().time() + within_s
    sizes: dict[int, int] = {}
    still: dict[int, int] = {}
    while any(still.get(one.pid, 0) < _SETTLED_POLLS and _is_there(one.pid) for one in asked):
        if asyncio.get_running_loop().time() > deadline:
            return
        await asyncio.sleep(_POLL_S)
        for one in asked:
            size = _size(one.file) or 0
            same = size > one.before and size == sizes.get(one.pid)
            still[one.pid] = still.get(one.pid, 0) + 1 if same else 0
            sizes[one.pid] = size


def _answer(one: _Asked) -> str:
    text = "" if one.refusal else _tail(one.file, one.before)
    if text:
        return text
    status = _status(one.pid)
    if one.refusal == "gone" or not status:
        return "no answer: gone"
    state = f"state {status.get('State', '?')}"
    why = {"stopped": f"stopped ({state})", "": state}.get(one.refusal, f"{one.refusal}; {state}")
    kernel = [
        f"{what}: {said}"
        for what in ("wchan", "stack")
        if (said := _read(Path(f"/proc/{one.pid}/{what}"))) not in ("", "0")
    ]
    return "\n".join([f"no answer: {why}", *kernel])


def _tail(file: Path, before: int) -> str:
    """Return what came after ``before``, its end if it is long: the main thread stands there."""
    try:
        with file.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            start = max(before, size - TEXT_LIMIT + len(_CUT))
            source.seek(start)
            data = source.read(TEXT_LIMIT - len(_CUT))
    except OSError:
        return ""
    # The process writes on where it was before the file was emptied: zeros fill the hole.
    is_cut = start > before and not data.startswith(b"\0")
    if is_cut:
        data = _CUT + data.partition(b"\n")[2]
    return data.replace(b"\0", b"").decode("utf-8", "replace").strip()


def _tidy(folder: Path, asked: set[int]) -> None:
    """Empty the files of those asked; remove those of processes that are gone."""
    with contextlib.suppress(OSError):
        for file in list(folder.iterdir()):
            match = _FILE.fullmatch(file.name)
            if not match:
                continue
            pid = int(match[1])
            with contextlib.suppress(OSError):
                if not _is_there(pid):
                    file.unlink()
                elif pid in asked:
                    os.truncate(file, 0)  # not removed: the process has it open


def _status(pid: int) -> dict[str, str]:
    # status, not cmdline: that waits for a lock which a hung process may hold
    rows = (line.partition(":") for line in _read(Path(f"/proc/{pid}/status")).splitlines())
    return {name: value.strip() for name, _, value in rows}


def _is_there(pid: int) -> bool:
    return _status(pid).get("State", "Z")[0] not in "ZX"


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()[:_KERNEL_LIMIT]
    except OSError:
        return ""
