"""When memory counts as back: the law, and the loop over a reader that makes it up."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from appliance.settle import SLACK, STABLE_SAMPLES, is_settled, settle

GIB = 2**30
TOTAL = 128 * GIB
SLACK_BYTES = int(TOTAL * SLACK)
BYTES = st.integers(0, TOTAL)
SAMPLES = st.lists(BYTES, max_size=8)
TICK_S = 0.001


# ---- the law


@given(st.lists(BYTES, max_size=STABLE_SAMPLES - 1), st.none() | BYTES)
def test_a_look_or_two_prove_nothing(samples: list[int], baseline: int | None) -> None:
    assert not is_settled(samples, baseline, TOTAL)


@given(SAMPLES, BYTES, BYTES)
def test_who_is_content_with_much_is_content_with_less(
    samples: list[int], one: int, other: int
) -> None:
    low, high = sorted((one, other))
    if is_settled(samples, high, TOTAL):
        assert is_settled(samples, low, TOTAL)
        assert is_settled(samples, None, TOTAL)


@given(SAMPLES, st.lists(BYTES, min_size=STABLE_SAMPLES, max_size=STABLE_SAMPLES), BYTES)
def test_only_the_last_looks_count(before: list[int], last: list[int], baseline: int) -> None:
    assert is_settled([*before, *last], baseline, TOTAL) == is_settled(last, baseline, TOTAL)


@given(BYTES, st.none() | BYTES)
def test_memory_that_stands_still_is_settled_once_it_is_back(
    level: int, baseline: int | None
) -> None:
    is_back = baseline is None or level >= baseline - SLACK_BYTES
    assert is_settled([level] * STABLE_SAMPLES, baseline, TOTAL) == is_back


@given(BYTES, st.integers(SLACK_BYTES + 1, TOTAL))
def test_memory_that_still_moves_is_not_settled(level: int, jump: int) -> None:
    assert not is_settled([level, level + jump, level], None, TOTAL)
    assert not is_settled([level, level, level + jump], 0, TOTAL)


# ---- the loop


class Reader:
    """Tells one row after the other, the last again and again."""

    def __init__(self, available: Iterable[int]) -> None:
        self.rows = [{"MemTotal": TOTAL, "MemAvailable": bytes_} for bytes_ in available]
        self.reads = 0

    def __call__(self) -> dict[str, int]:
        self.reads += 1
        return self.rows[min(self.reads, len(self.rows)) - 1]


async def test_it_waits_until_the_memory_is_back_and_stands_still() -> None:
    read = Reader(gib * GIB for gib in (10, 40, 80, 110, 120, 120, 120))
    settled = await settle(120 * GIB, read, timeout_s=60, sample_s=TICK_S)
    assert settled.is_back
    assert read.reads == 7
    assert settled.seconds >= 6 * TICK_S


async def test_without_a_baseline_it_waits_until_it_stands_still() -> None:
    read = Reader(gib * GIB for gib in (10, 40, 40, 40))
    assert (await settle(None, read, timeout_s=60, sample_s=TICK_S)).is_back
    assert read.reads == 4


async def test_memory_that_never_comes_back_is_not_waited_for_without_end() -> None:
    settled = await settle(120 * GIB, Reader([10 * GIB]), timeout_s=0.05, sample_s=TICK_S)
    assert not settled.is_back


async def test_where_memory_cannot_be_read_there_is_nothing_to_wait_for() -> None:
    settled = await settle(120 * GIB, dict, timeout_s=60, sample_s=60)
    assert settled.is_back
    assert settled.seconds < 60


async def test_a_kernel_that_does_not_tell_what_is_available_is_not_waited_for() -> None:
    assert (await settle(None, lambda: {"MemTotal": TOTAL}, 60, 60)).is_back
