"""The engine's life cycle as a pure machine: ``step(machine, event) -> machine, effects``.

Laws (held by property tests): a child exists exactly in ALIVE; Spawn never happens with a child
alive; every state outside SETTLED has a deadline; an exit that nobody asked for is a failure,
whatever its code, because vLLM exits 0 when its engine core dies; restarts never exceed the
policy of ``restart.py``.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from appliance.events import (
    BY_OPERATOR,
    BecameReady,
    DeadlinePassed,
    DrainRequested,
    Effect,
    Event,
    Exited,
    Idled,
    Kill,
    OfAChild,
    Prepare,
    Prepared,
    PrepareFailed,
    Progressed,
    RanOut,
    RanShort,
    ResetRequested,
    RestartRequested,
    Spawn,
    StartRequested,
    StopRequested,
    Terminate,
    Wedged,
)
from appliance.restart import GiveUp, History, Reason, RestartPolicy, judge, warned


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
_SERVING = (EngineState.READY, EngineState.DRAINING)


@dataclass(frozen=True)
class Policy:
    """Lengths in seconds. A start ends after ``quiet_s`` without progress, or after ``start_s``."""

    prepare_s: float = 150.0
    start_s: float = 3600.0
    quiet_s: float = 600.0
    drain_s: float = 120.0
    stop_s: float = 20.0
    stop_loading_s: float = 5.0  # vLLM loses a SIGTERM while it loads, and nothing is to be saved
    reap_s: float = 10.0
    restart: RestartPolicy = field(default_factory=RestartPolicy)


@dataclass(frozen=True)
class Machine:
    """The whole memory of the life cycle.

    ``armed`` counts the timers, so that an earlier one is known as stale. While the engine goes
    down: ``again`` says that it shall come up afterwards, ``pending`` is the failure that the
    stop was for, ``goal`` is the reason of the STOPPED it ends in otherwise.
    """

    state: EngineState = EngineState.STOPPED
    reason: Reason = field(default_factory=lambda: Reason("not_started"))
    spawn: int = 0
    armed: int = 0
    deadline_s: float | None = None
    started_at: float = 0.0
    killed: bool = False
    again: bool = False
    pending: Reason | None = None
    goal: Reason = BY_OPERATOR
    history: History = field(default_factory=History)


Stepped = tuple[Machine, list[Effect]]


def step(machine: Machine, event: Event, policy: Policy) -> Stepped:
    """Return the next machine and what the supervisor must do, in order.

    A stale event (of an earlier spawn, or an earlier timer) changes nothing.
    """
    if isinstance(event, OfAChild):
        if event.spawn != machine.spawn:
            return machine, []
    elif isinstance(event, DeadlinePassed) and event.armed != machine.armed:
        return machine, []
    state = machine.state
    match event:
        case StartRequested():
            return _start(machine, policy)
        case StopRequested(reason=reason):
            return _stop(machine, reason, policy)
        case DrainRequested(reason=reason) if state is EngineState.READY:
            return _drain(machine, "draining", reason, policy)
        case DrainRequested(reason=reason) if state is EngineState.DRAINING:
            return replace(machine, again=False, goal=reason), []
        case DrainRequested(reason=reason):
            return _stop(machine, reason, policy)
        case RestartRequested():
            return _restart(machine, policy)
        case ResetRequested():
            return _start(replace(machine, history=History()), policy)
        case Idled() if state is EngineState.DRAINING:
            return _terminate(machine, machine.reason, policy)
        case DeadlinePassed():
            return _overdue(machine, event, policy)
        case Exited(reason=reason) if state in ALIVE:
            return _exited(machine, event, policy)
        case Wedged(reason=reason) if state in _SERVING:
            return _kill(machine, reason, policy)
        case RanShort(reason=reason) if state in _SERVING:
            return _terminate(_owing(machine, reason, policy), reason, policy)
        case RanOut(reason=reason) if state in _SERVING or state is EngineState.STARTING:
            return _kill(machine, reason, policy)
        case RanOut(reason=reason) if state is EngineState.STOPPING:
            return _ran_out_late(machine, reason, policy), []
    return _of_a_start(machine, event, policy)


def _of_a_start(machine: Machine, event: Event, policy: Policy) -> Stepped:
    match event:
        case Prepared(at=at) if machine.state is EngineState.PREPARING:
            loading = replace(machine, started_at=at)
            quiet_s = min(policy.quiet_s, policy.start_s)
            entered = _enter(loading, EngineState.STARTING, Reason("loading"), quiet_s)
            return entered, [Spawn(machine.spawn)]
        case PrepareFailed() if machine.state is EngineState.PREPARING:
            return _failed(machine, event.reason, event, policy)
        case Progressed(at=at) if machine.state is EngineState.STARTING:
            left_s = max(0.0, policy.start_s - (at - machine.started_at))
            return _arm(machine, min(policy.quiet_s, left_s)), []
        case BecameReady() if machine.state is EngineState.STARTING:
            return _enter(machine, EngineState.READY, Reason("ready"), None), []
    return machine, []


def _arm(machine: Machine, deadline_s: float | None) -> Machine:
    return replace(machine, deadline_s=deadline_s, armed=machine.armed + 1)


def _enter(
    machine: Machine, state: EngineState, reason: Reason, deadline_s: float | None
) -> Machine:
    return _arm(replace(machine, state=state, reason=reason, killed=False), deadline_s)


def _settle(machine: Machine, state: EngineState, reason: Reason) -> Machine:
    """Enter a state without a child; what its stop was about is over."""
    return _enter(replace(machine, again=False, pending=None), state, reason, None)


def _prepare(machine: Machine, policy: Policy) -> Stepped:
    fresh = replace(machine, spawn=machine.spawn + 1, again=False, pending=None)
    entered = _enter(fresh, EngineState.PREPARING, Reason("preparing"), policy.prepare_s)
    return entered, [Prepare(entered.spawn, entered.history.rung)]


# ---- what people ask for


def _start(machine: Machine, policy: Policy) -> Stepped:
    match machine.state:
        case EngineState.STOPPED | EngineState.FAILED | EngineState.BACKOFF:
            if machine.history.gave_up is not None:
                return _settle(machine, EngineState.FAILED, machine.history.gave_up), []
            return _prepare(machine, policy)
        case EngineState.STOPPING:
            return replace(machine, again=True), []
        case EngineState.DRAINING:  # the engine is well: serve on
            return _enter(
                replace(machine, again=False), EngineState.READY, Reason("ready"), None
            ), []
    return machine, []


def _stop(machine: Machine, reason: Reason, policy: Policy) -> Stepped:
    match machine.state:
        case EngineState.PREPARING | EngineState.FAILED | EngineState.BACKOFF:
            return _settle(machine, EngineState.STOPPED, reason), []
        case EngineState.STOPPED:  # an engine that idles must not be started by a request
            return replace(machine, reason=reason), []
        case EngineState.STOPPING:  # the last word counts; and a failure on its way is forgiven
            return replace(machine, again=False, pending=None, goal=reason), []
    goal = replace(machine, again=False, goal=reason)
    return _terminate(goal, Reason("stopping"), policy)


def _drain(machine: Machine, code: str, goal: Reason, policy: Policy) -> Stepped:
    aimed = replace(machine, goal=goal)
    return _enter(aimed, EngineState.DRAINING, Reason(code), policy.drain_s), []


def _restart(machine: Machine, policy: Policy) -> Stepped:
    match machine.state:
        case EngineState.READY:
            return _drain(replace(machine, again=True), "restarting", BY_OPERATOR, policy)
        case EngineState.DRAINING | EngineState.STOPPING:
            return replace(machine, again=True), []
        case EngineState.STARTING:
            return _terminate(replace(machine, again=True), Reason("restarting"), policy)
    return _start(machine, policy)


# ---- the ends


def _terminate(machine: Machine, reason: Reason, policy: Policy) -> Stepped:
    loading = machine.state is EngineState.STARTING
    grace_s = policy.stop_loading_s if loading else policy.stop_s
    return _enter(machine, EngineState.STOPPING, reason, grace_s), [Terminate()]


def _owing(machine: Machine, reason: Reason, policy: Policy) -> Machine:
    """Return the machine with ``reason`` as the failure that its stop is for, if it is wanted."""
    if machine.again or machine.state is not EngineState.DRAINING:
        return replace(machine, pending=reason)
    return replace(machine, pending=None, history=warned(machine.history, reason, policy.restart))


def _ran_out_late(machine: Machine, reason: Reason, policy: Policy) -> Machine:
    """Return the machine after an emergency while the engine was on its way down already."""
    if machine.pending is not None:
        return replace(machine, pending=reason)
    return replace(machine, history=warned(machine.history, reason, policy.restart))


def _kill(machine: Machine, reason: Reason, policy: Policy) -> Stepped:
    # SIGTERM is not tried: such an engine does not answer it, and holds the memory meanwhile
    owing = _owing(machine, reason, policy)
    stopping = _enter(owing, EngineState.STOPPING, reason, policy.reap_s)
    return replace(stopping, killed=True), [Kill()]


def _exited(machine: Machine, event: Exited, policy: Policy) -> Stepped:
    match machine.state:
        case EngineState.STARTING | EngineState.READY:
            return _failed(machine, event.reason, event, policy)
        case EngineState.DRAINING if machine.again:
            return _failed(machine, event.reason, event, policy)
        case EngineState.STOPPING if machine.pending is not None:
            return _failed(machine, machine.pending, event, policy)
        case EngineState.STOPPING if machine.again:
            return _prepare(machine, policy)
    return _settle(machine, EngineState.STOPPED, machine.goal), []


def _failed(
    machine: Machine, reason: Reason, event: Exited | PrepareFailed | DeadlinePassed, policy: Policy
) -> Stepped:
    history, verdict = judge(machine.history, reason, event.at, event.jitter, policy.restart)
    after = replace(machine, history=history, again=False, pending=None)
    if isinstance(verdict, GiveUp):
        return _settle(after, EngineState.FAILED, verdict.reason), []
    return _enter(after, EngineState.BACKOFF, reason, verdict.wait_s), []


def _overdue(machine: Machine, event: DeadlinePassed, policy: Policy) -> Stepped:
    match machine.state:
        case EngineState.PREPARING:
            reason = Reason("prepare_timeout", f"not prepared within {policy.prepare_s:.0f} s")
            return _failed(machine, reason, event, policy)
        case EngineState.STARTING:
            reason = _overdue_start(machine, event.at, policy)
            stopping, effects = _terminate(machine, reason, policy)
            return replace(stopping, pending=reason), effects
        case EngineState.DRAINING:
            return _terminate(machine, machine.reason, policy)
        case EngineState.BACKOFF:
            return _prepare(machine, policy)
        case EngineState.STOPPING:
            # SIGKILL cannot be refused, but the kernel may take its time: ask again until gone.
            entered = _enter(machine, EngineState.STOPPING, machine.reason, policy.reap_s)
            return replace(entered, killed=True), [Kill()]
    return machine, []


def _overdue_start(machine: Machine, at: float, policy: Policy) -> Reason:
    hint = "appliance status --lines 50 shows its last lines"
    if at - machine.started_at < policy.start_s - 1e-6:
        what = (
            f"the engine showed no progress for {policy.quiet_s:.0f} s while loading: no line, "
            "no bytes, no processor time"
        )
        return Reason("start_stalled", what, hint)
    what = f"the engine was not ready within {policy.start_s:.0f} s"
    return Reason("start_timeout", what, hint)
