"""Rates, shares and quantiles: right where there are two readings, and silent where not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.figures import Reading, hit_share, per_s, quantile, ttft_s

BOUNDS = (0.1, 1.0, 10.0)


def tokens(*counts: float | None, spawn: int = 1) -> list[Reading]:
    return [
        Reading(float(at), spawn, completion_tokens=count, ttft=(0,) * 4)
        for at, count in enumerate(counts)
    ]


def speed(readings: list[Reading]) -> float | None:
    return per_s(readings, "completion_tokens", 5)


@pytest.mark.parametrize(
    ("counts", "rate"),
    [
        ((), None),
        ((7,), None),
        ((0, 30), 30),
        ((0, 30, 30), 15),
        ((1000, *(0,) * 7), 0),  # what lies before the window is not reckoned with
        ((5, 5), 0),
        ((None, None), None),
        ((None, 10, 30), 20),
        ((10, 30, None), None),  # the engine is away now
        ((30, 10), None),  # it counts anew
    ],
)
def test_a_rate_is_what_grew_within_the_window(counts: tuple[float], rate: float | None) -> None:
    assert speed(tokens(*counts)) == rate


def test_another_engine_counts_from_its_own_beginning() -> None:
    before, now = tokens(900, 950), tokens(0, 20, 60, spawn=2)
    later = [Reading(reading.at + 2, 2, completion_tokens=reading.completion_tokens)
             for reading in now]  # fmt: skip
    assert speed([*before, *later]) == 30


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=40))
def test_a_rate_is_never_negative_and_never_more_than_all_that_grew(steps: list[int]) -> None:
    counts = [float(sum(steps[:upto])) for upto in range(len(steps) + 1)]
    rate = speed(tokens(*counts))
    assert rate is not None
    assert 0 <= rate <= max(steps)


def test_the_share_of_hits_is_of_what_was_asked_in_the_window() -> None:
    def at(second: float, asked: float | None, found: float | None) -> Reading:
        return Reading(second, 1, cache_queries=asked, cache_hits=found)

    assert hit_share([at(0, 100, 100), at(1, 300, 150)]) == 0.25
    assert hit_share([at(0, 100, 100), at(1, 100, 100)]) is None  # nobody asked
    assert hit_share([at(0, 100, 100)]) is None
    assert hit_share([at(0, 100, None), at(1, 300, None)]) is None
    assert hit_share([at(0, 0, 0), at(200, 100, 0), at(201, 200, 90)]) == 0.9


def test_the_quantiles_are_of_the_answers_in_the_last_minute() -> None:
    def at(second: float, *counts: int) -> Reading:
        return Reading(second, 1, ttft=counts)

    early = at(0, 500, 0, 0, 0)
    assert ttft_s([early, at(1, 500, 0, 0, 0)], BOUNDS) is None
    assert ttft_s([], BOUNDS) is None
    told = ttft_s([early, at(10, 500, 0, 0, 0), at(70, 500, 10, 0, 0)], BOUNDS)
    assert told == (0.55, 0.91)


@given(st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_that_holds_it(counts: list[int], share: float) -> None:
    found = quantile(counts, BOUNDS, share)
    below = sum(count for count, bound in zip(counts, BOUNDS, strict=False) if bound < found)
    assert 0 <= found <= BOUNDS[-1]
    assert below <= share * sum(counts) + 1e-6
    assert quantile(counts, BOUNDS, share / 2) <= found
