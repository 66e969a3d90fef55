"""The life cycle's laws, over random histories, and its single transitions by name."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.events import (
    BY_OPERATOR,
    IDLE,
    BecameReady,
    DeadlinePassed,
    DrainRequested,
    Effect,
    Event,
    Exited,
    Idled,
    Kill,
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
from appliance.lifecycle import ALIVE, SETTLED, EngineState, Machine, Policy, step
from appliance.restart import Grade, History, Reason, RestartPolicy

RESTART = RestartPolicy(backoff_s=1, backoff_cap_s=3, max_failures=3, window_s=100, rungs=3)
POLICY = Policy(
    prepare_s=6, start_s=50, quiet_s=5, drain_s=7, stop_s=4, stop_loading_s=3, reap_s=2,
    restart=RESTART,
)  # fmt: skip
DIED = Reason("engine_died", "it died")
SHORT = Reason("memory_short", "too little", grade=Grade.MEMORY)
WRONG = Reason("bad_engine_flag", "no such flag", grade=Grade.PERMANENT)
WEDGED = Reason("wedged", "no token in 5 s")
S = EngineState


@dataclass
class World:
    """A machine, and the child that its effects and the exits make and unmake."""

    machine: Machine = field(default_factory=Machine)
    now: float = 1000.0
    child: int | None = None
    prepared: list[int] = field(default_factory=list)
    automatic: list[float] = field(default_factory=list)  # moments of unasked-for starts

    def send(self, event: Event) -> list[Effect]:
        """Let ``event`` happen; check the laws that hold after every step."""
        if isinstance(event, Exited) and event.spawn == self.child:
            self.child = None
        if isinstance(event, ResetRequested):
            self.automatic.clear()
        was = self.machine.state
        self.machine, effects = step(self.machine, event, POLICY)
        for effect in effects:
            self._act(effect)
            if isinstance(effect, Prepare) and was is S.BACKOFF and _is_timer(event):
                self.automatic.append(self.now)
        machine = self.machine
        assert (self.child is not None) == (machine.state in ALIVE)
        assert (machine.deadline_s is None) == (machine.state in SETTLED)
        if machine.state not in (S.STOPPING, S.DRAINING):
            assert (machine.killed, machine.again, machine.pending) == (False, False, None), (
                "what a stop remembers ends with it"
            )
        in_window = [at for at in self.automatic if self.now - at < RESTART.window_s]
        assert len(in_window) < RESTART.max_failures, "restarts exceed the policy"
        if machine.history.gave_up:
            assert machine.state in (S.FAILED, S.STOPPED), "a start after giving up"
        return effects

    def _act(self, effect: Effect) -> None:
        match effect:
            case Prepare(spawn=number, rung=rung):
                assert self.child is None
                assert number not in self.prepared, "a spawn number stands for one start"
                assert 0 <= rung < RESTART.rungs
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

    def overdue(self, after_s: float | None = None) -> list[Effect]:
        """Let the armed deadline pass."""
        assert self.machine.deadline_s is not None
        self.now += self.machine.deadline_s if after_s is None else after_s
        return self.send(DeadlinePassed(self.machine.armed, self.now))

    def die(self, reason: Reason = DIED) -> list[Effect]:
        """Let the child die."""
        return self.send(Exited(self.machine.spawn, reason, self.now))

    def come_up(self) -> "World":
        """Go from PREPARING to READY."""
        number = self.machine.spawn
        return self.send_all(Prepared(number, self.now), BecameReady(number))

    def event(self, kind: type[Event], late: int, reason: Reason = DIED) -> Event:
        """Make an event of ``kind``, ``late`` spawns or timers behind the machine."""
        spawn = self.machine.spawn - late
        if kind in PLAIN:
            return kind()  # type: ignore[call-arg]
        if kind is DeadlinePassed:
            return DeadlinePassed(self.machine.armed - late, self.now)
        if kind is Prepared:
            return Prepared(spawn, self.now)
        if kind is Progressed:
            return Progressed(spawn, self.now)
        if kind is BecameReady:
            return BecameReady(spawn)
        if kind is Wedged:
            return Wedged(spawn, WEDGED)
        if kind is RanShort:
            return RanShort(spawn, SHORT)
        if kind is RanOut:
            return RanOut(spawn, SHORT)
        failed = PrepareFailed if kind is PrepareFailed else Exited
        return failed(spawn, reason, self.now)


def _is_timer(event: Event) -> bool:
    return isinstance(event, DeadlinePassed)


PLAIN: list[type[Event]] = [
    *(StartRequested, StopRequested, DrainRequested, RestartRequested, ResetRequested, Idled)
]
OF_A_CHILD: list[type[Event]] = [
    *(Prepared, PrepareFailed, Progressed, BecameReady, Exited, Wedged, RanShort, RanOut)
]
KINDS = [*PLAIN, *OF_A_CHILD, DeadlinePassed]
History_ = list[tuple[type[Event], int, Reason, float]]
# Mostly events of now, so that histories get somewhere; the rest are stale, or from nowhere.
# Starts, the way up and deaths stand more than once: without them nothing happens.
HISTORIES = st.lists(
    st.tuples(
        st.sampled_from([*KINDS, StartRequested, Prepared, BecameReady, Exited, DeadlinePassed]),
        st.sampled_from([0, 0, 0, 0, 0, 1, 2, -1]),
        st.sampled_from([DIED, DIED, SHORT, WRONG]),
        st.sampled_from([0.0, 0.5, 4.0, 60.0]),
    ),
    max_size=60,
)


def after(history: History_) -> World:
    world = World()
    for kind, late, reason, passed_s in history:
        world.now += passed_s
        world.send(world.event(kind, late, reason))
    return world


def at(state: EngineState) -> World:
    """A world whose engine is in ``state``, its first spawn where there is one."""
    world = World()
    if state is S.STOPPED:
        return world
    world.send(StartRequested())
    if state is S.FAILED:
        world.send(PrepareFailed(1, WRONG, world.now))
    if state in (S.STARTING, S.BACKOFF):
        world.send(Prepared(1, world.now))
    if state in (S.READY, S.STOPPING, S.DRAINING):
        world.come_up()
    if state is S.BACKOFF:
        world.die()
    if state is S.STOPPING:
        world.send(StopRequested())
    if state is S.DRAINING:
        world.send(DrainRequested())
    assert world.machine.state is state
    return world


# ---- laws


@given(HISTORIES)
def test_the_laws_hold_after_any_history(history: History_) -> None:
    after(history)  # World.send holds them at every step


@given(HISTORIES, st.integers(min_value=0, max_value=4))
def test_a_stop_ends_stopped_whatever_came_before(history: History_, deadlines: int) -> None:
    world = after(history)
    world.send(StopRequested())
    for _ in range(deadlines):
        if world.machine.state is not S.STOPPED:
            assert world.overdue() == [Kill()]
    if world.child is not None:
        world.die()
    assert world.machine.state is S.STOPPED
    assert world.child is None


@given(HISTORIES)
def test_a_drain_ends_stopped_whatever_came_before(history: History_) -> None:
    world = after(history)
    world.send_all(DrainRequested(), Idled())
    if world.child is not None:
        world.die()
    assert world.machine.state is S.STOPPED


@given(HISTORIES)
def test_a_reset_can_always_come_to_ready(history: History_) -> None:
    world = after(history)
    world.send(ResetRequested())
    if world.machine.state is S.STOPPING:
        world.die()
    if world.machine.state is S.BACKOFF:
        world.overdue()
    if world.machine.state is S.PREPARING:
        world.send(world.event(Prepared, 0))
    if world.machine.state is S.STARTING:
        world.send(world.event(BecameReady, 0))
    assert world.machine.state is S.READY


@given(HISTORIES, st.sampled_from(OF_A_CHILD), st.integers())
def test_an_event_of_another_spawn_changes_nothing(
    history: History_, kind: type[Event], late: int
) -> None:
    world = after(history)
    before = world.machine
    assert late == 0 or world.send(world.event(kind, late)) == []
    if late:
        assert world.machine == before


@given(HISTORIES, st.integers().filter(bool))
def test_a_timer_of_another_arming_changes_nothing(history: History_, late: int) -> None:
    world = after(history)
    before = world.machine
    assert world.send(DeadlinePassed(before.armed - late, world.now)) == []
    assert world.machine == before


@given(HISTORIES, st.sampled_from(KINDS))
def test_every_change_of_state_arms_anew(history: History_, kind: type[Event]) -> None:
    world = after(history)
    before = world.machine
    world.send(world.event(kind, 0))
    assert world.machine.armed >= before.armed
    if world.machine.state is not before.state:
        assert world.machine.armed == before.armed + 1


# ---- exits


@pytest.mark.parametrize("state", [S.STARTING, S.READY])
@pytest.mark.parametrize("code", ["exit code 0", "exit code 1", "signal 9"])
def test_an_exit_that_nobody_asked_for_is_a_failure_whatever_its_code(
    state: EngineState, code: str
) -> None:
    world = at(state)
    reason = Reason("engine_died", f"the engine ended ({code})")
    assert world.die(reason) == []
    assert (world.machine.state, world.machine.reason) == (S.BACKOFF, reason)
    assert world.machine.history.failures == (world.now,)


@pytest.mark.parametrize("state", [S.STARTING, S.READY])
def test_a_permanent_cause_fails_at_once_and_is_not_counted(state: EngineState) -> None:
    world = at(state)
    world.die(WRONG)
    assert (world.machine.state, world.machine.reason) == (S.FAILED, WRONG)
    assert world.machine.history == History()


def test_a_memory_death_takes_the_next_safer_plan_and_then_gives_up() -> None:
    world = at(S.READY)
    for rung in (1, 2):
        world.die(SHORT)
        assert world.overdue() == [Prepare(rung + 1, rung)]
        world.come_up()
        world.now += RESTART.window_s  # the breaker has nothing to do with it
    world.die(SHORT)
    assert world.machine.state is S.FAILED
    assert world.machine.reason.code == "gave_up"
    assert "safest plan" in world.machine.reason.what


def test_the_safer_plan_stays_in_force_for_later_starts() -> None:
    world = at(S.READY)
    world.die(SHORT)
    world.send_all(StopRequested())
    assert world.send(StartRequested()) == [Prepare(2, 1)]


def test_three_failures_in_the_window_give_up_until_a_reset() -> None:
    world = at(S.READY)
    for _ in range(2):
        world.die()
        world.overdue()
        world.come_up()
    world.die()
    gave_up = world.machine
    assert (gave_up.state, gave_up.reason.code) == (S.FAILED, "gave_up")
    assert "it died" in gave_up.reason.what
    assert "reset" in gave_up.reason.hint
    assert world.send(StartRequested()) == []
    assert world.machine.state is S.FAILED
    world.send_all(StopRequested(), StartRequested())
    assert world.machine.reason.code == "gave_up"
    assert world.send(ResetRequested()) == [Prepare(4, 0)]
    assert world.machine.history == History()


def test_failures_that_lie_far_apart_never_give_up() -> None:
    world = at(S.READY)
    for _ in range(10):
        world.die()
        assert world.machine.state is S.BACKOFF
        assert world.machine.deadline_s == RESTART.backoff_s
        world.overdue()
        world.come_up()
        world.now += RESTART.window_s


def test_an_exit_that_was_asked_for_is_a_stop() -> None:
    world = at(S.STOPPING)
    world.die()
    assert world.machine.state is S.STOPPED
    assert world.machine.reason == BY_OPERATOR
    assert world.machine.history.failures == ()


def test_a_death_while_draining_ends_the_drain() -> None:
    world = at(S.DRAINING)
    world.die()
    assert world.machine.state is S.STOPPED


# ---- wedge


def test_a_wedged_engine_is_killed_at_once_and_tried_again() -> None:
    world = at(S.READY)
    assert world.send(Wedged(1, WEDGED)) == [Kill()]
    assert world.machine.state is S.STOPPING
    world.die(Reason("engine_killed"))
    assert (world.machine.state, world.machine.reason) == (S.BACKOFF, WEDGED)


def test_a_wedge_found_while_draining_ends_in_the_stop_that_was_asked_for() -> None:
    world = at(S.DRAINING)
    assert world.send(Wedged(1, WEDGED)) == [Kill()]
    world.die()
    assert world.machine.state is S.STOPPED


@pytest.mark.parametrize("state", [S.STOPPED, S.PREPARING, S.STARTING, S.STOPPING, S.BACKOFF])
def test_a_wedge_is_believed_of_a_serving_engine_only(state: EngineState) -> None:
    world = at(state)
    before = world.machine
    assert world.send(Wedged(world.machine.spawn, WEDGED)) == []
    assert world.machine == before


# ---- memory


def test_an_engine_under_the_kill_floor_is_ended_in_order_and_comes_back_smaller() -> None:
    world = at(S.READY)
    assert world.send(RanShort(1, SHORT)) == [Terminate()]
    assert (world.machine.state, world.machine.reason) == (S.STOPPING, SHORT)
    world.die(Reason("exited"))
    assert (world.machine.state, world.machine.reason) == (S.BACKOFF, SHORT)
    assert world.overdue() == [Prepare(2, 1)]


def test_one_that_is_deaf_to_it_is_killed() -> None:
    world = at(S.READY).send_all(RanShort(1, SHORT))
    assert world.overdue() == [Kill()]


@pytest.mark.parametrize("state", [S.STARTING, S.READY])
def test_an_emergency_kills_a_loading_or_serving_engine(state: EngineState) -> None:
    world = at(state)
    assert world.send(RanOut(world.machine.spawn, SHORT)) == [Kill()]
    world.die(Reason("engine_killed"))
    assert (world.machine.state, world.machine.reason) == (S.BACKOFF, SHORT)
    assert world.machine.history.rung == 1


@pytest.mark.parametrize("event", [RanShort, RanOut])
def test_want_of_memory_while_draining_ends_in_the_stop_that_was_asked_for(
    event: type[RanShort | RanOut],
) -> None:
    world = at(S.DRAINING)
    assert world.send(event(1, SHORT))
    world.die()
    assert world.machine.state is S.STOPPED
    assert world.machine.history.rung == 1, "and the next start is smaller"


def test_an_emergency_on_the_way_down_to_a_restart_makes_it_smaller() -> None:
    world = at(S.STARTING)
    world.send(RestartRequested())
    assert world.machine.state is S.STOPPING
    assert world.send(RanOut(1, SHORT)) == []
    assert world.die() == [Prepare(2, 1)]


def test_an_emergency_takes_the_place_of_the_failure_that_the_stop_was_for() -> None:
    world = at(S.READY).send_all(Wedged(1, WEDGED), RanOut(1, SHORT))
    world.die(Reason("engine_killed"))
    assert (world.machine.state, world.machine.reason) == (S.BACKOFF, SHORT)
    assert world.machine.history.rung == 1


def test_the_rung_of_an_unwanted_engine_stays_on_the_ladder() -> None:
    world = at(S.DRAINING)
    world.machine = replace(world.machine, history=History(rung=RESTART.rungs - 1))
    world.send(RanOut(1, SHORT))
    assert world.machine.history.rung == RESTART.rungs - 1


@pytest.mark.parametrize("state", [S.STOPPED, S.PREPARING, S.STARTING, S.STOPPING, S.BACKOFF])
def test_the_debounced_floor_is_believed_of_a_serving_engine_only(state: EngineState) -> None:
    world = at(state)
    before = world.machine
    assert world.send(RanShort(world.machine.spawn, SHORT)) == []
    assert world.machine == before


# ---- drain and restart


def test_a_drain_waits_until_nothing_runs() -> None:
    world = at(S.READY)
    assert world.send(DrainRequested()) == []
    assert (world.machine.state, world.machine.deadline_s) == (S.DRAINING, POLICY.drain_s)
    assert world.send(Idled()) == [Terminate()]
    world.die()
    assert (world.machine.state, world.machine.reason) == (S.STOPPED, BY_OPERATOR)


def test_a_drain_has_a_deadline() -> None:
    assert at(S.DRAINING).overdue() == [Terminate()]


def test_a_stop_while_draining_ends_it_now() -> None:
    assert at(S.DRAINING).send(StopRequested()) == [Terminate()]


def test_a_start_while_draining_serves_on() -> None:
    world = at(S.DRAINING)
    assert world.send(StartRequested()) == []
    assert world.machine.state is S.READY


def test_a_restart_lets_what_runs_end_and_starts_again() -> None:
    world = at(S.READY)
    assert world.send(RestartRequested()) == []
    assert (world.machine.state, world.machine.reason.code) == (S.DRAINING, "restarting")
    world.send(Idled())
    assert world.die() == [Prepare(2, 0)]


def test_a_stop_takes_a_restart_back() -> None:
    world = at(S.READY).send_all(RestartRequested(), StopRequested())
    world.die()
    assert world.machine.state is S.STOPPED


def test_a_drain_takes_a_restart_back() -> None:
    world = at(S.READY).send_all(RestartRequested(), DrainRequested(), Idled())
    world.die()
    assert world.machine.state is S.STOPPED


def test_a_restart_while_loading_begins_anew() -> None:
    world = at(S.STARTING)
    assert world.send(RestartRequested()) == [Terminate()]
    assert world.die() == [Prepare(2, 0)]


def test_a_death_in_a_restart_is_a_failure_and_still_comes_back() -> None:
    world = at(S.READY).send_all(RestartRequested())
    world.die()
    assert world.machine.state is S.BACKOFF
    assert world.overdue() == [Prepare(2, 0)]


@pytest.mark.parametrize("state", [S.STOPPED, S.FAILED, S.BACKOFF])
def test_a_restart_without_a_child_is_a_start(state: EngineState) -> None:
    world = at(state)
    assert world.send(RestartRequested()) == [Prepare(world.machine.spawn, 0)]


def test_an_idle_stop_is_told_from_an_operators() -> None:
    world = at(S.READY).send_all(StopRequested(IDLE))
    world.die()
    assert world.machine.reason == IDLE
    world.send(StopRequested())
    assert (world.machine.state, world.machine.reason) == (S.STOPPED, BY_OPERATOR)


# ---- starts and stops that cross


def test_a_start_during_stop_starts_again() -> None:
    world = at(S.STOPPING).send_all(StartRequested())
    assert world.machine.state is S.STOPPING
    assert world.die() == [Prepare(2, 0)]


def test_a_stop_after_that_start_forgets_the_start() -> None:
    world = at(S.STOPPING).send_all(StartRequested(), StopRequested())
    world.die()
    assert world.machine.state is S.STOPPED


def test_a_start_asked_for_twice_during_stop_starts_once() -> None:
    world = at(S.STOPPING).send_all(StartRequested(), StartRequested())
    world.die()
    world.come_up().send(StopRequested())
    world.die()
    assert world.machine.state is S.STOPPED


@pytest.mark.parametrize("state", [S.PREPARING, S.STARTING, S.READY])
def test_a_start_while_one_is_up_or_coming_changes_nothing(state: EngineState) -> None:
    world = at(state)
    before = world.machine
    assert world.send(StartRequested()) == []
    assert world.machine == before


@pytest.mark.parametrize("state", [S.STOPPED, S.FAILED, S.BACKOFF])
def test_a_start_without_a_child_prepares_a_new_spawn(state: EngineState) -> None:
    world = at(state)
    number = world.machine.spawn + 1
    assert world.send(StartRequested()) == [Prepare(number, 0)]


@pytest.mark.parametrize("state", [S.PREPARING, S.FAILED, S.BACKOFF])
def test_a_stop_without_a_child_is_done_at_once(state: EngineState) -> None:
    world = at(state).send_all(StopRequested())
    assert (world.machine.state, world.machine.reason) == (S.STOPPED, BY_OPERATOR)
    assert world.send(Prepared(1, world.now)) == []


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
        assert world.overdue() == [Kill()]
        assert world.machine.killed
        assert world.machine.deadline_s == POLICY.reap_s


def test_a_start_without_progress_is_ended_and_tried_again() -> None:
    world = at(S.STARTING)
    assert world.machine.deadline_s == POLICY.quiet_s
    assert world.overdue() == [Terminate()]
    world.die()
    assert (world.machine.state, world.machine.reason.code) == (S.BACKOFF, "start_stalled")
    assert "5 s" in world.machine.reason.what


def test_progress_renews_the_deadline_of_a_start_up_to_its_cap() -> None:
    world = at(S.STARTING)
    began = world.now
    while world.now - began < POLICY.start_s - POLICY.quiet_s:
        world.now += POLICY.quiet_s - 1
        world.send(Progressed(1, world.now))
        assert world.machine.state is S.STARTING
        left = POLICY.start_s - (world.now - began)
        assert world.machine.deadline_s == min(POLICY.quiet_s, left)
    world.overdue()
    world.die()
    assert world.machine.reason.code == "start_timeout"
    assert "50 s" in world.machine.reason.what


def test_a_stop_forgives_a_start_that_took_too_long() -> None:
    world = at(S.STARTING)
    world.overdue()
    world.send(StopRequested())
    world.die()
    assert world.machine.state is S.STOPPED
    assert world.machine.history.failures == ()


def test_a_preparation_that_hangs_is_a_failure() -> None:
    world = at(S.PREPARING)
    world.overdue()
    assert world.machine.state is S.BACKOFF
    assert world.machine.reason.code == "prepare_timeout"


def test_a_preparation_that_fails_for_good_says_why() -> None:
    assert at(S.FAILED).machine.reason == WRONG


def test_a_backoff_ends_in_a_new_start() -> None:
    world = at(S.BACKOFF)
    assert world.overdue() == [Prepare(2, 0)]


@pytest.mark.parametrize("state", sorted(SETTLED))
def test_no_timer_moves_a_settled_state(state: EngineState) -> None:
    world = at(state)
    before = world.machine
    assert step(before, DeadlinePassed(before.armed, world.now), POLICY) == (before, [])


def test_settled_and_alive_are_what_the_architecture_says() -> None:
    assert {S.STOPPED, S.READY, S.FAILED} == SETTLED
    assert {S.STARTING, S.READY, S.DRAINING, S.STOPPING} == ALIVE


def test_a_step_does_not_touch_the_machine_that_it_was_given() -> None:
    before = at(S.READY).machine
    copy = replace(before)
    step(before, StopRequested(), POLICY)
    assert before == copy
