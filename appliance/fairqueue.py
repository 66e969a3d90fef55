"""Who is next: the keys take turns, and within one the first that came goes first. Pure."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Generic, Protocol, TypeVar


@dataclass(frozen=True)
class Share:
    """Whose request it is; how many sequences of that key's may run, and requests wait.

    None: as many as can.
    """

    key: str = ""
    max_running: int | None = None
    max_waiting: int | None = None


class Entry(Protocol):
    """What can wait."""

    @property
    def number(self) -> int:
        """Its place in the order in which all of them came."""

    @property
    def share(self) -> Share:
        """Its key's."""


T = TypeVar("T", bound=Entry)


class FairQueue(Generic[T]):
    """The line before the places: one line a key, and the keys in turn.

    Who had a place already, and gave it back, stands before all of them.
    """

    def __init__(self) -> None:
        self._lines: dict[str, deque[T]] = {}  # no line is empty; the next turn is the first's
        self._returned: list[T] = []

    def __len__(self) -> int:
        return len(self._returned) + sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[T]:
        yield from self._returned
        for line in self._lines.values():
            yield from line

    def count(self, key: str) -> int:
        """Return how many of one key wait."""
        returned = sum(entry.share.key == key for entry in self._returned)
        return returned + len(self._lines.get(key, ()))

    def add(self, entry: T) -> None:
        """Put a newcomer at the end of its key's line."""
        self._lines.setdefault(entry.share.key, deque()).append(entry)

    def put_back(self, entry: T) -> None:
        """Put one that had a place before all who never had one."""
        self._returned.append(entry)
        self._returned.sort(key=lambda waiting: waiting.number)

    def first(self, may_run: Callable[[T], bool]) -> T | None:
        """Return the next one whose key lets it run now; None where there is none."""
        lines = (line[0] for line in self._lines.values())
        return next(filter(may_run, chain(self._returned, lines)), None)

    def take(self, entry: T) -> None:
        """Take out one whose turn it is; its key's next turn comes after everybody else's."""
        has_line = entry not in self._returned
        self.remove(entry)
        if has_line and (line := self._lines.pop(entry.share.key, None)) is not None:
            self._lines[entry.share.key] = line

    def remove(self, entry: T) -> None:
        """Take out one that waits no longer; one that is not here is no error."""
        if entry in self._returned:
            self._returned.remove(entry)
            return
        line = self._lines.get(entry.share.key, deque())
        if entry in line:
            line.remove(entry)
            if not line:
                del self._lines[entry.share.key]

    def clear(self) -> None:
        """Forget everybody."""
        self._lines.clear()
        self._returned.clear()
