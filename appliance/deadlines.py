"""How long the engine may take over one request, from the moment that it has its place. Pure."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Deadlines:
    """Lengths in seconds: to the first byte of an answer, between two pieces of it, and in all."""

    first_byte_s: float = math.inf
    idle_s: float = math.inf
    total_s: float = math.inf

    @property
    def head_s(self) -> float | None:
        """The longest wait for a reply's head, None for one without an end."""
        return _finite(min(self.first_byte_s, self.total_s))

    @property
    def part_s(self) -> float | None:
        """The longest wait for a piece of a whole reply, None for one without an end."""
        return _finite(self.idle_s)

    def end(self, began: float, heard: float | None) -> float:
        """Return the moment when the wait is over; all moments are of one clock.

        ``began`` is when the request got its place, ``heard`` when the last piece came, None
        before the first.
        """
        next_end = began + self.first_byte_s if heard is None else heard + self.idle_s
        return min(next_end, began + self.total_s)

    def why(self, began: float, heard: float | None, now: float) -> str:
        """Return what to say of a wait that is over."""
        if now >= began + self.total_s:
            return f"the answer was not whole within {self.total_s:g} s"
        if heard is None:
            return f"no answer within {self.first_byte_s:g} s"
        return f"nothing more within {self.idle_s:g} s"


def _finite(length_s: float) -> float | None:
    return None if math.isinf(length_s) else length_s
