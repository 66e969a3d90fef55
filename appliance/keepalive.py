"""Waiting: how long a request may, what its client hears meanwhile, when to come again. Pure."""

import math
from dataclasses import dataclass

_COMMENT = b": keep-alive\n\n"
_PING = b'event: ping\ndata: {"type": "ping"}\n\n'

# The client that this box is made for tries five times more, and gives up on 300 silent seconds:
# with whole waits between, five of the latest outlast a start of 20 minutes.
_SOONEST_S, _LATEST_S = 5, 240


@dataclass(frozen=True)
class Waits:
    """The lengths of waiting, in seconds.

    A stream waits up to ``admit_wait_s``; its client gets the head after ``head_after_s`` and a
    keep-alive each ``keepalive_s``, of the ``style`` that the setting names. A whole reply has no
    such means: it waits up to ``queue_timeout_s`` for a place, of which ``whole_wait_s`` for an
    engine that is not there.
    """

    queue_timeout_s: float
    admit_wait_s: float
    whole_wait_s: float = 20.0
    head_after_s: float = 10.0
    keepalive_s: float = 15.0
    style: str = "auto"

    def end(self, streaming: bool, began: float, held_since: float | None) -> float:
        """Return the moment when the wait is over.

        ``began`` is when it began, ``held_since`` when the gate was found held, None for an
        open one; all three are moments of one clock.
        """
        if streaming:
            return began + self.admit_wait_s
        end = began + self.queue_timeout_s
        return end if held_since is None else min(end, held_since + self.whole_wait_s)


def keep_alive(*, anthropic: bool = False, style: str = "auto") -> bytes:
    """Return one event that says nothing: a comment, or Anthropic's ping unless ``comment``."""
    return _PING if anthropic and style != "comment" else _COMMENT


def retry_after_s(expected_s: float) -> int:
    """Return the Retry-After for an engine that is expected in ``expected_s`` seconds.

    All of them, not a share: as the engine comes nearer, shares of what is left shrink, and the
    client's tries are used up before it is there.
    """
    return math.ceil(min(_LATEST_S, max(_SOONEST_S, expected_s)))
