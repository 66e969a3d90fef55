"""Ranges are asked for together where little lies between, and none of them is lost."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.checkpoint.spans import Span, grouped, sifted

CONTENT = bytes(range(256)) * 4


@st.composite
def rising(draw: st.DrawFn) -> list[Span]:
    cuts = sorted(draw(st.lists(st.integers(0, len(CONTENT)), min_size=2, max_size=40)))
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    return [(start, stop - start) for start, stop in pairs]


@given(rising(), st.integers(0, 300), st.integers(1, 200))
def test_what_is_sifted_from_the_groups_is_the_ranges(
    spans: list[Span], gap: int, step: int
) -> None:
    found = b""
    for group in grouped(spans, gap):
        start, stop = group[0][0], sum(group[-1])
        pieces = [CONTENT[at : min(at + step, stop)] for at in range(start, stop, step)]
        found += b"".join(sifted(pieces, group))
    assert found == b"".join(CONTENT[offset : offset + length] for offset, length in spans)


@given(rising(), st.integers(0, 300))
def test_no_more_is_asked_for_than_the_gaps_allow(spans: list[Span], gap: int) -> None:
    groups = list(grouped(spans, gap))
    assert [span for group in groups for span in group] == [span for span in spans if span[1]]
    for group in groups:
        between = [after[0] - sum(before) for before, after in pairwise(group)]
        assert all(0 <= width <= gap for width in between)
    for before, after in pairwise(groups):
        assert after[0][0] - sum(before[-1]) > gap


@pytest.mark.parametrize("spans", [[(0, 5), (4, 2)], [(5, 1), (0, 1)], [(0, -1)]])
def test_ranges_that_do_not_rise_are_refused(spans: list[Span]) -> None:
    with pytest.raises(ValueError, match="is not after"):
        list(grouped(spans, 0))
