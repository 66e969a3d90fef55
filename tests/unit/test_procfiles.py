"""Texts of the kernel as they are, and as they should not be."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.facts import EarlyOom
from appliance.procfiles import (
    SwapLine,
    evictable_bytes,
    hugepages_bytes,
    parse_buddyinfo,
    parse_earlyoom,
    parse_parent,
    parse_pressure,
    parse_swaps,
)

MIB = 1 << 20
GIB = 1 << 30
SPARK = 127601452 * 1024  # MemTotal of 121.69 GiB

SWAPS = """\
Filename				Type		Size		Used		Priority
/swap.img                               file		16777212	1048576		-2
/dev/nvme0n1p3                          partition	8388604		0		-3
/mnt/my\\040disk/swap\\134file            file		1024		0		-4
"""
PRESSURE = """\
some avg10=0.12 avg60=1.00 avg300=0.40 total=31415926
full avg10=0.00 avg60=0.00 avg300=0.00 total=2718
"""
BUDDYINFO = (  # each line ends with a space
    "Node 0, zone      DMA      0      0      0      0      0      0      0      0      1      1"
    "      3 \n"
    "Node 0, zone    DMA32      1      2      4      2      5      4      3      3      4      2"
    "    752 \n"
    "Node 0, zone   Normal   1199   1394    780   1467   1026    673    283    114     50      2"
    "   1594 \n"
)


# ---- swap


def test_swap_is_read_in_bytes_with_the_names_as_they_are() -> None:
    assert parse_swaps(SWAPS) == [
        SwapLine("/swap.img", "file", 16777212 * 1024, GIB),
        SwapLine("/dev/nvme0n1p3", "partition", 8388604 * 1024, 0),
        SwapLine("/mnt/my disk/swap\\file", "file", MIB, 0),
    ]


@pytest.mark.parametrize(
    "text", ["", "\n", SWAPS.splitlines()[0], "Filename\n/a file\n/b file x y z"]
)
def test_no_swap_is_no_line(text: str) -> None:
    assert parse_swaps(text) == []


# ---- huge pages


@pytest.mark.parametrize(
    ("rows", "size"),
    [
        ({}, 0),
        ({"HugePages_Total:": 0, "Hugepagesize:": 2048, "Hugetlb:": 0}, 0),
        ({"HugePages_Total:": 512, "Hugepagesize:": 2048}, GIB),
        ({"HugePages_Total:": 512, "Hugepagesize:": 2048, "Hugetlb:": 3 << 20}, 3 * GIB),
    ],
    ids=["older", "none", "by the default size", "pages of 1 GiB too"],
)
def test_huge_pages_are_what_is_set_aside_used_or_not(rows: dict[str, int], size: int) -> None:
    assert hugepages_bytes(rows) == size


# ---- cgroups


def test_evictable_is_anonymous_memory_that_is_not_locked() -> None:
    stat = {"anon": 9 * GIB, "inactive_anon": 3 * GIB, "active_anon": GIB, "unevictable": MIB}
    assert evictable_bytes(stat) == 4 * GIB - MIB


def test_more_locked_than_anonymous_is_nothing_to_evict() -> None:
    assert evictable_bytes({"inactive_anon": 1, "active_anon": 1, "unevictable": 9}) == 0


def test_what_the_file_does_not_say_is_not_known() -> None:
    assert evictable_bytes({}) is None
    assert evictable_bytes({"inactive_anon": 1, "active_anon": 1}) is None


# ---- pressure and fragmentation


def test_pressure_is_in_seconds() -> None:
    assert parse_pressure(PRESSURE) == {"some": 31.415926, "full": 0.002718}


def test_a_kernel_without_pressure_tells_none() -> None:
    assert parse_pressure("") == {}
    assert parse_pressure("some avg10=0.00\nfull total=x\n") == {}


def test_free_blocks_are_summed_over_the_zones() -> None:
    free = parse_buddyinfo(BUDDYINFO)
    assert (free[0], free[9], free[10]) == (1200, 5, 2349)
    assert sorted(free) == list(range(11))


def test_zones_of_other_lengths_are_summed_by_order() -> None:
    assert parse_buddyinfo("Node 0, zone DMA 1 2\nNode 1, zone Normal 3 4 5\n") == {
        0: 4,
        1: 6,
        2: 5,
    }


# ---- processes


@pytest.mark.parametrize("name", ["sh", "a) S 99 (b", "", ") (", "x y"])
def test_a_parent_is_found_whatever_the_process_calls_itself(name: str) -> None:
    assert parse_parent(f"17 ({name}) S 4 17 17 0 -1 4194304") == 4


@pytest.mark.parametrize("text", ["", "17", "17 (sh)", "17 (sh) S", "17 (sh) S x", "17 (sh) S -1"])
def test_half_a_line_has_no_parent(text: str) -> None:
    assert parse_parent(text) is None


# ---- earlyoom


@pytest.mark.parametrize(
    ("line", "term", "kill"),
    [
        ("earlyoom", SPARK / 10, SPARK / 20),
        ("/usr/bin/earlyoom -r 3600", SPARK / 10, SPARK / 20),
        ("earlyoom -m 2 -s 80 --prefer '(vllm|python)' --avoid '(sshd)'", SPARK / 50, SPARK / 100),
        ("earlyoom -M 524288,102400 -s 100 -r 60", 512 * MIB, 100 * MIB),
        ("earlyoom -M 8388608", 8 * GIB, 4 * GIB),
        ("earlyoom -m 5 -M 1048576", GIB, 512 * MIB),
        ("earlyoom -m 5,3 -M 99999999,1024", SPARK * 0.05, MIB),
        ("earlyoom -m20,18", SPARK * 0.2, SPARK * 0.18),
        ("earlyoom -npgm 20,18", SPARK * 0.2, SPARK * 0.18),
        ("earlyoom -m 3.5", SPARK * 0.035, SPARK * 0.0175),
        ("earlyoom -m 5 -m 4", SPARK * 0.04, SPARK * 0.02),
        ("earlyoom -m 0,5", SPARK * 0.05, SPARK * 0.05),
        ("earlyoom -N /m -P -M --prefer -m --ignore=-m", SPARK / 10, SPARK / 20),
        ("earlyoom -S 524288 -s 5,2", SPARK / 10, SPARK / 20),
    ],
)
def test_earlyoom_s_thresholds_are_those_of_its_command_line(
    line: str, term: float, kill: float
) -> None:
    found = parse_earlyoom(shlex.split(line), SPARK)
    assert found is not None
    assert (found.term_bytes, found.kill_bytes) == (int(term), int(kill))


@pytest.mark.parametrize(
    ("line", "percent"),
    [
        ("earlyoom", 10),
        ("earlyoom -s 80", 80),
        ("earlyoom -m 2 -s 5,2", 5),
        ("earlyoom -s 250", 100),
        ("earlyoom -s x", 10),
        ("earlyoom -S 524288", 100),
    ],
)
def test_how_much_swap_it_waits_for_is_told(line: str, percent: float) -> None:
    found = parse_earlyoom(shlex.split(line), SPARK)
    assert found is not None
    assert found.swap_percent == percent


def test_an_earlyoom_that_only_pretends_kills_nobody() -> None:
    assert parse_earlyoom(["earlyoom", "--dryrun", "-m", "50"], SPARK) is None


@pytest.mark.parametrize("value", ["", "x", "-5", "nan", "1e300", "5,nan", "5,-1", "5,1e300"])
def test_what_is_no_threshold_leaves_the_default(value: str) -> None:
    expected = EarlyOom(int(SPARK / 10), int(SPARK / 20), 10)
    assert parse_earlyoom(["earlyoom", "-m", value], SPARK) == expected
    assert parse_earlyoom(["earlyoom", "-M", value], SPARK) == expected


@given(
    words=st.lists(st.one_of(st.text(), st.from_regex(r"-[mMsSnNdr]{1,3}[0-9.,e-]*"))),
    total=st.integers(0, 1 << 50),
)
def test_no_command_line_breaks_it_and_kill_is_never_above_term(
    words: list[str], total: int
) -> None:
    found = parse_earlyoom(words, total)
    assert found is None or 0 <= found.kill_bytes <= found.term_bytes


# ---- garbage


@given(st.text())
def test_no_text_breaks_a_parser(text: str) -> None:
    parse_swaps(text)
    parse_swaps("Filename\n" + text)
    parse_pressure(text)
    parse_buddyinfo(text)
    parse_parent(text)


@given(
    st.sampled_from([SWAPS, PRESSURE, BUDDYINFO]),
    st.integers(0, 400),
    st.sampled_from(["", "9" * 5000, "-", "٣", "\0", "\\999", "total=", " "]),
)
def test_a_damaged_text_breaks_no_parser(text: str, place: int, garbage: str) -> None:
    damaged = text[:place] + garbage + text[place:]
    assert all(line.size_bytes >= 0 for line in parse_swaps(damaged))
    assert all(seconds >= 0 for seconds in parse_pressure(damaged).values())
    assert all(count >= 0 for count in parse_buddyinfo(damaged).values())
