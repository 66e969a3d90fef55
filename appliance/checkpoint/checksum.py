"""Whether a file is what the hub says it is, told without pushing others out of the page cache."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress

from appliance.checkpoint.hub import HubFile

STEP_BYTES = 8 * 2**20


class Checksum:
    """The hash of a growing file: SHA-256, or git's own where the hub keeps the file in git."""

    def __init__(self, file: HubFile) -> None:
        self._wanted = file.sha256 or file.blob
        if file.sha256:
            self._hash = hashlib.sha256()
        else:
            self._hash = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)

    def update(self, content: bytes) -> None:
        """Take in the next bytes."""
        self._hash.update(content)

    def is_right(self) -> bool:
        """Tell whether all bytes so far are the file."""
        return self._hash.hexdigest() == self._wanted

    def difference(self) -> str:
        """Return both hashes, short, for a message."""
        return f"{self._hash.name} {self._hash.hexdigest()[:12]}, and not {self._wanted[:12]}"


def read_through(fd: int, length: int, take: Callable[[bytes], None]) -> None:
    """Give ``take`` the first ``length`` bytes of a file, and leave none of them in memory.

    Raises OSError; a file that is shorter is told as far as it goes.
    """
    for offset in range(0, length, STEP_BYTES):
        content = os.pread(fd, min(STEP_BYTES, length - offset), offset)
        take(content)
        forget(fd, offset, len(content))


def forget(fd: int, offset: int, length: int) -> None:
    """Let the kernel use the memory of these bytes, which are on the disk, for something else."""
    with suppress(OSError):
        os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)
