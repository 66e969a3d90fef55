"""Byte ranges: merged, cut, grouped, resumed; whatever is done to them, the same bytes follow."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.checkpoint.plan import (
    GAP_BYTES,
    SMALL_BYTES,
    SPAN_BYTES,
    Piece,
    Range,
    after,
    chunks,
    groups,
    merged,
    read_group,
)
from appliance.checkpoint.source import LocalSource
from tests.checkpointbox import dice_of

RANGES = st.lists(st.builds(Range, st.integers(0, 400), st.integers(0, 60)), max_size=20)
DATA = dice_of("ranges").randbytes(500)
WIDE = st.lists(
    st.tuples(st.integers(-GAP_BYTES, 2 * GAP_BYTES), st.integers(1, 2 * SMALL_BYTES)), max_size=30
)


def taken(ranges: Sequence[Piece]) -> bytes:
    return b"".join(DATA[part.offset : part.offset + part.length] for part in ranges)


@given(RANGES)
def test_merged_ranges_name_the_same_bytes_in_fewer_steps(ranges: list[Range]) -> None:
    joined = list(merged(ranges))
    assert taken(joined) == taken(ranges)
    assert all(part.length for part in joined)
    assert all(a.offset + a.length != b.offset for a, b in itertools.pairwise(joined))


@given(RANGES, st.integers(0, 1500))
def test_what_is_left_after_a_resume_is_the_tail(ranges: list[Range], count: int) -> None:
    assert taken(list(after(ranges, count))) == taken(ranges)[count:]


@given(RANGES, st.integers(1, 50))
def test_chunks_are_never_longer_and_name_the_same_bytes(ranges: list[Range], most: int) -> None:
    pieces = list(chunks(ranges, most))
    assert taken(pieces) == taken(ranges)
    assert all(0 < piece.length <= most for piece in pieces)


@given(WIDE)
def test_groups_keep_every_range_in_order_and_never_read_much_in_vain(
    steps: list[tuple[int, int]],
) -> None:
    ranges, end = [], GAP_BYTES
    for gap, length in steps:
        ranges.append(Range(max(end + gap, 0), length))
        end = ranges[-1].offset + length
    found = list(groups(ranges))
    assert [part for group in found for part in group] == ranges
    for group in found:
        if len(group) > 1:
            span = group[-1].offset + group[-1].length - group[0].offset
            wanted = sum(part.length for part in group)
            assert span <= SPAN_BYTES
            assert span - wanted <= GAP_BYTES * (len(group) - 1)
            assert all(part.length <= SMALL_BYTES for part in group)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, 499), min_size=2, max_size=40))
def test_a_group_is_read_at_once_and_cut_right(tmp_path: Path, edges: set[int]) -> None:
    (tmp_path / "data").write_bytes(DATA)
    cuts = sorted(edges)
    ranges = [Range(a, b - a) for a, b in itertools.pairwise(cuts)][::2]
    source = LocalSource(tmp_path)
    assert read_group(source, "data", ranges) == taken(ranges)
    source.close()


def test_a_rows_worth_of_a_real_router_is_one_group() -> None:
    rows = [Range(row * 6144, 6144) for row in range(0, 256, 2)]
    assert len(list(groups(rows))) == 1


def test_a_real_experts_weights_are_copied_and_not_read() -> None:
    experts = [Range(number * 14_155_776, 7_077_888) for number in range(10)]
    assert [len(group) for group in groups(experts)] == [1] * 10
