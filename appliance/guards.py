"""The emergency guard: kills the engine the moment that the machine's memory is about to be gone.

On unified memory 20 GiB have been seen to go within 1.5 s, and what follows is no OOM kill but a
box that answers nobody. So this is a thread of its own, whatever the event loop does; its file is
open and its buffer there beforehand; it kills first, and tells afterwards.
"""

import contextlib
import ctypes
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.floors import GuardPolicy, will_fall_below

_BUFFER_BYTES = 4096
_NAME = b"MemAvailable:"
_MCL_CURRENT = 1


@dataclass(frozen=True)
class Emergency:
    """Why the guard fired: what was available, in bytes, and what it would have come to."""

    available_bytes: int
    limit_bytes: int
    is_projected: bool


class Meminfo:
    """MemAvailable, read again and again through one open file. Close it.

    Raises OSError when the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._buffer = bytearray(_BUFFER_BYTES)
        self._parts = [self._buffer]

    def available_bytes(self) -> int | None:
        """Return what is available now; None when that cannot be read."""
        try:
            size = os.preadv(self._fd, self._parts, 0)
        except OSError:
            return None
        start = self._buffer.find(_NAME, 0, size)
        end = self._buffer.find(b"kB", start, size)
        if start < 0 or end < 0:
            return None
        with contextlib.suppress(ValueError):
            return int(self._buffer[start + len(_NAME) : end]) * 1024
        return None

    def close(self) -> None:
        """Close the file; safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class EmergencyGuard:
    """Samples MemAvailable from ``start`` to ``stop``, and calls ``kill`` once, at once.

    The absolute limit holds all the while; the projection only while it serves, for a load takes
    memory fast by its nature. ``on_fired`` is called after ``kill``, on this thread. Raises OSError
    when ``meminfo`` cannot be opened.
    """

    def __init__(
        self,
        meminfo: Path,
        limit_bytes: int,
        policy: GuardPolicy,
        kill: Callable[[], None],
        on_fired: Callable[[Emergency], None],
    ) -> None:
        self._meminfo = Meminfo(meminfo)
        self._limit = limit_bytes
        self._policy = policy
        self._kill = kill
        self._on_fired = on_fired
        self._is_serving = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="emergency", daemon=True)

    def start(self) -> None:
        """Arm it."""
        self._thread.start()

    def serving(self, serves: bool) -> None:
        """Arm the projection too, or disarm it: it is for an engine that has loaded, and serves."""
        self._is_serving = serves

    def stop(self) -> None:
        """Disarm it; once this returns it does not kill any more. May be called again."""
        self._over.set()
        if self._thread.ident is None:  # never armed: nobody else will close it
            self._meminfo.close()
        elif self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        policy = self._policy
        # the samples of one window, the oldest first
        past: deque[tuple[float, int]] = deque(
            maxlen=max(1, round(policy.window_s / policy.emergency_every_s))
        )
        try:
            while not self._over.wait(policy.emergency_every_s):
                available = self._meminfo.available_bytes()
                if available is None:
                    continue
                now = time.monotonic()
                if available < self._limit or self._falls(past, now, available):
                    self._kill()
                    is_projected = available >= self._limit
                    self._on_fired(Emergency(available, self._limit, is_projected))
                    return
                if self._is_serving:
                    past.append((now, available))
                else:
                    past.clear()
        finally:
            self._meminfo.close()

    def _falls(self, past: Sequence[tuple[float, int]], now: float, available: int) -> bool:
        """Tell whether it slides, in each of the last two steps: one allocation is no avalanche."""
        if len(past) < 2 or not past[-2][1] > past[-1][1] > available:
            return False
        at, before = past[0]
        horizon_s = self._policy.horizon_s
        return will_fall_below(before, available, now - at, self._limit, horizon_s)


def pin_memory() -> str:
    """Keep this process's pages in memory, so that the guard need not wait for a disk.

    Returns why that was not possible, "" when it was: mostly the limit on locked memory.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT) == 0:
        return ""
    return os.strerror(ctypes.get_errno())
