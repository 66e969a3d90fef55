"""The gate between keys: turns, limits, and a seat for who is alone."""

from contextlib import ExitStack, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.admission import Gate, Ticket
from appliance.errors import ApplianceError, RequestError
from appliance.fairqueue import Share

A, B = Share("a"), Share("b")


def opened(places: int, max_waiting: int = 64) -> Gate:
    gate = Gate(places, max_waiting)
    gate.open()
    return gate


def refused(gate: Gate, share: Share) -> RequestError:
    with pytest.raises(RequestError) as caught, gate.enter(share):
        pytest.fail("let in")
    assert caught.value.http_status == 429
    return caught.value


def test_the_keys_take_turns() -> None:
    gate = opened(1)
    order: list[str] = []
    with ExitStack() as stack:
        waiting: list[tuple[Ticket, ExitStack]] = []
        for share in (A, A, A, A, B, B):
            own = stack.enter_context(ExitStack())
            waiting.append((own.enter_context(gate.enter(share)), own))
        for _ in range(6):
            ticket, own = next(row for row in waiting if row[0].has_place)
            order.append(ticket.share.key)
            waiting.remove((ticket, own))
            own.close()
    assert order == ["a", "a", "b", "a", "b", "a"]


def test_a_key_runs_no_more_than_its_limit_while_others_take_the_free_places() -> None:
    gate = opened(3)
    one = Share("a", max_running=1)
    with gate.enter(one) as first, gate.enter(one) as second, gate.enter(B) as other:
        assert (first.has_place, second.has_place, other.has_place) == (True, False, True)
        assert gate.by_key() == {"a": (1, 1), "b": (1, 0)}
    assert gate.by_key() == {}


def test_who_waits_for_its_keys_limit_passes_when_one_of_its_own_ends() -> None:
    gate = opened(3)
    one = Share("a", max_running=1)
    with ExitStack() as stack:
        stack.enter_context(gate.enter(one))
        with gate.enter(one) as second:
            assert not second.has_place
            stack.close()
            assert second.has_place


def test_a_key_waits_no_more_than_its_limit_and_is_told_which() -> None:
    gate = opened(1)
    few = Share("a", max_waiting=1)
    with gate.enter(few), gate.enter(few):
        error = refused(gate, few)
        assert error.code == "key_queue_full"
        assert "'a'" in error.what
        with gate.enter(B):
            assert gate.waiting == 2


def test_a_queue_that_one_key_fills_has_a_seat_for_another() -> None:
    gate = opened(1, max_waiting=2)
    with gate.enter(A), gate.enter(A), gate.enter(A), gate.enter(B):
        assert gate.waiting == 3
        assert refused(gate, A).code == "queue_full"
        assert refused(gate, B).code == "queue_full"


def test_without_a_queue_nobody_has_a_seat() -> None:
    gate = opened(1, max_waiting=0)
    with gate.enter(A):
        assert refused(gate, B).code == "queue_full"


def test_a_raised_limit_lets_nobody_overtake_its_own_key() -> None:
    gate, one, three = opened(3), Share("a", max_running=1), Share("a", max_running=3)
    with gate.enter(one), gate.enter(one) as second, gate.enter(three) as third:
        assert (second.has_place, third.has_place) == (False, False)


def test_who_stood_behind_a_lower_limit_passes_when_it_leaves() -> None:
    gate = opened(3)
    with gate.enter(Share("a", max_running=1)), ExitStack() as stack:
        stack.enter_context(gate.enter(Share("a", max_running=1)))
        with gate.enter(Share("a", max_running=3)) as third:
            stack.close()
            assert third.has_place


SHARES = [Share(key, running, waiting) for key in "abc" for running, waiting in
          ((None, None), (1, None), (2, 1))]  # fmt: skip
STEPS = st.lists(
    st.tuples(st.sampled_from(["enter", "enter", "leave", "back", "open", "hold"]),
              st.integers(0, 8)),
    max_size=80,
)  # fmt: skip


@given(st.integers(1, 3), st.integers(0, 4), STEPS)
def test_over_all_histories_limits_hold_and_no_place_stays_free_for_one_who_may_have_it(
    places: int, max_waiting: int, steps: list[tuple[str, int]]
) -> None:
    gate = opened(places, max_waiting)
    tickets: list[tuple[Ticket, ExitStack]] = []
    for name, number in steps:
        _step(gate, tickets, name, number)
        inside = [ticket for ticket, _ in tickets if ticket.has_place]
        waiting = [ticket for ticket, _ in tickets if not ticket.has_place]
        assert (gate.running, gate.waiting) == (len(inside), len(waiting))
        assert gate.running <= places
        assert gate.waiting <= max_waiting + places + 3
        for ticket in waiting:
            share = ticket.share
            own = [other for other in inside if other.share.key == share.key]
            line = [other for other in waiting if other.share.key == share.key]
            is_first = ticket is min(line, key=lambda other: other.number)
            is_full = share.max_running is not None and len(own) >= share.max_running
            assert not gate.is_open or gate.running == places or is_full or not is_first
    for _, stack in tickets:
        stack.close()
    assert (gate.running, gate.waiting, gate.by_key()) == (0, 0, {})


def _step(gate: Gate, tickets: list[tuple[Ticket, ExitStack]], name: str, number: int) -> None:
    match name:
        case "enter":
            stack = ExitStack()
            with suppress(ApplianceError):
                tickets.append((stack.enter_context(gate.enter(SHARES[number])), stack))
        case "leave" if tickets:
            tickets.pop(number % len(tickets))[1].close()
        case "back" if tickets:
            tickets[number % len(tickets)][0].back()
        case "open":
            gate.open()
        case "hold":
            gate.hold()
