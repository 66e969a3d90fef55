"""Real pressure on this machine's memory: a ballast, and floors near what is available now."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.host import memory_snapshot

GIB = 2**30
SPARE_BYTES = 3 * GIB  # what must be left for everybody else
BALLAST = Path(__file__).with_name("ballast.py")


def available_bytes() -> int:
    """Return MemAvailable."""
    return memory_snapshot()["MemAvailable"]


def floors_below(available: int, *, stop_gib: float, kill_gib: float) -> dict[str, Any]:
    """Return settings that put the floors so far below what is available now."""
    if available < 2 * GIB + SPARE_BYTES:
        pytest.fail(f"{available} bytes available: too little to press on; end other programs")
    stop, kill = (available - int(gib * GIB) for gib in (stop_gib, kill_gib))
    return {
        "memory_growth": "512MiB",
        "memory_warn_floor": stop,
        "memory_stop_floor": stop,
        "memory_kill_floor": kill,
        "memory_emergency": "256MiB",
    }


class Ballast:
    """A process that holds memory. Made by ``ballast``."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def until_held(self) -> None:
        """Wait until it has all that it was to take."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"held\n"

    def release(self) -> None:
        """Give it all back."""
        self._process.communicate(timeout=30)


@contextmanager
def ballast(size_bytes: int) -> Iterator[Ballast]:
    """Take so much memory, as fast as the machine gives it."""
    process = subprocess.Popen(
        [sys.executable, "-S", str(BALLAST), str(size_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield Ballast(process)
    finally:
        process.kill()
        process.communicate()
