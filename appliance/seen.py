"""How the long conversations of a moment ago began, so that it need not be read again. Pure.

An agent sends its whole conversation each turn, and each is the one before and some more. What
has been read and found good once is known by its bytes: to compare them costs a tenth of what
reading them costs.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

LEAST_BYTES = 64 * 1024  # below it, reading costs nothing to speak of
MOST_BYTES = 4 * 2**20  # of all that is kept: four agents at 200,000 tokens
# Of one: no context holds a longer text, and a body that grows in steps is counted again.
LONGEST = 2 * 2**20


@dataclass(frozen=True)
class Start:
    """How messages begin for the engine: ``first`` stands for all up to the offset ``at``."""

    first: bytes
    at: int
    has_instructions: bool = True


@dataclass(frozen=True)
class Beginning:
    """A body up to the end of its last message, all of it read and found good.

    ``kind`` is what it was read for; ``fields`` stand before the messages. The offset in
    ``start`` is one of ``text``; what is behind it passes as it is.
    """

    kind: tuple[str, bool]
    text: bytes
    fields: Mapping[str, msgspec.Raw]
    start: Start


class Seen:
    """The last few beginnings, within a bound of bytes."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: deque[Beginning] = deque()

    @property
    def kept_bytes(self) -> int:
        """The bytes of all that is kept."""
        return sum(len(one.text) for one in self._kept)

    def find(self, kind: tuple[str, bool], body: bytes) -> Beginning | None:
        """Return the longest beginning of ``body`` that is known, None for none."""
        if len(body) < LEAST_BYTES:
            return None
        known = [one for one in self._kept if one.kind == kind and body.startswith(one.text)]
        return max(known, key=lambda one: len(one.text), default=None)

    def keep(self, new: Beginning) -> None:
        """Keep one, in the place of those that it goes on from; the oldest go for it."""
        if not LEAST_BYTES <= len(new.text) <= min(LONGEST, self._most_bytes):
            return
        others = [
            one for one in self._kept if one.kind != new.kind or not new.text.startswith(one.text)
        ]
        self._kept = deque([*others, new])
        while self.kept_bytes > self._most_bytes:
            self._kept.popleft()
