"""The life cycle's laws, over random histories, and its single transitions by name."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.lifecycle import (
    ALIVE,
    SETTLED,
    BecameReady,
    DeadlinePassed,
    Effect,
    EngineState,
    Event,
    Exited,
    Kill,
    Machine,
    Policy,
    Prepare,
    Prepared,
    PrepareFailed,
    Reason,
    Spawn,
    StartRequested,
    StopRequested,
    Terminate,
    step,
)

POLICY = Policy(prepare_s=6, start_s=5, stop_s=4, stop_loading_s=3, reap_s=2)
DIED = Reason("engine_died", "it died")
S = EngineState


@dataclass
class World:
    """A machine, and the child that its effects and the exits make and unmake."""

    machine: Machine = field(default_factory=Machine)
    child: int | None = None
    prepared: list[int] = field(default_factory=list)

    def send(self, event: Event) -> list[Effect]:
        """Let ``event`` happen; check the laws that hold after every step."""
        if isinstance(event, Exited) and event.spawn == self.child:
            self.child = None
        self.machine, effects = step(self.machine, event, POLICY)
        for effect in effects:
            self._act(effect)
        assert (self.child is not None) == (self.machine.state in ALIVE)
        assert (self.machine.deadline_s is None) == (self.machine.state in SETTLED)
        if self.machine.state is not S.STOPPING:
            stop_only = (self.machine.killed, self.machine.again, self.machine.pending)
            assert stop_only == (False, False, None), "what a stop remembers ends with it"
        return effects

    def _act(self, effect: Effect) -> None:
        match effect:
            case Prepare(spawn=number):
                assert self.child is None
                assert number not in self.prepared, "a spawn number stands for one start"
                self.prepared.append(number)
            case Spawn(spawn=number):
                assert self.child is None, "Spawn with a child alive"
                assert number == self.prepared[-1]
                self.child = number
            case Terminate() | Kill():
                assert self.child is not None, "a signal to nobody"

    def send_all(self, *events: Event) -> "World":
        """Let ``events`` happen one after another."""
        for event in events:
            self.send(event)
        return self

    def event(self, kind: type[Event], late: int) -> Event:
        """Make an event of ``kind``, ``late`` spawns or state entries behind the machine."""
        spawn = self.machine.spawn - late
        if kind in (StartRequested, StopRequested):
            return StartRequested() if kind is StartRequested else StopRequested()
        if kind is DeadlinePassed:
            return DeadlinePassed(self.machine.entered - late)
        if kind is Prepared:
            return Prepared(spawn)
        if kind is BecameReady:
            return BecameReady(spawn)
        return PrepareFailed(spawn, DIED) if kind is PrepareFailed else Exited(spawn, DIED)


KINDS: list[type[Event]] = [
    *(StartRequested, StopRequested, Prepared, PrepareFailed),
    *(BecameReady, Exited, DeadlinePassed),
]
# Mostly events of now, so that histories get somewhere; the rest are stale, or from nowhere.
HISTORIES = st.lists(
    st.tuples(st.sampled_from(KINDS), st.sampled_from([0, 0, 0, 0, 1, 2, -1])), max_size=60
)


def after(history: list[tuple[type[Event], int]]) -> World:
    world = World()
    for kind, late in history:
        world.send(world.event(kind, late))
    return world


def at(state: EngineState) -> World:
    """A world whose engine is in ``state``, its first spawn where there is one."""
    up: dict[EngineState, tuple[Event, ...]] = {
        S.STOPPED: (),
        S.PREPARING: (StartRequested(),),
        S.STARTING: (StartRequested(), Prepared(1)),
        S.READY: (StartRequested(), Prepared(1), BecameReady(1)),
        S.STOPPING: (StartRequested(), Prepared(1), BecameReady(1), StopRequested()),
        S.FAILED: (StartRequested(), PrepareFailed(1, DIED)),
    }
    world = World().send_all(*up[state])
    assert world.machine.state is state
    return world


REACHABLE = (S.STOPPED, S.PREPARING, S.STARTING, S.READY, S.STOPPING, S.FAILED)


# ---- laws


@given(HISTORIES)
def test_the_laws_hold_after_any_history(history: list[tuple[type[Event], int]]) -> None:
    world = after(history)  # World.send holds them at every step
    assert world.machine.state in REACHABLE


@given(HISTORIES, st.integers(min_value=0, max_value=4))
def test_a_stop_ends_stopped_whatever_came_before(
    history: list[tuple[type[Event], int]], deadlines: int
) -> None:
    world = after(history)
    world.send(StopRequested())
    for _ in range(deadlines):
        if world.machine.state is not S.STOPPED:
            assert world.send(world.event(DeadlinePassed, 0)) == [Kill()]
    if world.child is not None:
        world.send(Exited(world.child, DIED))
    assert world.machine.state is S.STOPPED
    assert world.child is None


@given(HISTORIES)
def test_a_start_can_always_come_to_ready(history: list[tuple[type[Event], int]]) -> None:
    world = after(history)
    world.send(StartRequested())
    if world.machine.state is S.STOPPING:
        world.send(world.event(Exited, 0))
    if world.machine.state is S.PREPARING:
        world.send(world.event(Prepared, 0))
    if world.machine.state is S.STARTING:
        world.send(world.event(BecameReady, 0))
    assert world.machine.state is S.READY


@given(HISTORIES, st.sampled_from([Prepared, PrepareFailed, BecameReady, Exited]), st.integers())
def test_an_event_of_another_spawn_changes_nothing(
    history: list[tuple[type[Event], int]], kind: type[Event], late: int
) -> None:
    world = after(history)
    before = world.machine
    assert late == 0 or world.send(world.event(kind, late)) == []
    assert world.machine == before


@given(HISTORIES, st.integers().filter(bool))
def test_a_timer_of_another_entry_changes_nothing(
    history: list[tuple[type[Event], int]], late: int
) -> None:
    world = after(history)
    before = world.machine
    assert world.send(DeadlinePassed(before.entered - late)) == []
    assert world.machine == before


@given(HISTORIES, st.sampled_from(KINDS))
def test_every_change_of_state_is_counted_as_an_entry(
    history: list[tuple[type[Event], int]], kind: type[Event]
) -> None:
    world = after(history)
    before = world.machine
    world.send(world.event(kind, 0))
    assert world.machine.entered >= before.entered
    if world.machine.state is not before.state:
        assert world.machine.entered == before.entered + 1


# ---- exits


@pytest.mark.parametrize("state", sorted(ALIVE - {S.STOPPING}))
@pytest.mark.parametrize("code", ["exit code 0", "exit code 1", "signal 9"])
def test_an_exit_that_nobody_asked_for_is_a_failure_whatever_its_code(
    state: EngineState, code: str
) -> None:
    reason = Reason("engine_died", f"the engine ended ({code})")
    machine, effects = step(Machine(state=state, spawn=3), Exited(3, reason), POLICY)
    assert machine.state is S.FAILED
    assert machine.reason == reason
    assert effects == []


def test_an_exit_that_was_asked_for_is_a_stop() -> None:
    world = at(S.STOPPING).send_all(Exited(1, DIED))
    assert world.machine.state is S.STOPPED
    assert world.machine.reason.code == "stopped_by_operator"


# ---- starts and stops that cross


def test_a_start_during_stop_starts_again() -> None:
    world = at(S.STOPPING).send_all(StartRequested())
    stopping = world.machine
    assert stopping.state is S.STOPPING
    assert world.send(Exited(1, DIED)) == [Prepare(2)]
    assert world.machine.state is S.PREPARING


def test_a_stop_after_that_start_forgets_the_start() -> None:
    world = at(S.STOPPING).send_all(StartRequested(), StopRequested(), Exited(1, DIED))
    assert world.machine.state is S.STOPPED
    assert not world.machine.again


def test_a_start_asked_for_twice_during_stop_starts_once() -> None:
    world = at(S.STOPPING).send_all(StartRequested(), StartRequested(), Exited(1, DIED))
    world.send_all(Prepared(2), BecameReady(2), StopRequested(), Exited(2, DIED))
    assert world.machine.state is S.STOPPED


@pytest.mark.parametrize("state", [S.PREPARING, S.STARTING, S.READY])
def test_a_start_while_one_is_up_or_coming_changes_nothing(state: EngineState) -> None:
    world = at(state)
    before = world.machine
    assert world.send(StartRequested()) == []
    assert world.machine == before


@pytest.mark.parametrize("state", [S.STOPPED, S.FAILED])
def test_a_start_without_a_child_prepares_a_new_spawn(state: EngineState) -> None:
    world = at(state)
    number = world.machine.spawn + 1
    assert world.send(StartRequested()) == [Prepare(number)]


def test_a_stop_while_preparing_spawns_nothing_even_when_the_plan_comes() -> None:
    world = at(S.PREPARING).send_all(StopRequested())
    assert world.machine.state is S.STOPPED
    assert world.send(Prepared(1)) == []


def test_a_stop_takes_back_a_failure() -> None:
    world = at(S.FAILED).send_all(StopRequested())
    assert world.machine.reason.code == "stopped_by_operator"


def test_ready_during_stop_comes_too_late() -> None:
    world = at(S.STARTING).send_all(StopRequested(), BecameReady(1))
    assert world.machine.state is S.STOPPING


# ---- deadlines


def test_a_stop_while_loading_waits_less_than_one_while_serving() -> None:
    loading = at(S.STARTING).send_all(StopRequested()).machine
    serving = at(S.READY).send_all(StopRequested()).machine
    assert (loading.deadline_s, serving.deadline_s) == (POLICY.stop_loading_s, POLICY.stop_s)


def test_a_stop_goes_from_terminate_to_kill_and_kills_until_gone() -> None:
    world = at(S.READY)
    assert world.send(StopRequested()) == [Terminate()]
    for _ in range(3):
        assert world.send(world.event(DeadlinePassed, 0)) == [Kill()]
        assert world.machine.killed
        assert world.machine.deadline_s == POLICY.reap_s


def test_an_engine_that_is_never_ready_is_stopped_and_then_failed() -> None:
    world = at(S.STARTING)
    assert world.send(world.event(DeadlinePassed, 0)) == [Terminate()]
    stopping = world.machine
    assert stopping.state is S.STOPPING
    world.send(Exited(1, DIED))
    assert world.machine.state is S.FAILED
    assert world.machine.reason.code == "start_timeout"
    assert "5 s" in world.machine.reason.what
    assert world.machine.reason.hint


def test_a_stop_forgives_a_start_that_took_too_long() -> None:
    world = at(S.STARTING)
    world.send_all(world.event(DeadlinePassed, 0), StopRequested(), Exited(1, DIED))
    assert world.machine.state is S.STOPPED


def test_a_start_after_a_start_that_took_too_long_starts_clean() -> None:
    world = at(S.STARTING)
    world.send_all(world.event(DeadlinePassed, 0), StartRequested(), Exited(1, DIED))
    world.send_all(Prepared(2), BecameReady(2))
    assert world.machine.state is S.READY
    assert world.machine.pending is None


def test_a_preparation_that_hangs_is_a_failure() -> None:
    world = at(S.PREPARING)
    world.send(world.event(DeadlinePassed, 0))
    assert world.machine.state is S.FAILED
    assert world.machine.reason.code == "prepare_timeout"


def test_a_preparation_that_fails_says_why() -> None:
    assert at(S.FAILED).machine.reason == DIED


@pytest.mark.parametrize("state", sorted(SETTLED))
def test_no_timer_moves_a_settled_state(state: EngineState) -> None:
    before = at(state).machine
    assert step(before, DeadlinePassed(before.entered), POLICY) == (before, [])


def test_settled_and_alive_are_what_the_architecture_says() -> None:
    assert {S.STOPPED, S.READY, S.FAILED} == SETTLED
    assert {S.STARTING, S.READY, S.DRAINING, S.STOPPING} == ALIVE


def test_a_step_does_not_touch_the_machine_that_it_was_given() -> None:
    before = at(S.READY).machine
    copy = replace(before)
    step(before, StopRequested(), POLICY)
    assert before == copy
