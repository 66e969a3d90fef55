"""What of a file the kernel holds in memory: told by mincore, which brings none of it in."""

import ctypes
import mmap
import os
from pathlib import Path

import pytest

MIB = 2**20
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_LIBC.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]


def cached(path: Path) -> int:
    """Return how many bytes of a file are in memory, in whole pages."""
    size = path.stat().st_size
    pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
    with path.open("rb", buffering=0) as file:
        at = _LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    assert at != ctypes.c_void_p(-1).value
    try:
        assert _LIBC.mincore(at, size, pages) == 0
    finally:
        _LIBC.munmap(at, size)
    return sum(page & 1 for page in pages.raw) * mmap.PAGESIZE


def fill_uncached(path: Path, size: int) -> None:
    """Write a file that is on the disk alone. Skip the test where a file system cannot do that."""
    with path.open("wb", buffering=0) as file:
        for _ in range(0, size, MIB):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached(path) > size // 2:
        pytest.skip("this file system keeps its files in memory")
