"""Turns: fair between keys, first in first out within one, and nobody is forgotten."""

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from appliance.fairqueue import FairQueue, Share


@dataclass(frozen=True)
class Guest:
    number: int
    share: Share


KEYS = ("a", "b", "c")
CROWD = st.lists(st.sampled_from(KEYS), max_size=40)


def anybody(_guest: Guest) -> bool:
    return True


def line(keys: list[str]) -> FairQueue[Guest]:
    queue: FairQueue[Guest] = FairQueue()
    for number, key in enumerate(keys):
        queue.add(Guest(number, Share(key)))
    return queue


def pop(queue: FairQueue[Guest], may_run: Callable[[Guest], bool] = anybody) -> Guest | None:
    """Take out the next one, as the gate does it."""
    guest = queue.first(may_run)
    if guest is not None:
        queue.take(guest)
    return guest


def drained(queue: FairQueue[Guest]) -> list[Guest]:
    out = []
    while (guest := pop(queue)) is not None:
        out.append(guest)
    assert len(queue) == 0
    return out


@given(CROWD)
def test_within_a_key_the_first_that_came_goes_first(keys: list[str]) -> None:
    out = drained(line(keys))
    assert sorted(guest.number for guest in out) == list(range(len(keys)))
    for key in KEYS:
        numbers = [guest.number for guest in out if guest.share.key == key]
        assert numbers == sorted(numbers)


@given(CROWD)
def test_between_two_turns_of_a_waiting_key_each_other_has_one_at_most(keys: list[str]) -> None:
    out = [guest.share.key for guest in drained(line(keys))]
    for key in KEYS:
        turns = [at for at, name in enumerate(out) if name == key]
        for before, after in zip([-1, *turns], turns, strict=False):
            between = out[before + 1 : after]
            assert len(between) == len(set(between))


def test_a_key_that_comes_late_has_its_turn_after_one_round() -> None:
    queue = line(["a"] * 10 + ["b"])
    pop(queue)
    assert [guest.share.key for guest in drained(queue)][:2] == ["b", "a"]


@given(CROWD, st.sets(st.integers(0, 39), max_size=5))
def test_who_is_put_back_stands_before_all_others_in_the_old_order(
    keys: list[str], chosen: set[int]
) -> None:
    queue = line(keys)
    guests = {guest.number: guest for guest in queue}
    back = [guests[number] for number in chosen if number in guests]
    for guest in back:
        queue.remove(guest)
    for guest in back:
        queue.put_back(guest)
    out = [guest.number for guest in drained(queue)]
    assert out[: len(back)] == sorted(guest.number for guest in back)


def test_a_key_at_its_limit_is_passed_over_and_keeps_its_turn() -> None:
    queue = line(["a", "b", "a"])
    only_b = pop(queue, lambda guest: guest.share.key == "b")
    assert only_b is not None
    assert only_b.share.key == "b"
    assert pop(queue, lambda guest: guest.share.key == "b") is None
    assert [guest.number for guest in drained(queue)] == [0, 2]


@given(CROWD, st.integers(0, 39))
def test_who_leaves_is_missed_by_nobody_and_leaving_twice_is_nothing(
    keys: list[str], number: int
) -> None:
    queue = line(keys)
    left = Guest(number, Share(keys[number] if number < len(keys) else "z"))
    before = len(queue)
    queue.remove(left)
    queue.remove(left)
    assert len(queue) == before - (number < len(keys))
    assert sum(queue.count(key) for key in KEYS) == len(queue) == len(list(queue))
    assert left not in drained(queue)


def test_a_look_at_the_next_one_leaves_it_where_it_is() -> None:
    queue = line(["a", "b"])
    assert queue.first(anybody) is queue.first(anybody)
    assert len(queue) == 2


def test_a_cleared_queue_is_empty() -> None:
    queue = line(["a", "b"])
    queue.put_back(Guest(9, Share("a")))
    queue.clear()
    assert (len(queue), pop(queue), queue.count("a")) == (0, None, 0)
