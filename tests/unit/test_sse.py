"""Events on the wire: however the bytes are cut, the events are the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.sse import EventSplitter, Framer, event_data, event_start, split_events, with_data

FIELD = st.text(alphabet='abc {}":é', min_size=0, max_size=8).map(str.encode)


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """One whole event, with LF or CRLF lines."""
    end = draw(st.sampled_from([b"\n", b"\r\n"]))
    lines = draw(st.lists(FIELD.map(lambda text: b"data: " + text), min_size=1, max_size=3))
    lead = draw(st.sampled_from([[], [b": keep-alive"], [b"event: delta"]]))
    return end.join([*lead, *lines]) + end + end


def rechunk(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    starts = [0, *places]
    return [data[a:b] for a, b in zip(starts, [*places, len(data)], strict=True)]


def split(chunks: list[bytes]) -> tuple[list[bytes], bytes]:
    splitter = EventSplitter()
    whole = [event for chunk in chunks for event in splitter.feed(chunk)]
    return whole, splitter.rest()


CUTS = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)


@given(st.lists(events(), max_size=6), CUTS)
def test_any_chunking_yields_the_same_events(whole: list[bytes], cuts: list[int]) -> None:
    assert split(rechunk(b"".join(whole), cuts)) == (whole, b"")


@given(st.lists(events(), max_size=4), st.sampled_from([b"data: {", b"data: x\n", b"da", b"\r"]))
def test_an_event_without_its_end_is_the_rest(whole: list[bytes], rest: bytes) -> None:
    assert split([b"".join(whole) + rest]) == (whole, rest)


@given(st.text(alphabet="a:d\r\n ", max_size=60).map(str.encode), CUTS)
def test_no_byte_is_lost_or_moved_by_any_chunking(data: bytes, cuts: list[int]) -> None:
    whole, rest = split(rechunk(data, cuts))
    assert b"".join(whole) + rest == data
    assert (whole, rest) == split([data])


@given(st.lists(events(), min_size=1, max_size=4))
def test_byte_by_byte_an_event_comes_with_its_last_byte(whole: list[bytes]) -> None:
    splitter = EventSplitter()
    for event in whole:
        *before, last = (event[i : i + 1] for i in range(len(event)))
        assert [splitter.feed(byte) for byte in before] == [[]] * len(before)
        assert splitter.feed(last) == [event]


def test_the_rest_is_handed_over_once() -> None:
    splitter = EventSplitter()
    splitter.feed(b"data: half")
    assert splitter.rest() == b"data: half"
    assert splitter.rest() == b""


def test_lines_of_both_kinds_may_stand_in_one_stream() -> None:
    whole = [b"data: a\n\n", b"data: b\r\n\r\n", b"data: c\n\n"]
    assert split([b"".join(whole)]) == (whole, b"")


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: {}\n\n", b"{}"),
        (b"data:{}\r\n\r\n", b"{}"),
        (b"data:  two\n\n", b" two"),
        (b"event: x\nid: 7\ndata: a\ndata: b\n\n", b"a\nb"),
        (b": keep-alive\n\n", b""),
        (b"data: [DONE]\n\n", b"[DONE]"),
    ],
)
def test_the_data_of_an_event_is_its_data_lines(event: bytes, data: bytes) -> None:
    assert event_data(event) == data


@given(events(), FIELD)
def test_replaced_data_reads_back_and_the_event_is_still_one(event: bytes, data: bytes) -> None:
    replaced = with_data(event, data)
    assert event_data(replaced) == data
    assert split([replaced]) == ([replaced], b"")


def test_replacing_the_data_keeps_the_other_fields() -> None:
    event = b"event: delta\r\nid: 7\r\ndata: old\r\ndata: older\r\n\r\n"
    assert with_data(event, b"new") == b"event: delta\nid: 7\ndata: new\n\n"


# ---- whole events alone


@given(st.text(alphabet="a:d\r\n ", max_size=60).map(str.encode), CUTS)
def test_a_framer_passes_on_what_is_whole_and_nothing_else(data: bytes, cuts: list[int]) -> None:
    framer = Framer()
    seen = passed = b""
    for piece in rechunk(data, cuts):
        seen += piece
        passed += framer.feed(piece)
        whole, rest = split([seen])
        assert passed.startswith(b"".join(whole))  # no whole event is held back
        held = seen[len(passed) :]
        assert seen.startswith(passed)
        assert rest.endswith(held)
        assert passed == b"" or passed.endswith((b"\n\n", b"\r\n\r\n"))
    assert passed + framer.rest() == data
    assert framer.rest() == b""


@given(st.lists(events(), min_size=1, max_size=4).map(b"".join))
def test_what_comes_whole_passes_as_the_object_that_it_is(whole: bytes) -> None:
    assert Framer().feed(whole) is whole


@given(st.lists(events(), max_size=4))
def test_whole_events_are_split_into_themselves(whole: list[bytes]) -> None:
    assert split_events(b"".join(whole)) == whole


@given(st.lists(events(), min_size=1, max_size=4))
def test_each_byte_stands_in_the_event_that_it_is_of(whole: list[bytes]) -> None:
    start = 0
    for event in whole:
        for at in range(start, start + len(event)):
            assert event_start(b"".join(whole), at) == start
        start += len(event)
