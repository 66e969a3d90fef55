"""Where a checkpoint comes from: files with names, read and copied by byte ranges.

All that prunes, verifies or lints knows a checkpoint only through ``Source``. A local folder is
here; ``remote`` has the same over HTTP range requests; ``opening`` chooses.
"""

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from appliance.checkpoint.failures import SourceError

# Of one read of many: what the C library gives out anew without asking the kernel for fresh pages,
# whose faults cost six times the copy.
BUFFER_BYTES = 64 * 2**10
KERNEL_STEP_BYTES = 64 * 2**20
FORGET_BYTES = 32 * 2**20  # at a time: for less the kernel may stop all processors each time
# What a kernel or file system says that cannot copy between these two files by itself.
_NO_COPY = {
    *(errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP),
    *(errno.EPERM, errno.EBADF, errno.ETXTBSY),
}
Moved = Callable[[int], None]


class Source(Protocol):
    """A checkpoint's files. All methods may be called from several threads at once.

    Names are plain relative ones with ``/`` between folders. Every method raises SourceError,
    which names the file and says what to do, when the file is missing or cannot be read.
    """

    @property
    def label(self) -> str:
        """What people call it: a path, or an address without any secret."""

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""

    def size(self, name: str) -> int:
        """Return a file's length in bytes."""

    def stamp(self, name: str) -> str:
        """Return what changes when the file's content does: size and mtime, or an ETag."""

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset`` on. For headers and small tensors."""

    def copy(
        self, name: str, offset: int, length: int, out_fd: int, out_offset: int, moved: Moved
    ) -> None:
        """Write exactly ``length`` bytes from ``offset`` on into ``out_fd`` at ``out_offset``.

        ``moved`` is told the bytes of each step, in order, once they are written: the file is
        complete up to there. An OSError of the output (disk full) passes as it is.
        """

    def stop(self) -> None:
        """End reads that are waited for; the readers get an error. For when the work is over."""

    def close(self) -> None:
        """Give back files and connections."""


class LocalSource:
    """A folder. Links in it are followed: a hub's cache has nothing else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fds: dict[str, int] = {}
        self._kept_from: dict[str, int] = {}
        self._lock = threading.Lock()
        if not folder.is_dir():
            raise SourceError(
                f"{folder} is no folder", "name the folder that holds config.json and the shards"
            )

    @property
    def label(self) -> str:
        """The folder's path."""
        return str(self._folder)

    def names(self) -> list[str]:
        """Return the regular files beneath the folder; what is hidden is not the checkpoint's."""
        found: list[str] = []
        for root, folders, files in os.walk(self._folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = Path(root).relative_to(self._folder)
            found += [(inside / name).as_posix() for name in files if not name.startswith(".")]
        return sorted(name for name in found if (self._folder / name).is_file())

    def size(self, name: str) -> int:
        """Return a file's length in bytes."""
        return os.fstat(self._open(name)).st_size

    def stamp(self, name: str) -> str:
        """Return the file's size and time of change."""
        status = os.fstat(self._open(name))
        return f"{status.st_size}-{status.st_mtime_ns}"

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset`` on."""
        file, parts, wanted = self._open(name), [], length
        while wanted:
            try:
                part = os.pread(file, min(wanted, 2**30), offset)
            except OSError as cause:
                raise self._unreadable(name, cause) from cause
            if not part:
                raise self._short(name, offset + wanted)
            parts.append(part)
            offset, wanted = offset + len(part), wanted - len(part)
        self._passed(name, file, offset)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def copy(
        self, name: str, offset: int, length: int, out_fd: int, out_offset: int, moved: Moved
    ) -> None:
        """Copy inside the kernel where it can, else through a buffer."""
        file = self._open(name)
        done = _copy_in_kernel(file, offset, length, out_fd, out_offset, moved)
        while done < length:
            part = self.read(name, offset + done, min(BUFFER_BYTES, length - done))
            write_all(out_fd, part, out_offset + done)
            done += len(part)
            moved(len(part))
        self._passed(name, file, offset + length)

    def stop(self) -> None:
        """Do nothing: a read of a disk does not wait for anybody."""

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            while self._fds:
                os.close(self._fds.popitem()[1])

    def _passed(self, name: str, file: int, end: int) -> None:
        """Let go of what was read once: 134 GB would push all else out of the page cache."""
        begin = self._kept_from.setdefault(name, 0)
        if end < begin:  # read again from an earlier place on
            self._kept_from[name] = end
        elif end - begin >= FORGET_BYTES:
            forget(file, begin, end - begin)
            self._kept_from[name] = end

    def _open(self, name: str) -> int:
        with self._lock:
            if name not in self._fds:
                try:
                    file = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                except OSError as cause:
                    raise self._unreadable(name, cause) from cause
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    os.close(file)
                    raise SourceError(f"{self._folder / name} is no regular file", "remove it")
                self._fds[name] = file
            return self._fds[name]

    def _unreadable(self, name: str, cause: OSError) -> SourceError:
        return SourceError(
            f"{self._folder / name} cannot be read: {cause.strerror}", "fetch this file again"
        )

    def _short(self, name: str, end: int) -> SourceError:
        return SourceError(
            f"{self._folder / name} ends before byte {end:,}", "fetch this file again"
        )


def forget(file: int, offset: int, length: int) -> None:
    """Take a file's bytes out of the page cache, as far as they are on the disk."""
    if hasattr(os, "posix_fadvise"):  # not on macOS
        os.posix_fadvise(file, offset, length, os.POSIX_FADV_DONTNEED)


def _copy_in_kernel(
    file: int, offset: int, length: int, out_fd: int, out_offset: int, moved: Moved
) -> int:
    """Copy without the bytes passing through us; return how many went that way.

    0 when this kernel or these file systems cannot, fewer than ``length`` at the file's end.
    """
    done = 0
    if not hasattr(os, "copy_file_range"):  # macOS
        return done
    while done < length:
        step = min(length - done, KERNEL_STEP_BYTES)
        try:
            count = os.copy_file_range(file, out_fd, step, offset + done, out_offset + done)
        except OSError as cause:
            if cause.errno in _NO_COPY:
                return done
            raise
        if not count:
            return done
        done += count
        moved(count)
    return done


def write_all(fd: int, content: bytes, offset: int) -> None:
    """Write all of ``content`` at ``offset``."""
    view = memoryview(content)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
