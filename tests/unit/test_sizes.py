"""Sizes: what people write is what is meant, and what is shown can be read back."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("4096", 4096),
        ("64MiB", 64 * 2**20),
        ("96 GiB", 96 * 2**30),
        ("1.5GB", 1_500_000_000),
        ("1.5 gib", 3 * 2**29),
        (" 2 KB ", 2000),
        ("7B", 7),
        (512, 512),
    ],
)
def test_a_size_is_read_as_people_write_it(text: str | int, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "much", "12 parsecs", "-1GB", "1.GB", "GiB", "1e9", "0x10", 1.5, True, None, [1]]
)
def test_what_is_no_size_is_named_with_an_accepted_form(text: Any) -> None:
    with pytest.raises(ValueError, match="64MiB") as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["9" * 400, f"{'9' * 400} GiB", 10**400, "1048577TiB", 2**60 + 1],
    ids=["digits", "digits with a unit", "number", "one TiB more", "one byte more"],
)
def test_a_size_beyond_every_machine_is_refused_and_cut(text: Any) -> None:
    with pytest.raises(ValueError, match="too large") as caught:
        parse_size(text)
    assert len(str(caught.value)) < 160


def test_a_long_text_that_is_no_size_is_cut() -> None:
    with pytest.raises(ValueError, match="no size") as caught:
        parse_size("x" * 1000)
    assert len(str(caught.value)) < 160


def test_an_eib_is_a_size() -> None:
    assert parse_size("1048576TiB") == parse_size(2**60) == 2**60


@given(st.integers(min_value=0, max_value=2**60))
def test_a_size_shown_reads_back_within_its_precision(size_bytes: int) -> None:
    read = parse_size(format_size(size_bytes))
    assert abs(read - size_bytes) <= max(size_bytes, 1024) * 0.05


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (102_755_000_000, "95.7 GiB")],
)
def test_a_size_is_shown_in_the_largest_unit_that_fits(size_bytes: int, shown: str) -> None:
    assert format_size(size_bytes) == shown


def test_sizes_beyond_the_largest_unit_stay_in_it() -> None:
    assert format_size(2**52) == "4096.0 TiB"
