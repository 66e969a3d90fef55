"""The gate: first in, first out; never one too many; never a place lost."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.admission import Gate
from appliance.errors import ApplianceError, EngineFailed, RequestError

LONG_S = 1000.0


def failed() -> EngineFailed:
    return EngineFailed("the engine is failed", "appliance start")


async def turn() -> None:
    """Let everything that can run now run once."""
    await asyncio.sleep(0)


async def settle() -> None:
    for _ in range(10):
        await turn()


@dataclass
class Guest:
    """One request: it asks for a place, holds it until told to leave, and notes what it met."""

    gate: Gate
    timeout_s: float = LONG_S
    inside: bool = False
    was_inside: bool = False
    met: BaseException | None = None
    on_entry: Callable[[], None] = lambda: None
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None

    def come(self) -> "Guest":
        self.task = asyncio.get_running_loop().create_task(self._stay())
        return self

    def cancel(self) -> None:
        assert self.task is not None
        self.task.cancel()

    async def gone(self) -> None:
        assert self.task is not None
        await asyncio.wait([self.task])
        assert self.task.cancelled() or self.task.exception() is None

    async def _stay(self) -> None:
        try:
            with self.gate.enter() as ticket:
                async with asyncio.timeout(self.timeout_s):
                    while not await ticket.wait():
                        pass
                self.inside = self.was_inside = True
                self.on_entry()
                try:
                    await self.leaving.wait()
                finally:
                    self.inside = False
        except (ApplianceError, TimeoutError, asyncio.CancelledError) as error:
            self.met = error


async def crowd(gate: Gate, count: int) -> list[Guest]:
    guests = [Guest(gate).come() for _ in range(count)]
    await settle()
    return guests


async def dismiss(gate: Gate, guests: list[Guest]) -> None:
    """Let everybody in and out again."""
    gate.open()
    for guest in guests:
        guest.leaving.set()
    for guest in guests:
        await guest.gone()
    assert (gate.running, gate.waiting) == (0, 0)


def opened(places: int, max_waiting: int = 64) -> Gate:
    gate = Gate(places, max_waiting)
    gate.open()
    return gate


# ---- the queue


async def test_no_more_run_than_there_are_places() -> None:
    gate = opened(2)
    guests = await crowd(gate, 5)
    assert [guest.inside for guest in guests] == [True, True, False, False, False]
    assert (gate.running, gate.waiting) == (2, 3)
    await dismiss(gate, guests)


async def test_a_new_gate_holds_everybody_until_it_opens() -> None:
    gate = Gate(2, 64)
    guests = await crowd(gate, 2)
    assert (gate.running, gate.waiting) == (0, 2)
    gate.open()
    await settle()
    assert all(guest.inside for guest in guests)
    await dismiss(gate, guests)


async def test_who_came_first_goes_first() -> None:
    gate = opened(1)
    order: list[int] = []
    guests = [Guest(gate, on_entry=lambda n=n: order.append(n)) for n in range(6)]  # type: ignore[misc]
    for guest in guests:
        guest.come()
        await turn()
    for guest in guests:
        await settle()
        guest.leaving.set()
    await settle()
    assert order == [0, 1, 2, 3, 4, 5]
    assert gate.running == 0


async def test_a_newcomer_does_not_overtake_the_queue_when_a_place_comes_free() -> None:
    gate = opened(1)
    first, second = await crowd(gate, 2)
    first.leaving.set()
    newcomer = Guest(gate).come()
    await settle()
    assert (second.inside, newcomer.inside) == (True, False)
    await dismiss(gate, [first, second, newcomer])


async def test_one_more_than_may_wait_is_sent_away_with_429() -> None:
    gate = opened(1, max_waiting=2)
    guests = await crowd(gate, 4)
    met = guests[3].met
    assert isinstance(met, RequestError)
    assert (met.http_status, met.code) == (429, "queue_full")
    assert "APPLIANCE_MAX_WAITING" in met.hint
    assert gate.waiting == 2
    await dismiss(gate, guests)


async def test_with_no_queue_a_free_place_is_still_given() -> None:
    gate = opened(1, max_waiting=0)
    guests = await crowd(gate, 2)
    assert guests[0].inside
    assert isinstance(guests[1].met, RequestError)
    await dismiss(gate, guests)


async def test_who_waits_too_long_leaves_the_queue_without_a_place() -> None:
    gate = opened(1)
    holder = Guest(gate).come()
    await turn()
    with gate.enter() as late:
        assert not await late.wait(0.01)
    assert (gate.running, gate.waiting) == (1, 0)
    await dismiss(gate, [holder])


async def test_who_has_a_place_waits_for_nothing() -> None:
    with opened(1).enter() as ticket:
        assert await ticket.wait(0.0)


# ---- the engine comes and goes


async def test_a_held_gate_lets_who_is_inside_finish_and_nobody_in() -> None:
    gate = opened(1)
    guests = await crowd(gate, 2)
    gate.hold()
    guests[0].leaving.set()
    await settle()
    assert (gate.running, gate.waiting) == (0, 1)
    await dismiss(gate, guests)
    assert guests[1].was_inside


async def test_a_refusal_wakes_all_who_wait_and_spares_who_is_inside() -> None:
    gate = opened(1)
    guests = await crowd(gate, 4)
    gate.refuse(failed)
    await settle()
    assert [type(guest.met) for guest in guests[1:]] == [EngineFailed] * 3
    assert guests[0].inside
    assert gate.waiting == 0
    await dismiss(gate, guests)


async def test_each_who_is_refused_gets_an_error_of_his_own() -> None:
    gate = Gate(1, 64)
    guests = await crowd(gate, 2)
    gate.refuse(failed)
    await settle()
    assert guests[0].met is not guests[1].met


async def test_who_comes_during_a_refusal_is_refused_at_once() -> None:
    gate = Gate(1, 64)
    gate.refuse(failed)
    with pytest.raises(EngineFailed, match="the engine is failed"), gate.enter():
        pytest.fail("let in during a refusal")


@pytest.mark.parametrize("change", [Gate.open, Gate.hold])
async def test_a_refusal_ends_when_the_engine_comes_back(change: Callable[[Gate], None]) -> None:
    gate = Gate(1, 64)
    gate.refuse(failed)
    change(gate)
    guests = await crowd(gate, 1)
    assert guests[0].met is None
    await dismiss(gate, guests)
    assert guests[0].was_inside


# ---- leaving in every moment


async def test_an_error_inside_gives_the_place_back() -> None:
    gate = opened(1)
    with pytest.raises(ZeroDivisionError), gate.enter():
        raise ZeroDivisionError
    assert gate.running == 0


async def test_a_place_granted_to_one_who_leaves_goes_to_the_next() -> None:
    gate = opened(1)
    first, second, third = await crowd(gate, 3)
    first.leaving.set()
    while gate.waiting == 2:
        await turn()
    second.cancel()  # granted, and not yet awake
    await settle()
    assert isinstance(second.met, asyncio.CancelledError)
    assert not second.was_inside
    assert third.inside
    await dismiss(gate, [first, second, third])


async def test_a_place_left_in_the_moment_of_a_hang_up_goes_to_the_next() -> None:
    gate = opened(1)
    first, second, third = await crowd(gate, 3)
    first.leaving.set()
    second.cancel()  # before first has left: its wait is over, and it is still in the queue
    await settle()
    assert not second.was_inside
    assert third.inside
    await dismiss(gate, [first, second, third])


async def test_a_hang_up_in_the_queue_leaves_the_others_in_order() -> None:
    gate = opened(1)
    guests = await crowd(gate, 3)
    guests[1].cancel()
    await settle()
    assert gate.waiting == 1
    guests[0].leaving.set()
    await settle()
    assert guests[2].inside
    await dismiss(gate, guests)


OPS = st.one_of(
    st.tuples(st.just("come"), st.sampled_from([LONG_S, LONG_S, 0.0])),
    st.tuples(st.sampled_from(["leave", "cancel"]), st.integers(0, 7)),
    st.tuples(st.sampled_from(["open", "hold", "refuse"]), st.just(0)),
    st.tuples(st.just("turn"), st.integers(1, 3)),
)


@given(st.integers(1, 3), st.integers(0, 4), st.lists(OPS, max_size=60))
def test_no_interleaving_loses_or_invents_a_place(
    places: int, max_waiting: int, ops: list[tuple[str, float]]
) -> None:
    run(_interleave(Gate(places, max_waiting), places, ops))


def run(story: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner() as runner:
        runner.run(story)


async def _interleave(gate: Gate, places: int, ops: list[tuple[str, float]]) -> None:
    guests: list[Guest] = []
    for name, number in ops:
        await _do(gate, guests, name, number)
        inside = sum(guest.inside for guest in guests)
        assert 0 <= inside <= gate.running <= places
    await settle()
    assert gate.running == sum(guest.inside for guest in guests)
    await dismiss(gate, guests)
    again = await crowd(gate, places)
    assert all(guest.inside for guest in again)
    await dismiss(gate, again)


async def _do(gate: Gate, guests: list[Guest], name: str, number: float) -> None:
    match name:
        case "come":
            guests.append(Guest(gate, number).come())
        case "leave" | "cancel" if guests:
            guest = guests[int(number) % len(guests)]
            guest.cancel() if name == "cancel" else guest.leaving.set()
        case "open":
            gate.open()
        case "hold":
            gate.hold()
        case "refuse":
            gate.refuse(failed)
        case "turn":
            for _ in range(int(number)):
                await turn()
