"""Whether a file is what the hub says it is, told without pushing others out of the page cache."""

import hashlib
import os
from collections.abc import Callable

from appliance.checkpoint.hub import HubFile
from appliance.checkpoint.source import forget

STEP_BYTES = 2**18
FORGET_BYTES = 64 * 2**20  # at a time: the kernel may stop all processors to find the pages


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
    forgotten = 0
    for offset in range(0, length, STEP_BYTES):
        take(os.pread(fd, min(STEP_BYTES, length - offset), offset))
        if offset - forgotten >= FORGET_BYTES:
            forget(fd, forgotten, offset - forgotten)
            forgotten = offset
    forget(fd, forgotten, length - forgotten)
