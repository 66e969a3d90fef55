"""Process trees, read from /proc: who belongs to an engine, what they used, how they are signalled.

A process belongs to an engine by its session id: it is inherited, outlives the leader, and the
kernel gives the number to nobody else while a member lives. Who called setsid itself is known by
the spawn token in its environment, or by its parent. The environment alone proves nothing:
setproctitle, which vLLM's EngineCore and Worker call, blanks it.
"""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.launch import SPAWN_VARIABLE

WORKING_CPU_SHARE: Final = 0.05  # of one core; an idle engine polls with less (expected)
WORKING_IO_BYTES: Final = 1024 * 1024

_PR_SET_CHILD_SUBREAPER: Final = 36
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
# What /proc says of a process that ended under our eyes, or that is none of our business.
# Anything else (no descriptors left, say) is raised: "I cannot see it" is not "it is gone".
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


@dataclass(frozen=True)
class Process:
    """One line of /proc/PID/stat. ``start_ticks`` counts from boot, ``cpu_s`` holds that of
    children which were waited for.
    """

    pid: int
    state: str
    parent: int
    session: int
    threads: int
    cpu_s: float
    start_ticks: int

    @property
    def is_alive(self) -> bool:
        """Whether any thread is left.

        A leading thread that ended is shown as a zombie while others run on, be it that they hang
        in a driver and still hold all the memory.
        """
        return self.state not in "ZX" or (self.state == "Z" and self.threads > 1)


@dataclass(frozen=True)
class TreeUsage:
    """What some processes have used since they started: CPU in seconds, bytes read and written."""

    processes: int = 0
    cpu_s: float = 0.0
    io_bytes: int = 0


def members(session: int, token: str = "") -> set[int]:
    """Return the living processes of an engine, as ``find`` does."""
    return set(find(session, token))


def find(
    session: int, token: str = "", known: Set[tuple[int, int]] = frozenset()
) -> dict[int, Process]:
    """Return the living processes of a session, those marked with ``token``, and their offspring.

    ``known`` names earlier finds as (pid, start_ticks). Never ourselves; session 0 or below is
    nobody's, an empty token marks nobody. One pass over /proc. Raises OSError when it cannot be
    read (no file descriptor left).
    """
    mark = f"{SPAWN_VARIABLE}={token}".encode() if token else b""
    living = [p for p in processes() if p.is_alive and p.pid != os.getpid()]
    found = {
        p.pid: p
        for p in living
        if (session > 0 and p.session == session)
        or (p.pid, p.start_ticks) in known
        or (mark and _is_marked(p.pid, mark))
    }
    fresh = set(found)
    while fresh:  # offspring that has a session of its own and hides its environment
        more = {p.pid: p for p in living if p.parent in fresh and p.pid not in found}
        found |= more
        fresh = set(more)
    return found


def processes() -> Iterator[Process]:
    """Yield all that /proc shows, zombies too. Raises OSError when it cannot be read."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (process := read_process(int(name))) is not None:
            yield process


def read_process(pid: int) -> Process | None:
    """Return what /proc says of one process, zombies too; None when there is none."""
    try:
        stat = _read(pid, "stat")
    except _GONE:
        return None
    # the command's name stands in brackets and may hold anything: count from behind the last one
    words = stat.rpartition(b")")[2].split()
    return Process(
        pid=pid,
        state=words[0].decode(),
        parent=int(words[1]),
        session=int(words[3]),
        threads=int(words[17]),
        cpu_s=sum(map(int, words[11:15])) / _TICKS_PER_S,
        start_ticks=int(words[19]),
    )


def start_ticks(pid: int) -> int | None:
    """Return when a process (zombie or not) started, in clock ticks since boot; None: no such.

    With the pid and the boot id it names one process for good: pids are used again.
    """
    process = read_process(pid) if pid > 0 else None
    return process.start_ticks if process else None


def boot_id() -> str:
    """Return the kernel's id of this boot: the same in all containers, another after a reboot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def usage(pids: Iterable[int]) -> TreeUsage:
    """Return what these processes used; those that ended, or hide their i/o, count 0.

    What a finished child used counts with its parent, once that has waited for it: so the many
    short compilers of a compile are seen. The kernel does the same for bytes.
    """
    found = [process for pid in pids if (process := read_process(pid)) is not None]
    return TreeUsage(
        processes=len(found),
        cpu_s=sum(process.cpu_s for process in found),
        io_bytes=sum(_io_bytes(process.pid) for process in found),
    )


def largest(count: int) -> dict[str, int]:
    """Return the processes of the machine with the most resident memory, "name (pid)" to bytes.

    Memory that the GPU holds is the driver's and counts with none. Raises OSError like ``find``.
    """
    sizes: dict[str, int] = {}
    for process in processes():
        with contextlib.suppress(*_GONE, ValueError, IndexError):
            resident = int(_read(process.pid, "statm").split()[1]) * _PAGE_BYTES
            name = _read(process.pid, "comm").decode("utf-8", "replace").strip()
            sizes[f"{name} ({process.pid})"] = resident
    most = sorted(sizes.items(), key=lambda item: item[1], reverse=True)
    return dict(most[:count])


def is_working(before: TreeUsage, after: TreeUsage, seconds: float) -> bool:
    """Tell whether an engine that loads made progress within ``seconds``. Pure.

    At least 5 % of one core, or 1 MiB read or written: polling is less, a silent compile is more.
    """
    if seconds <= 0:
        return False
    return (
        after.cpu_s - before.cpu_s >= WORKING_CPU_SHARE * seconds
        or after.io_bytes - before.io_bytes >= WORKING_IO_BYTES
    )


def signal_all(targets: Iterable[Process], number: signal.Signals) -> None:
    """Signal each of these processes that is still the same one.

    The pidfd is opened first and the identity looked at after: from then on the pid may be used
    again by a stranger, and the signal still goes to ours or to nobody.
    """
    for target in targets:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            handle = os.pidfd_open(target.pid)
            try:
                if start_ticks(target.pid) == target.start_ticks:
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)


def zombie_children() -> list[Process]:
    """Return our own children that ended and that nobody has waited for. Reaps nothing."""
    try:
        # asks the kernel first: mostly there is none, and then /proc need not be read
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return []
    except ChildProcessError:
        return []
    return [p for p in processes() if p.parent == os.getpid() and not p.is_alive]


def become_subreaper() -> bool:
    """Make orphaned descendants our children, not those of PID 1; False if the kernel refuses.

    So the dead of an engine are ours to reap, and its living stay below us.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
        return file.readall()


def _is_marked(pid: int, mark: bytes) -> bool:
    try:
        return mark in _read(pid, "environ").split(b"\0")
    except _GONE:
        return False


def _io_bytes(pid: int) -> int:
    try:
        lines = _read(pid, "io").splitlines()
    except _GONE:
        return 0
    # what passed through read() and write(), the page cache included
    return sum(int(line.split()[1]) for line in lines if line.startswith((b"rchar", b"wchar")))
