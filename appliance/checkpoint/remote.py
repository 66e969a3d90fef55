"""A checkpoint on a server, read and copied by byte ranges: only what is asked for is sent.

A range that breaks off is gone on with where it broke. Each answer must be of the same file as
the first one (size, and ETag or date), so a file that changes in mid-way is refused, never mixed.
"""

import re
import threading
from collections.abc import Iterator, Mapping

from appliance.checkpoint.failures import SourceError
from appliance.checkpoint.faults import FileChanged, NoRanges, Passing, RemoteError
from appliance.checkpoint.source import Moved, write_all
from appliance.checkpoint.web import Answer, Web, refuse_encoded
from appliance.checkpoint.weburl import WebUrl

STEP_BYTES = 2**20
WHOLE_BYTES = 16 * 2**20  # what a server without ranges may send whole, for a part of it
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


class RemoteFile:
    """One file of a server. ``size`` and ``stamp`` are what a listing said, if there was one."""

    def __init__(self, web: Web, url: WebUrl, size: int | None = None, stamp: str = "") -> None:
        self.url = url
        self._web = web
        self._size = size
        self._stamp = stamp
        self._lock = threading.Lock()
        self._target: WebUrl | None = None  # where the redirects led; it may be signed for an hour
        self._marks: dict[tuple[str, str, int], str] = {}  # each server has its own ETag for it

    def size(self) -> int:
        """Return the length in bytes."""
        if self._size is None:
            self._ask_size()
        return self._size or 0

    def stamp(self) -> str:
        """Return what changes when the content does."""
        size = self.size()
        return self._stamp or f"{size}-{self._marks.get(self.url.origin, '')}"

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from ``start`` up to ``stop`` in order; go on where an answer broke off.

        Raises SourceError when the file is shorter, is another one by now, or does not come.
        """
        if not 0 <= start <= stop <= self.size():
            raise SourceError(
                f"{self.url} has {self.size():,} bytes, and no byte {stop:,}", "fetch it again"
            )
        failures = 0
        while start < stop:
            try:
                with self._answer(start, stop) as answer:
                    while start < stop and (part := answer.read(min(STEP_BYTES, stop - start))):
                        start, failures = start + len(part), 0
                        yield part
                    if start < stop:
                        raise Passing(f"{answer.url} broke off before byte {stop:,}")
            except Passing as cause:
                failures += 1
                self._target = None
                self._web.wait(failures, cause)

    # ---- one answer

    def _answer(self, start: int, stop: int) -> Answer:
        """Return an answer whose next byte is the one at ``start``. Raises Passing."""
        asked = {"Range": f"bytes={start}-{stop - 1}"}
        answer = self._web.get(self._target or self.url, asked, origin=self.url)
        try:
            refuse_encoded(answer)
            self._same(answer)
            if answer.status == 200:
                self._skip(answer, start, stop)
            else:
                first, size = _range_of(answer)
                self._same_size(size)
                if first != start:
                    raise RemoteError(f"{answer.url} was asked for byte {start:,}, sends {first:,}")
        except BaseException:
            answer.__exit__()
            raise
        self._target = answer.url
        return answer

    def _same(self, answer: Answer) -> None:
        """Hold that the answer is of the file that was read before. Raises FileChanged."""
        if self._stamp and answer.linked_etag and answer.linked_etag != self._stamp:
            raise self._changed("the listing names another content")
        mark = answer.header("ETag") or answer.header("Last-Modified")
        with self._lock:
            known = self._marks.setdefault(answer.url.origin, mark)
        if mark != known:
            raise self._changed(f"it was {known[:60]!a}, and is {mark[:60]!a}")

    def _same_size(self, size: int) -> None:
        with self._lock:
            if self._size is None:
                self._size = size
        if size != self._size:
            raise self._changed(f"it had {self._size:,} bytes, and has {size:,}")

    def _changed(self, how: str) -> FileChanged:
        return FileChanged(
            f"{self.url} is not the file that it was: {how}",
            "begin anew, with a commit as the revision",
        )

    def _skip(self, answer: Answer, start: int, stop: int) -> None:
        """Take a whole file for a part of it, where that is no waste."""
        length = _length_of(answer)
        if length is not None:
            self._same_size(length)
        elif self._size is None:
            raise RemoteError(f"{answer.url} does not say how long it is")
        if start and self.size() > WHOLE_BYTES:
            raise NoRanges(
                f"{answer.url} sends whole files alone ({self.size():,} bytes)",
                "fetch the checkpoint whole, then name its folder",
            )
        while start:
            part = answer.read(min(STEP_BYTES, start))
            if not part:
                raise Passing(f"{answer.url} broke off before byte {stop:,}")
            start -= len(part)

    def _ask_size(self) -> None:
        failures = 0
        while True:
            try:
                with self._answer(0, 1):
                    return
            except Passing as cause:
                failures += 1
                self._web.wait(failures, cause)
            except FileChanged:
                if self._size is not None:
                    raise
                self._size = 0  # 416: not even the first byte is there
                return


class RemoteSource:
    """A checkpoint of which each file is at an address. A ``Source``, safe from many threads."""

    def __init__(self, label: str, web: Web, files: Mapping[str, RemoteFile]) -> None:
        self._label = label
        self._web = web
        self._files = files

    @property
    def label(self) -> str:
        """The address, as people write it."""
        return self._label

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted(self._files)

    def size(self, name: str) -> int:
        """Return a file's length in bytes."""
        return self.file(name).size()

    def stamp(self, name: str) -> str:
        """Return the content's own hash where the listing names it, else size and ETag."""
        return self.file(name).stamp()

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset`` on."""
        return b"".join(self.file(name).pieces(offset, offset + length))

    def copy(
        self, name: str, offset: int, length: int, out_fd: int, out_offset: int, moved: Moved
    ) -> None:
        """Write exactly ``length`` bytes from ``offset`` on into ``out_fd`` at ``out_offset``."""
        for part in self.file(name).pieces(offset, offset + length):
            write_all(out_fd, part, out_offset)
            out_offset += len(part)
            moved(len(part))

    def stop(self) -> None:
        """End all connections now, also those that are read from: their readers get an error."""
        self._web.close()

    def close(self) -> None:
        """End all connections."""
        self._web.close()

    def file(self, name: str) -> RemoteFile:
        """Return one file. Raises SourceError for a name that is not there."""
        if name not in self._files:
            raise SourceError(f"{self._label} has no {name[:80]!r}", "check the address")
        return self._files[name]


def _range_of(answer: Answer) -> tuple[int, int]:
    """Return the first byte of a partial answer, and the whole file's size."""
    match = _RANGE.fullmatch(answer.header("Content-Range"))
    if not match or not int(match[1]) <= int(match[2]) < int(match[3]):
        raise RemoteError(f"{answer.url} sends a part and does not say which")
    return int(match[1]), int(match[3])


def _length_of(answer: Answer) -> int | None:
    """Return the length of a whole answer; None where it is sent in chunks of unknown number."""
    length = answer.header("Content-Length")
    return int(length) if length.isdecimal() and len(length) <= 18 else None
