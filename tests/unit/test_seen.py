"""What is kept of conversations stays within its bound, and the longest that fits is found."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.seen import LEAST_BYTES, Beginning, Seen, Start

KIND = ("/v1/chat/completions", True)


def begun(text: bytes, kind: tuple[str, bool] = KIND) -> Beginning:
    return Beginning(kind, text, {}, Start(b"[", 1))


def long(mark: bytes, times: int = 1) -> bytes:
    return mark * LEAST_BYTES * times


def test_the_longest_beginning_is_found() -> None:
    seen = Seen()
    other = begun(long(b"a") + b"c")
    for one in (begun(long(b"a")), other, begun(long(b"b"))):
        seen.keep(one)
    assert seen.find(KIND, long(b"a") + b"cd") is other
    assert seen.find(KIND, long(b"x")) is None
    assert seen.find(KIND, long(b"a")[:-1]) is None


def test_what_was_read_for_another_route_or_without_the_prompt_is_not_found() -> None:
    seen = Seen()
    seen.keep(begun(long(b"a")))
    assert seen.find((KIND[0], False), long(b"a")) is None
    assert seen.find(("/v1/messages", True), long(b"a")) is None


def test_one_that_goes_on_takes_the_place_of_what_it_goes_on_from() -> None:
    seen = Seen()
    seen.keep(begun(long(b"a")))
    seen.keep(begun(long(b"a", 2)))
    assert seen.kept_bytes == 2 * LEAST_BYTES


def test_short_bodies_are_neither_kept_nor_looked_for() -> None:
    seen = Seen()
    seen.keep(begun(b"a" * (LEAST_BYTES - 1)))
    assert seen.kept_bytes == 0
    assert seen.find(KIND, b"a" * (LEAST_BYTES - 1)) is None


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=1), st.integers(1, 5)), max_size=12))
def test_no_more_is_kept_than_is_allowed_and_the_newest_is(
    told: list[tuple[bytes, int]],
) -> None:
    most = 4 * LEAST_BYTES
    seen = Seen(most)
    for mark, times in told:
        text = long(mark, times)
        seen.keep(begun(text))
        assert seen.kept_bytes <= most
        found = seen.find(KIND, text)
        assert found is not None or len(text) > most
