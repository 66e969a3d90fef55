"""The engine's life cycle as a pure machine: ``step(machine, event) -> machine, effects``.

Laws (held by property tests): a child exists exactly in ALIVE; Spawn never happens with a child
alive; every state outside SETTLED has a deadline; an exit that nobody asked for is a failure,
whatever its code, because vLLM exits 0 when its engine core dies.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum


class EngineState(StrEnum):
    """Where the engine is in its life."""

    STOPPED = "stopped"
    PREPARING = "preparing"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"


SETTLED = frozenset({EngineState.STOPPED, EngineState.READY, EngineState.FAILED})
ALIVE = frozenset(
    {EngineState.STARTING, EngineState.READY, EngineState.DRAINING, EngineState.STOPPING}
)


class Grade(StrEnum):
    """What a cause of failure says about another try."""

    PERMANENT = "permanent"  # the same again would fail the same way
    TRANSIENT = "transient"  # it may work
    MEMORY = "memory"  # it may work with a safer plan


@dataclass(frozen=True)
class Reason:
    """Why the engine is in its state: a stable code, the values, and what to type next.

    ``grade`` matters for reasons of failure alone.
    """

    code: str
    what: str = ""
    hint: str = ""
    grade: Grade = Grade.TRANSIENT


# ---- events: past tense; those from a child carry the spawn number they speak of


@dataclass(frozen=True)
class StartRequested:
    """An operator, or the start of the appliance, wants the engine up."""


@dataclass(frozen=True)
class StopRequested:
    """An operator, or the end of the appliance, wants the engine down."""


@dataclass(frozen=True)
class Prepared:
    """Model folder, port and plan are ready; the child may be started."""

    spawn: int


@dataclass(frozen=True)
class PrepareFailed:
    """The plan cannot be made: no model, no memory, no program."""

    spawn: int
    reason: Reason


@dataclass(frozen=True)
class BecameReady:
    """The engine answers and passed (or visibly failed) its warm-up."""

    spawn: int


@dataclass(frozen=True)
class Exited:
    """The child is gone, with its whole process group."""

    spawn: int
    reason: Reason


@dataclass(frozen=True)
class DeadlinePassed:
    """The state's timer ran out. ``entered`` names the state entry that armed it."""

    entered: int


Event = (
    StartRequested
    | StopRequested
    | Prepared
    | PrepareFailed
    | BecameReady
    | Exited
    | DeadlinePassed
)


# ---- effects: imperative


@dataclass(frozen=True)
class Prepare:
    """Look at the model folder and make the plan."""

    spawn: int


@dataclass(frozen=True)
class Spawn:
    """Start the child."""

    spawn: int


@dataclass(frozen=True)
class Terminate:
    """Ask the child's group to end (SIGTERM)."""


@dataclass(frozen=True)
class Kill:
    """End the child's group (SIGKILL)."""


Effect = Prepare | Spawn | Terminate | Kill


@dataclass(frozen=True)
class Policy:
    """Lengths in seconds."""

    prepare_s: float = 60.0
    start_s: float = 3600.0
    stop_s: float = 20.0
    stop_loading_s: float = 5.0  # vLLM loses a SIGTERM while it loads, and nothing is to be saved
    reap_s: float = 10.0


@dataclass(frozen=True)
class Machine:
    """The whole memory of the life cycle.

    ``entered`` counts state entries, so that a timer of an earlier entry is known as stale.
    ``killed`` says that STOPPING has already gone from SIGTERM to SIGKILL. ``again`` says that a
    start was asked for while stopping. ``pending`` is the failure that a stop will end in.
    """

    state: EngineState = EngineState.STOPPED
    reason: Reason = field(default_factory=lambda: Reason("not_started"))
    spawn: int = 0
    entered: int = 0
    deadline_s: float | None = None
    killed: bool = False
    again: bool = False
    pending: Reason | None = None


