"""The folder that is written: whole files only, and nothing outside it whatever a name says.

A file grows as ``.unfinished/NAME.part`` and is renamed when all of it is on the disk. Every
name is opened relative to the folder's descriptor, and no link in it is followed.
"""

import errno
import fcntl
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from appliance.checkpoint.failures import DestinationError
from appliance.checkpoint.plain import plain_name

WORK = ".unfinished"  # of a prune or a pull
_FINISHED = ".finished"  # what it is called while it is removed
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIMITS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full(error: OSError) -> bool:
    """Tell whether an error says that no more fits: disk, quota, or the process's own limit."""
    return error.errno in _LIMITS


class Destination:
    """A folder of ours, locked against a second writer. ``close`` it, or ``finish`` it first."""

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self.folder = folder.resolve()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.folder, _FOLDER)
        except OSError as cause:
            raise DestinationError(
                f"{folder} cannot be made: {cause.strerror}", "name another folder"
            ) from cause
        try:
            refuse_foreign(self.folder, resume=resume)
        except DestinationError:
            os.close(self._fd)
            raise
        try:
            self._work = _step_into(os.dup(self._fd), WORK)
            fcntl.flock(self._work, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise DestinationError(
                f"{folder} is being written by another process", "wait for it to end"
            ) from None
        except OSError as cause:
            os.close(self._fd)
            raise DestinationError(
                f"{self.folder / WORK} cannot be used: {cause.strerror}", "remove it"
            ) from cause

    def free_bytes(self) -> int:
        """Return what still fits on the disk."""
        status = os.fstatvfs(self._fd)
        return status.f_bavail * status.f_frsize

    def require_room(self, total_bytes: int) -> None:
        """Raise DestinationError when fewer than ``total_bytes`` fit, with what is here already."""
        here = (path.lstat().st_size for path in self.folder.rglob("*") if not path.is_dir())
        needed = total_bytes - sum(here)
        if (free := self.free_bytes()) < needed:
            raise DestinationError(
                f"{self.folder} has {free:,} bytes free, and {needed:,} are needed",
                "make room, or name a folder on another disk",
            )

    def open_part(self, name: str) -> int:
        """Return a descriptor of the growing file ``name``, made if it is not there."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(_part(name), flags, 0o644, dir_fd=self._work)

    def publish(self, name: str) -> None:
        """Give the growing file its name. Its bytes must be on the disk already."""
        *folders, last = plain_name(name, str(self.folder), folders=True).split("/")
        parent = os.dup(self._fd)
        try:
            for folder in folders:
                parent = _step_into(parent, folder)
            os.replace(_part(name), last, src_dir_fd=self._work, dst_dir_fd=parent)
            os.fsync(parent)
        finally:
            os.close(parent)

    def put(self, name: str, content: bytes) -> None:
        """Write a small file whole."""
        fd = self.open_part(name)
        try:
            os.ftruncate(fd, 0)
            with os.fdopen(fd, "wb", closefd=False) as file:
                file.write(content)
            os.fsync(fd)
        finally:
            os.close(fd)
        self.publish(name)

    def has(self, name: str, size: int, head: bytes) -> bool:
        """Tell whether a file was published: it has this size and begins with these bytes."""
        path = self.folder / name
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size != size:
                return False
            with path.open("rb") as file:
                return file.read(len(head)) == head
        except OSError:
            return False

    def open_journal(self) -> int:
        """Return a descriptor that appends to the journal."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open("journal", flags, 0o644, dir_fd=self._work)

    def finish(self) -> None:
        """Remove what only an interrupted run needs.

        It loses its name first: killed in here, nobody goes on with half of a journal.
        """
        shutil.rmtree(_FINISHED, ignore_errors=True, dir_fd=self._fd)  # of one that was killed
        os.rename(WORK, _FINISHED, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        os.fsync(self._fd)
        shutil.rmtree(_FINISHED, dir_fd=self._fd)
        os.fsync(self._fd)

    def close(self) -> None:
        """Give the folder back."""
        os.close(self._work)
        os.close(self._fd)


def is_finished(folder: Path) -> bool:
    """Tell whether ``folder`` holds something, and no interrupted run."""
    return folder.is_dir() and any(folder.iterdir()) and not (folder / WORK).exists()


def refuse_foreign(folder: Path, *, resume: bool) -> None:
    """Raise DestinationError but for an empty or new folder, or with ``resume`` one of ours.

    Ours is one that an interrupted run has left behind.
    """
    folder = folder.resolve()
    found = os.listdir(folder) if folder.is_dir() else []
    if resume and found and WORK not in found:
        hint = "a finished one needs no --resume: --verify checks it"
        what = f"{folder} holds {len(found)} files and no interrupted run"
    elif found and not resume:
        hint = "name an empty folder; --resume goes on with an interrupted run"
        what = f"{folder} is not empty: it holds {sorted(found)[0]!a}"
    else:
        return
    raise DestinationError(what, hint)


def refuse_overlap(source: Path, folder: Path) -> None:
    """Raise DestinationError when one folder is the other, or within it."""
    source, folder = source.resolve(), folder.resolve()
    if source == folder or source in folder.parents or folder in source.parents:
        raise DestinationError(
            f"{folder} and the source {source} are not apart",
            "name an empty folder that is neither within the source nor around it",
        )


def _part(name: str) -> str:
    return name.replace("/", ":") + ".part"  # no plain name has a colon


def _step_into(parent: int, folder: str) -> int:
    """Return a descriptor of a folder, made if need be; the parent's is closed."""
    try:
        with suppress(FileExistsError):
            os.mkdir(folder, dir_fd=parent)
        return os.open(folder, _FOLDER, dir_fd=parent)
    finally:
        os.close(parent)
