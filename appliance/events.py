"""What happens to the engine (events), and what must be done about it (effects). Pure values.

Events from a child carry the spawn number they speak of. ``at`` is a moment in seconds since
boot; ``jitter`` is drawn by whoever sends the event, 0 to 1.
"""

from dataclasses import dataclass

from appliance.restart import Reason

BY_OPERATOR = Reason("stopped_by_operator")
APPLIANCE_ENDS = Reason("appliance_ends")
IDLE = Reason("idle", "nobody asked for anything in a while", "the next request starts it")


@dataclass(frozen=True)
class StartRequested:
    """An operator, a request, or the start of the appliance wants the engine up."""


@dataclass(frozen=True)
class StopRequested:
    """Somebody wants the engine down, now."""

    reason: Reason = BY_OPERATOR


@dataclass(frozen=True)
class DrainRequested:
    """Somebody wants the engine down once what runs has ended."""

    reason: Reason = BY_OPERATOR


@dataclass(frozen=True)
class RestartRequested:
    """An operator wants the engine down once what runs has ended, and then up again."""


@dataclass(frozen=True)
class ResetRequested:
    """An operator has dealt with the cause: forget the failures, and start."""


@dataclass(frozen=True)
class Idled:
    """Nothing runs any more."""


@dataclass(frozen=True)
class Prepared:
    """Model folder, port and plan are ready; the child may be started."""

    spawn: int
    at: float


@dataclass(frozen=True)
class PrepareFailed:
    """The plan cannot be made: no model, no memory, no program."""

    spawn: int
    reason: Reason
    at: float
    jitter: float = 0.0


@dataclass(frozen=True)
class Progressed:
    """The loading child has worked: a line, bytes, or processor time."""

    spawn: int
    at: float


@dataclass(frozen=True)
class BecameReady:
    """The engine answers and passed (or visibly failed) its warm-up."""

    spawn: int


@dataclass(frozen=True)
class Exited:
    """The child is gone, with its whole process tree."""

    spawn: int
    reason: Reason
    at: float
    jitter: float = 0.0


@dataclass(frozen=True)
class Wedged:
    """The engine holds requests and does nothing for them."""

    spawn: int
    reason: Reason


@dataclass(frozen=True)
class RanShort:
    """Memory stays under the kill floor: the engine must go, in order, and come back smaller."""

    spawn: int
    reason: Reason


@dataclass(frozen=True)
class RanOut:
    """Memory was about to be gone: the engine has been sent SIGKILL already."""

    spawn: int
    reason: Reason


@dataclass(frozen=True)
class DeadlinePassed:
    """The state's timer ran out. ``armed`` names the arming that it belongs to."""

    armed: int
    at: float
    jitter: float = 0.0


OfAChild = Prepared | PrepareFailed | Progressed | BecameReady | Exited | Wedged | RanShort | RanOut
Event = (
    StartRequested
    | StopRequested
    | DrainRequested
    | RestartRequested
    | ResetRequested
    | Idled
    | OfAChild
    | DeadlinePassed
)


# ---- effects: imperative


@dataclass(frozen=True)
class Prepare:
    """Wait until memory is back, look at the model folder, make the plan of this rung."""

    spawn: int
    rung: int


@dataclass(frozen=True)
class Spawn:
    """Start the child."""

    spawn: int


@dataclass(frozen=True)
class Terminate:
    """Ask the child to end (SIGTERM)."""


@dataclass(frozen=True)
class Kill:
    """End the child's whole tree (SIGKILL)."""


Effect = Prepare | Spawn | Terminate | Kill
