"""Backoff and breaker as laws."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.restart import (
    GiveUp,
    Grade,
    History,
    Reason,
    RestartPolicy,
    Retry,
    backoff_s,
    judge,
)

POLICIES = st.builds(
    RestartPolicy,
    backoff_s=st.floats(0.01, 100),
    backoff_cap_s=st.floats(100, 1000),
    max_failures=st.integers(2, 8),
    window_s=st.floats(1, 10_000),
    rungs=st.integers(1, 4),
)
DIED = Reason("engine_died", "it died")


@given(POLICIES, st.integers(1, 1000), st.floats(0, 1))
def test_the_backoff_is_monotone_and_capped_and_jitter_adds_a_tenth_at_most(
    policy: RestartPolicy, failures: int, jitter: float
) -> None:
    plain = backoff_s(failures, policy)
    assert plain <= backoff_s(failures + 1, policy) <= policy.backoff_cap_s
    assert plain <= backoff_s(failures, policy, jitter) <= plain * 1.1 + 1e-9


def test_the_default_backoff_is_half_a_minute_doubling_to_a_quarter_of_an_hour() -> None:
    waits = [backoff_s(n, RestartPolicy()) for n in range(1, 8)]
    assert waits == [30, 60, 120, 240, 480, 900, 900]


@given(POLICIES, st.lists(st.floats(0, 5000), min_size=1, max_size=20))
def test_never_more_retries_in_a_window_than_the_policy_allows(
    policy: RestartPolicy, gaps: list[float]
) -> None:
    history, now, retries = History(), 0.0, []
    for gap in gaps:
        now += gap
        history, verdict = judge(history, DIED, now, 0.5, policy)
        if isinstance(verdict, GiveUp):
            assert history.gave_up == verdict.reason
            break
        retries.append(now)
        recent = [at for at in retries if now - at < policy.window_s]
        assert len(recent) < policy.max_failures


@given(POLICIES, st.floats(0, 1e6))
def test_a_permanent_cause_is_final_and_leaves_no_trace(policy: RestartPolicy, at: float) -> None:
    wrong = Reason("bad_engine_flag", grade=Grade.PERMANENT)
    assert judge(History(), wrong, at, 0, policy) == (History(), GiveUp(wrong))


def test_a_failure_of_before_a_clock_that_went_back_is_forgotten() -> None:
    history, verdict = judge(History(failures=(9000.0, 9001.0)), DIED, 10.0, 0, RestartPolicy())
    assert history.failures == (10.0,)
    assert verdict == Retry(30.0)
