"""The gate before requests that make the engine run several sequences: all places, or none."""

from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.admission import Gate, Ticket
from appliance.errors import ApplianceError, EngineFailed, RequestError
from appliance.fairqueue import Share

A, B = Share("a"), Share("b")


def opened(places: int, max_waiting: int = 64) -> Gate:
    gate = Gate(places, max_waiting)
    gate.open()
    return gate


def test_a_request_for_several_holds_as_many_places() -> None:
    gate = opened(3)
    with gate.enter(A, places=2) as two, gate.enter(A, places=2) as more:
        assert (two.has_place, more.has_place) == (True, False)
        assert (gate.running, gate.waiting) == (1, 1)
        assert gate.by_key() == {"a": (1, 1)}
    assert (gate.running, gate.waiting) == (0, 0)


@pytest.mark.parametrize("state", ["open", "hold", "refuse"])
def test_more_than_there_are_is_refused_with_both_numbers_whatever_the_engine_does(
    state: str,
) -> None:
    gate = opened(2)
    if state == "hold":
        gate.hold(lambda: pytest.fail("nobody is wanted"))
    if state == "refuse":
        gate.refuse(lambda: EngineFailed("the engine is failed"))
    with pytest.raises(RequestError) as caught, gate.enter(places=5):
        pytest.fail("let in")
    error = caught.value
    assert (error.http_status, error.code) == (400, "too_many_sequences")
    assert "5 sequences" in error.what
    assert "2 run at once" in error.what
    assert "APPLIANCE_MAX_NUM_SEQS" in error.hint
    assert gate.waiting == 0


def test_more_than_a_key_may_run_is_refused_by_the_keys_own_limit() -> None:
    gate = opened(4)
    one = Share("ci", max_running=1)
    with pytest.raises(RequestError) as caught, gate.enter(one, places=2):
        pytest.fail("let in")
    assert caught.value.code == "too_many_sequences"
    assert "'ci' may run 1 " in caught.value.what
    assert "--max-running 2" in caught.value.hint


def test_a_keys_limit_counts_sequences() -> None:
    gate = opened(4)
    two = Share("a", max_running=2)
    with gate.enter(two) as first, gate.enter(two, places=2) as second, gate.enter(B) as other:
        assert [ticket.has_place for ticket in (first, second, other)] == [True, False, True]


def test_who_needs_several_is_overtaken_by_nobody() -> None:
    gate = opened(2)
    with ExitStack() as ends:
        ends.enter_context(gate.enter(A))
        with gate.enter(A, places=2) as two, gate.enter(B) as late:
            assert (two.has_place, late.has_place) == (False, False)
            ends.close()
            assert (two.has_place, late.has_place) == (True, False)


def test_who_needs_less_goes_on_at_once_when_the_one_before_it_leaves() -> None:
    gate = opened(2)
    with gate.enter(A), ExitStack() as gone:
        gone.enter_context(gate.enter(A, places=2))
        with gate.enter(B) as behind:
            assert not behind.has_place
            gone.close()
            assert behind.has_place


def test_who_needs_several_and_is_sent_back_gives_all_of_them_free() -> None:
    gate = opened(2)
    with gate.enter(places=2) as two, gate.enter() as one:
        two.back()
        assert (two.has_place, one.has_place) == (True, False)  # its old turn is the first
        gate.hold()
        two.back()
        assert (gate.running, gate.waiting) == (0, 2)


STEPS = st.one_of(
    st.tuples(st.just("enter"), st.integers(1, 4)),
    st.tuples(st.sampled_from(["leave", "back"]), st.integers(0, 9)),
    st.tuples(st.sampled_from(["open", "hold", "refuse"]), st.just(0)),
)


@dataclass
class Story:
    """A gate, and who is before or behind it."""

    gate: Gate
    guests: list[tuple[Ticket, ExitStack]] = field(default_factory=list)

    def do(self, name: str, number: int, share: Share) -> None:
        if name == "enter":
            stack = ExitStack()
            with suppress(ApplianceError):
                self.guests.append((stack.enter_context(self.gate.enter(share, number)), stack))
        elif name in ("leave", "back") and self.guests:
            at = number % len(self.guests)
            if name == "leave":
                self.guests.pop(at)[1].close()
            else:
                with suppress(ApplianceError):
                    self.guests[at][0].back()
        elif name == "refuse":
            self.gate.refuse(lambda: EngineFailed("the engine is failed"))
        elif name in ("open", "hold"):
            getattr(self.gate, name)()


SHARES = st.sampled_from([A, B, Share("c", max_running=2)])


@given(st.integers(1, 4), st.lists(st.tuples(STEPS, SHARES), max_size=60))
def test_no_history_gives_more_places_than_there_are_or_leaves_all_of_them_idle(
    places: int, steps: list[tuple[tuple[str, int], Share]]
) -> None:
    story = Story(Gate(places, 4))
    for (name, number), share in steps:
        story.do(name, number, share)
        inside = [ticket for ticket, _ in story.guests if ticket.has_place]
        assert sum(ticket.places for ticket in inside) <= places
        assert sum(t.places for t in inside if t.share.key == "c") <= 2
        assert story.gate.running == len(inside)
        waiting = [t for t, _ in story.guests if not t.has_place and t.refusal is None]
        assert story.gate.waiting == len(waiting)
        assert not (story.gate.is_open and waiting and not inside)
    for _, stack in story.guests:
        stack.close()
    assert (story.gate.running, story.gate.waiting, story.gate.by_key()) == (0, 0, {})
    story.gate.open()
    with story.gate.enter(places=places) as whole:
        assert whole.has_place
