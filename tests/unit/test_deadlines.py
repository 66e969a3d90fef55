"""How long an answer may take, and what is said of one that took longer."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.deadlines import Deadlines

LIMITS = Deadlines(first_byte_s=3600.0, idle_s=900.0, total_s=14400.0)
moments = st.floats(0, 1e6)


@given(moments, st.none() | moments)
def test_no_wait_outlasts_the_whole_answers(began: float, heard: float | None) -> None:
    assert LIMITS.end(began, heard) <= began + LIMITS.total_s


@given(moments, moments)
def test_each_piece_gives_it_more_time(began: float, after: float) -> None:
    heard = began + after
    assert LIMITS.end(began, heard) == min(heard + 900.0, began + 14400.0)


def test_before_the_first_byte_the_wait_is_the_longer_one() -> None:
    assert LIMITS.end(0.0, None) == 3600.0


@pytest.mark.parametrize(
    ("heard", "now", "said"),
    [
        (None, 3600.0, "no answer within 3600 s"),
        (100.0, 1000.0, "nothing more within 900 s"),
        (14000.0, 14400.0, "not whole within 14400 s"),
    ],
)
def test_what_is_said_names_the_wait_that_was_too_long(
    heard: float | None, now: float, said: str
) -> None:
    assert said in LIMITS.why(0.0, heard, now)


def test_without_limits_nothing_ends() -> None:
    assert Deadlines().end(0.0, None) == math.inf
    assert (Deadlines().head_s, Deadlines().part_s) == (None, None)


def test_a_head_may_not_take_longer_than_the_whole() -> None:
    assert Deadlines(first_byte_s=10.0, total_s=5.0).head_s == 5.0
