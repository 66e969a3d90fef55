"""The floors of memory: debounced, and the projection of the emergency."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.floors import Floors, GuardPolicy, Level, Watch, look, will_fall_below

GIB = 2**30
FLOORS = Floors(5 * GIB, 4 * GIB, 3 * GIB, 2 * GIB)
POLICY = GuardPolicy(samples=3)


def seen(*samples_gib: float, policy: GuardPolicy = POLICY) -> Level:
    watch = Watch()
    for sample in samples_gib:
        watch = look(watch, int(sample * GIB), FLOORS, policy)
    return watch.level


def test_a_dip_of_one_sample_is_not_a_floor() -> None:
    assert seen(6, 6, 2.5, 6, 2.5, 6) is Level.FINE


def test_nobody_is_let_in_before_the_engine_is_ended() -> None:
    assert [seen(*[2.9] * count) for count in range(1, 4)] == [Level.FINE, Level.STOP, Level.KILL]


@pytest.mark.parametrize(
    ("sample", "level"),
    [(5.3, Level.FINE), (4.9, Level.WARN), (3.9, Level.STOP), (2.9, Level.KILL)],
)
def test_as_many_samples_as_the_policy_asks_reach_a_floor(sample: float, level: Level) -> None:
    assert seen(sample) is Level.FINE
    assert seen(sample, sample) is min(level, Level.STOP)
    assert seen(sample, sample, sample) is level


def test_one_sample_above_the_kill_floor_saves_the_engine_for_now() -> None:
    assert seen(2.9, 2.9, 3.1, 2.9, 2.9) is Level.STOP
    assert seen(2.9, 2.9, 3.1, 2.9, 2.9, 2.9) is Level.KILL


def test_a_floor_is_left_only_with_room_above_it() -> None:
    assert seen(3.9, 3.9, 3.9, 4.1, 4.1, 4.1) is Level.STOP
    assert seen(3.9, 3.9, 3.9, 4.5, 4.5, 4.5) is Level.WARN
    assert seen(3.9, 3.9, 3.9, 6, 6) is Level.STOP
    assert seen(3.9, 3.9, 3.9, 6, 6, 6) is Level.FINE


def test_a_policy_of_one_sample_does_not_wait() -> None:
    assert seen(2.9, policy=GuardPolicy(samples=1, quick_samples=1)) is Level.KILL


@given(st.lists(st.floats(0, 8), max_size=30))
def test_the_level_is_never_worse_than_the_last_samples_are_near(samples: list[float]) -> None:
    level = seen(*samples)
    slack = 1 + POLICY.slack
    if level is Level.KILL:
        assert any(sample / slack < 3 for sample in samples[-3:])
    if level is Level.FINE and len(samples) >= 3:
        assert any(sample * GIB >= 5 * GIB - 1 for sample in samples[-3:])


@pytest.mark.parametrize(
    ("before", "now", "elapsed", "falls"),
    [
        (26.0, 12.7, 1.0, True),  # the recorded wedge: it is gone in a second
        (6.1, 5.1, 1.0, False),  # 1 GiB in a second from 6.1: 2.1 in three more
        (6.1, 4.9, 1.0, True),
        (6.1, 6.1, 1.0, False),
        (6.1, 7.0, 1.0, False),
        (6.1, 4.9, 0.0, False),
    ],
)
def test_a_fall_is_taken_to_go_on_for_three_seconds(
    before: float, now: float, elapsed: float, falls: bool
) -> None:
    fell = will_fall_below(int(before * GIB), int(now * GIB), elapsed, 2 * GIB, 3.0)
    assert fell is falls


@given(st.integers(0, 64 * GIB), st.integers(0, 64 * GIB), st.floats(0.01, 2))
def test_a_faster_fall_is_never_safer(before: int, now: int, elapsed: float) -> None:
    if will_fall_below(before, now, elapsed, 2 * GIB, 3.0):
        assert will_fall_below(before + GIB, now, elapsed, 2 * GIB, 3.0)
