"""Carries the plan out: every file beneath the destination, in parallel, ready to be resumed."""

import os
import threading
from collections.abc import Iterable, Sequence
from functools import partial

from appliance.checkpoint.bar import Bar
from appliance.checkpoint.content import content_of
from appliance.checkpoint.destination import Destination, is_full
from appliance.checkpoint.failures import WriteError
from appliance.checkpoint.jobs import Stopped, side_by_side
from appliance.checkpoint.journal import Journal
from appliance.checkpoint.plan import Piece, Range, ShardPlan, after, groups
from appliance.checkpoint.source import BUFFER_BYTES, Source, forget, write_all

# After so many bytes they are sent to the disk and noted: what a crash can cost, and what can
# stand unwritten in memory, for each job.
MARK_BYTES = 256 * 2**20


class Writer:
    """Writes the files of one plan from ``source`` into ``destination``."""

    def __init__(self, source: Source, destination: Destination, journal: Journal, bar: Bar):
        self._source, self._destination, self._journal = source, destination, journal
        self._bar, self._stop = bar, threading.Event()

    def write_files(self, plans: Iterable[ShardPlan], jobs: int) -> None:
        """Write every file, ``jobs`` at a time.

        Raises WriteError when the disk is full; what is written stays for a resume.
        """
        side_by_side([partial(self._write, plan) for plan in plans], jobs, self._end)

    def _end(self) -> None:
        self._stop.set()
        self._source.stop()

    def _write(self, plan: ShardPlan) -> None:
        there = not self._journal.is_new
        if there and self._destination.has(plan.name, plan.size, plan.head):
            self._bar.skip(plan.size)
            return
        try:
            self._copy(plan)
            self._destination.publish(plan.name)
        except OSError as cause:
            raise write_error(self._destination, plan.name, cause) from cause

    def _copy(self, plan: ShardPlan) -> None:
        fd = self._destination.open_part(plan.name)
        try:
            done = min(self._journal.mark(plan.name), os.fstat(fd).st_size)
            os.ftruncate(fd, done)
            growing = _Growing(fd, plan.name, done, self._journal, self._bar)
            try:
                self._fill(plan, fd, done, growing)
            finally:
                growing.mark()  # what came stays, also when a server or a person ends it here
        finally:
            os.close(fd)

    def _fill(self, plan: ShardPlan, fd: int, done: int, growing: "_Growing") -> None:
        if done < len(plan.head):
            write_all(fd, plan.head, 0)
            growing.count(len(plan.head) - done)
        position = max(done, len(plan.head))
        for group in groups(after(plan.ranges, position - len(plan.head))):
            position += self._copy_group(plan.name, group, fd, position, growing)

    def _copy_group(
        self, name: str, group: Sequence[Piece], fd: int, position: int, growing: "_Growing"
    ) -> int:
        """Write a group's bytes at ``position``; return how many."""
        done = 0

        def moved(size: int) -> None:
            nonlocal done
            if self._stop.is_set():
                raise Stopped
            growing.count(size)
            done += size

        first = group[0]
        if len(group) == 1 and isinstance(first, Range):
            self._source.copy(name, *first, fd, position, moved)
        else:
            for content in content_of(self._source, name, group, BUFFER_BYTES):
                write_all(fd, content, position + done)
                moved(len(content))
        return done


class _Growing:
    """Counts a file's bytes as they come, and sees them to the disk now and then."""

    def __init__(self, fd: int, name: str, done: int, journal: Journal, bar: Bar) -> None:
        self._fd, self._name, self._done, self._journal, self._bar = fd, name, done, journal, bar
        self._noted = done
        bar.skip(done)

    def count(self, size: int) -> None:
        self._done += size
        self._bar.add(size)
        if self._done - self._noted >= MARK_BYTES:
            self.mark()

    def mark(self) -> None:
        """See to the disk what was counted, and note it for a resume."""
        os.fsync(self._fd)
        forget(self._fd, self._noted, self._done - self._noted)
        self._journal.note(self._name, self._done)
        self._noted = self._done


def write_error(destination: Destination, name: str, cause: OSError) -> WriteError:
    """Return what to say of a write that failed."""
    if is_full(cause):
        return WriteError(
            f"the disk of {destination.folder} is full: {name} could not be written whole "
            f"({cause.strerror}; {destination.free_bytes():,} bytes are free)",
            "make room, then repeat the command with --resume",
            code="disk_full",
        )
    return WriteError(
        f"writing {name} failed: {cause.strerror}", "repeat the command with --resume"
    )
