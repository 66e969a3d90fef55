"""The gate's tickets: who waits, who is sent back, who is told; and a model of all histories."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.admission import Gate, Ticket
from appliance.errors import ApplianceError, EngineFailed, RequestError
from tests.unit.test_admission import LONG_S, failed, opened, settle, turn


async def test_whether_one_may_wait_is_known_before_the_wait() -> None:
    gate = Gate(1, max_waiting=1)
    with gate.enter() as first:
        assert not first.has_place
        with pytest.raises(RequestError, match="waiting already"), gate.enter():
            pytest.fail("there was no room to wait")
    gate.refuse(failed)
    with pytest.raises(EngineFailed), gate.enter():
        pytest.fail("entered during a refusal")


async def test_a_wait_ends_early_when_the_gate_opens_or_shuts() -> None:
    gate = opened(1)
    with gate.enter(), gate.enter() as second:
        for change in (gate.hold, gate.open):
            wait = asyncio.ensure_future(second.wait(LONG_S))
            await settle()
            change()
            assert await wait is False


async def test_a_place_that_comes_with_the_timeout_is_not_lost() -> None:
    gate = Gate(1, 1)
    with gate.enter() as ticket:
        wait = asyncio.ensure_future(ticket.wait(0.0))
        await turn()
        gate.open()
        assert await wait is True
    assert gate.running == 0


async def test_who_is_sent_back_passes_before_all_who_came_later() -> None:
    gate = opened(2)
    with gate.enter() as first, gate.enter() as second, gate.enter() as third:
        gate.hold()
        second.back()
        first.back()
        assert (gate.running, gate.waiting) == (0, 3)
        gate.open()
        assert [ticket.has_place for ticket in (first, second, third)] == [True, True, False]


async def test_who_is_sent_back_is_not_turned_away_by_a_full_queue() -> None:
    gate = opened(1, max_waiting=1)
    with gate.enter() as first, gate.enter():
        gate.hold()
        first.back()
        assert gate.waiting == 2


async def test_who_is_sent_back_into_a_refusal_meets_it() -> None:
    gate = opened(1)
    with gate.enter() as ticket:
        gate.refuse(failed)
        with pytest.raises(EngineFailed):
            ticket.back()
    assert gate.running == 0


async def test_those_who_wait_keep_their_turns_over_restarts() -> None:
    gate = Gate(1, 64)
    with ExitStack() as queue:
        tickets = [queue.enter_context(gate.enter()) for _ in range(4)]
        for _ in range(3):
            gate.open()
            gate.hold()
            tickets[0].back()
        gate.open()
        assert [ticket.has_place for ticket in tickets] == [True, False, False, False]


async def test_the_gates_end_of_being_open_can_be_awaited() -> None:
    gate = opened(1)
    assert gate.is_open
    assert not await gate.shut(0.0)
    wait = asyncio.ensure_future(gate.shut(LONG_S))
    await turn()
    gate.hold()
    assert await wait
    assert not gate.is_open


async def test_a_held_gate_wakes_the_engine_for_each_who_comes_and_for_who_waits() -> None:
    woken: list[str] = []
    gate = opened(1, max_waiting=1)
    with gate.enter(), gate.enter():
        gate.hold(lambda: woken.append("once"))
        assert len(woken) == 1
        with suppress(RequestError), gate.enter():
            pytest.fail("there was no room to wait")
        assert len(woken) == 2
    gate.open()
    with gate.enter(), gate.enter():
        assert len(woken) == 2


async def test_a_held_gate_with_nobody_before_it_wakes_nobody() -> None:
    gate = Gate(1, 1)
    gate.hold(lambda: pytest.fail("nobody asked"))
    gate.hold()
    with gate.enter():
        pass


async def test_the_end_of_the_last_who_ran_is_told() -> None:
    idle: list[int] = []
    gate = opened(2)
    gate.on_idle = lambda: idle.append(gate.running)
    with gate.enter():
        with gate.enter():
            pass
        assert idle == []
    assert idle == [0]


STEPS = st.one_of(
    st.tuples(st.sampled_from(["enter", "open", "hold", "refuse"]), st.just(0)),
    st.tuples(st.sampled_from(["leave", "back"]), st.integers(0, 9)),
)


@dataclass
class Model:
    """What the gate should be: who waits and who is inside, by number."""

    places: int
    max_waiting: int
    state: str = "hold"
    inside: set[int] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    wakes: int = 0
    idles: int = 0

    def enter(self, number: int) -> bool:
        """Tell whether this one may enter."""
        if self.state == "refuse":
            return False
        is_free = self.state == "open" and len(self.inside) < self.places and not self.waiting
        self.wakes += self.state == "hold"
        if not is_free and len(self.waiting) >= self.max_waiting:
            return False
        self.waiting.add(number)
        return True

    def leave(self, number: int) -> None:
        was_inside = number in self.inside
        self.inside -= {number}
        self.waiting -= {number}
        self.settle()
        self.idles += was_inside and not self.inside

    def back(self, number: int) -> None:
        if number in self.inside and self.state != "refuse":
            self.inside.remove(number)
            self.waiting.add(number)
            self.wakes += self.state == "hold"
            self.settle()
            self.idles += not self.inside

    def turn(self, state: str) -> None:
        self.state = state
        if state == "refuse":
            self.refused |= self.waiting
            self.waiting.clear()
        self.wakes += state == "hold" and bool(self.waiting)

    def settle(self) -> None:
        while self.state == "open" and self.waiting and len(self.inside) < self.places:
            first = min(self.waiting)
            self.waiting.remove(first)
            self.inside.add(first)


@given(st.integers(1, 3), st.integers(0, 4), st.lists(STEPS, max_size=80))
def test_the_gate_is_its_model_over_all_histories(
    places: int, max_waiting: int, steps: list[tuple[str, int]]
) -> None:
    gate, model, wakes, idles = Gate(places, max_waiting), Model(places, max_waiting), [0], [0]

    def bump(counter: list[int]) -> None:
        counter[0] += 1

    gate.on_idle = lambda: bump(idles)
    gate.hold(lambda: bump(wakes))
    tickets: dict[int, tuple[Ticket, ExitStack]] = {}
    for name, number in steps:
        _step(gate, model, tickets, name, number, lambda: bump(wakes))
        model.settle()
        assert {n for n, (t, _) in tickets.items() if t.has_place} == model.inside
        assert {n for n, (t, _) in tickets.items() if t.refusal} == model.refused & tickets.keys()
        assert (gate.running, gate.waiting) == (len(model.inside), len(model.waiting))
        assert gate.running <= places
        assert gate.waiting <= max_waiting + places
        assert (wakes[0], idles[0]) == (model.wakes, model.idles)
    for _, stack in tickets.values():
        stack.close()
    assert (gate.running, gate.waiting) == (0, 0)


def _step(
    gate: Gate,
    model: Model,
    tickets: dict[int, tuple[Ticket, ExitStack]],
    name: str,
    number: int,
    wake: Callable[[], None],
) -> None:
    chosen = sorted(tickets)[number % len(tickets)] if tickets else None
    match name:
        case "enter":
            stack, ticket = ExitStack(), None
            with suppress(ApplianceError):
                ticket = stack.enter_context(gate.enter())
                tickets[ticket.number] = ticket, stack
            arrived = ticket.number if ticket else -1
            assert model.enter(arrived) is (ticket is not None)
        case "leave" if chosen is not None:
            tickets.pop(chosen)[1].close()
            model.leave(chosen)
        case "back" if chosen is not None:
            with suppress(EngineFailed):
                tickets[chosen][0].back()
            model.back(chosen)
        case "open":
            gate.open()
            model.turn("open")
        case "hold":
            gate.hold(wake)
            model.turn("hold")
        case "refuse":
            gate.refuse(failed)
            model.turn("refuse")
