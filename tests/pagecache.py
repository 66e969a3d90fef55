"""What of a file the kernel holds in memory: looked at without bringing any of it in."""

import os
from pathlib import Path

import pytest

MIB = 2**20


def cached(path: Path) -> int:
    """Return of how many MiB of a file the first page is in memory."""
    count = 0
    with path.open("rb", buffering=0) as file:
        for offset in range(0, path.stat().st_size, MIB):
            try:
                os.preadv(file.fileno(), [bytearray(1)], offset, os.RWF_NOWAIT)
            except BlockingIOError:
                continue
            count += 1
    return count


def fill_uncached(path: Path, size: int) -> None:
    """Write a file that is on the disk alone. Skip the test where a file system cannot do that."""
    with path.open("wb", buffering=0) as file:
        for _ in range(0, size, MIB):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached(path):
        pytest.skip("this file system keeps its files in memory")
