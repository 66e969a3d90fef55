"""A box that is awaited: its absence is no failure, however long it lasts."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from appliance.events import DeadlinePassed, PrepareFailed, StartRequested
from appliance.lifecycle import EngineState, Machine, Policy, step
from appliance.restart import Grade, History, Reason, RestartPolicy, Retry, backoff_s, judge

ABSENT = Reason("peer_lost", "nobody answers", "plug it in", Grade.AWAITED)
POLICY = RestartPolicy(max_failures=1)


@given(
    st.lists(st.floats(0, 1e6), max_size=5),
    st.integers(0, 2),
    st.floats(0, 1e6),
    st.floats(0, 1),
)
def test_an_absent_box_costs_no_retry_and_no_room(
    failures: list[float], rung: int, at: float, jitter: float
) -> None:
    before = History(tuple(sorted(failures)), rung)
    after, verdict = judge(before, ABSENT, at, jitter, POLICY)
    assert after == before
    assert verdict == Retry(backoff_s(1, POLICY, jitter))


@given(st.integers(1, 50))
def test_an_absent_box_is_asked_for_again_for_ever(times: int) -> None:
    policy = Policy(restart=POLICY)
    machine, _ = step(Machine(), StartRequested(), policy)
    for n in range(times):
        assert machine.state is EngineState.PREPARING
        machine, effects = step(machine, PrepareFailed(machine.spawn, ABSENT, float(n)), policy)
        assert machine.state is EngineState.BACKOFF
        assert machine.deadline_s is not None
        assert effects == []
        machine, _ = step(machine, DeadlinePassed(machine.armed, float(n)), policy)
    assert machine.history == History()


def test_a_failure_that_came_before_still_counts_after_the_wait() -> None:
    failed = replace(ABSENT, grade=Grade.TRANSIENT)
    policy = RestartPolicy(max_failures=2)
    history, _ = judge(History(), failed, 1.0, 0.0, policy)
    history, _ = judge(history, ABSENT, 2.0, 0.0, policy)
    history, verdict = judge(history, failed, 3.0, 0.0, policy)
    assert history.gave_up is not None
    assert not isinstance(verdict, Retry)