def step(machine: Machine, event: Event, policy: Policy) -> tuple[Machine, list[Effect]]:
    """Return the next machine and what the supervisor must do, in order.

    A stale event (of an earlier spawn, or a timer of an earlier state) changes nothing.
    """
    if isinstance(event, Prepared | PrepareFailed | BecameReady | Exited):
        if event.spawn != machine.spawn:
            return machine, []
    elif isinstance(event, DeadlinePassed) and event.entered != machine.entered:
        return machine, []
    state = machine.state
    match event:
        case StartRequested():
            return _start(machine, policy)
        case StopRequested():
            return _stop(machine, policy)
        case Prepared() if state is EngineState.PREPARING:
            effect = Spawn(machine.spawn)
            return _enter(machine, EngineState.STARTING, Reason("loading"), policy.start_s), [
                effect
            ]
        case PrepareFailed(reason=reason) if state is EngineState.PREPARING:
            return _enter(machine, EngineState.FAILED, reason, None), []
        case BecameReady() if state is EngineState.STARTING:
            return _enter(machine, EngineState.READY, Reason("ready"), None), []
        case Exited(reason=reason) if state in ALIVE:
            return _exited(machine, reason, policy)
        case DeadlinePassed():
            return _overdue(machine, policy)
    return machine, []


def _enter(
    machine: Machine, state: EngineState, reason: Reason, deadline_s: float | None
) -> Machine:
    return replace(
        machine,
        state=state,
        reason=reason,
        deadline_s=deadline_s,
        entered=machine.entered + 1,
        killed=False,
    )


def _prepare(machine: Machine, policy: Policy) -> tuple[Machine, list[Effect]]:
    fresh = replace(machine, spawn=machine.spawn + 1, again=False, pending=None)
    entered = _enter(fresh, EngineState.PREPARING, Reason("preparing"), policy.prepare_s)
    return entered, [Prepare(entered.spawn)]


def _start(machine: Machine, policy: Policy) -> tuple[Machine, list[Effect]]:
    if machine.state in (EngineState.STOPPED, EngineState.FAILED):
        return _prepare(machine, policy)
    if machine.state is EngineState.STOPPING:
        return replace(machine, again=True), []
    return machine, []


def _stop(machine: Machine, policy: Policy) -> tuple[Machine, list[Effect]]:
    match machine.state:
        case EngineState.PREPARING | EngineState.FAILED:
            return _enter(machine, EngineState.STOPPED, Reason("stopped_by_operator"), None), []
        case EngineState.STARTING | EngineState.READY | EngineState.DRAINING:
            return _terminate(machine, Reason("stopping"), policy)
        case EngineState.STOPPING:  # the last word counts; and a failure on its way is forgiven
            return replace(machine, again=False, pending=None), []
    return machine, []


def _terminate(machine: Machine, reason: Reason, policy: Policy) -> tuple[Machine, list[Effect]]:
    loading = machine.state is EngineState.STARTING
    grace_s = policy.stop_loading_s if loading else policy.stop_s
    return _enter(machine, EngineState.STOPPING, reason, grace_s), [Terminate()]


def _exited(machine: Machine, reason: Reason, policy: Policy) -> tuple[Machine, list[Effect]]:
    if machine.state is not EngineState.STOPPING:
        return _enter(machine, EngineState.FAILED, reason, None), []
    if machine.again:
        return _prepare(machine, policy)
    if machine.pending:
        failed = _enter(machine, EngineState.FAILED, machine.pending, None)
        return replace(failed, pending=None), []
    return _enter(machine, EngineState.STOPPED, Reason("stopped_by_operator"), None), []


def _overdue(machine: Machine, policy: Policy) -> tuple[Machine, list[Effect]]:
    match machine.state:
        case EngineState.PREPARING:
            reason = Reason("prepare_timeout", f"not prepared within {policy.prepare_s:.0f} s")
            return _enter(machine, EngineState.FAILED, reason, None), []
        case EngineState.STARTING:
            what = f"the engine was not ready within {policy.start_s:.0f} s"
            reason = Reason("start_timeout", what, "appliance status shows its last lines")
            stopping, effects = _terminate(machine, reason, policy)
            return replace(stopping, pending=reason), effects
        case EngineState.STOPPING:
            # SIGKILL cannot be refused, but the kernel may take its time: ask again until gone.
            entered = _enter(machine, EngineState.STOPPING, machine.reason, policy.reap_s)
            return replace(entered, killed=True), [Kill()]
    return machine, []
