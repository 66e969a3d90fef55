"""The wedge rule: its laws over random histories, and its single cases by name."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import wedge
from appliance.wedge import (
    Verdict,
    Vitals,
    Watch,
    WedgePolicy,
    look,
    power_due,
    probe_due,
    probed,
)

FINE, SUSPECT, WEDGED = Verdict.FINE, Verdict.SUSPECT, Verdict.WEDGED
POLICY = WedgePolicy()
POWERED = WedgePolicy(power_floor_w=30.0)
BUSY = Vitals(at=0.0, in_flight=1, engine_load=1, heartbeat=(5.0,), chunks=7)
IDLE = replace(BUSY, in_flight=0, engine_load=0)
DEAF = replace(BUSY, engine_load=None, heartbeat=None)

policies = st.builds(
    WedgePolicy,
    quiet_s=st.floats(4, 600),
    prefill_tokens_per_s=st.floats(10, 5000),
    power_floor_w=st.none() | st.floats(5, 60),
    probe_every_s=st.floats(1, 600),
    max_prompt_tokens=st.none() | st.integers(0, 20_000),
)
starts = st.floats(0, 1e6)
sizes = st.integers(0, 200_000)
powers = st.none() | st.floats(0, 200)


def seen(sights: Iterable[Vitals], policy: WedgePolicy) -> Iterator[tuple[Watch, Verdict]]:
    """Yield what each look leaves and says, from a new watch on."""
    watch = Watch()
    for vitals in sights:
        watch, verdict = look(watch, vitals, policy)
        yield watch, verdict


def last(sights: Iterable[Vitals], policy: WedgePolicy = POLICY) -> tuple[Watch, Verdict]:
    *_, end = seen(sights, policy)
    return end


def steady(vitals: Vitals, seconds: float, every_s: float = 1.0) -> list[Vitals]:
    """Return the same sight each second, from its time on and at its very end."""
    ticks = [vitals.at + i * every_s for i in range(int(seconds / every_s) + 1)]
    return [replace(vitals, at=at) for at in (*ticks, vitals.at + seconds)]


# ---- laws


@given(policies, starts, sizes, powers, st.data())
def test_an_engine_that_moves_once_per_allowance_is_never_wedged(
    policy: WedgePolicy, start: float, size: int, power_w: float | None, data: st.DataObject
) -> None:
    allowance_s = policy.allowance_s(size)
    vitals = Vitals(start, in_flight=1, prompt_bytes=size, power_w=power_w, heartbeat=(0.0,))
    sights = [vitals]
    for _ in range(data.draw(st.integers(1, 6))):
        # silence of up to the allowance, in looks that are never blind, then a sign of life
        parts = data.draw(st.integers(3, 8)) * max(1, int(allowance_s / policy.quiet_s))
        silence_s = data.draw(st.floats(0.1, 0.99)) * allowance_s
        sights += steady(vitals, silence_s * (1 - 1 / parts), silence_s / parts)
        moved = {"chunks": vitals.chunks + 1}
        beaten: dict[str, object] = {"heartbeat": (vitals.at + 1.0,)}
        which = data.draw(st.sampled_from([moved, beaten]))
        vitals = replace(vitals, at=vitals.at + silence_s, **which)  # type: ignore[arg-type]
        sights.append(vitals)
    assert {verdict for _, verdict in seen(sights, policy)} == {FINE}


looks = st.builds(
    Vitals,
    at=st.floats(0.01, 30),  # a step here; summed up below
    in_flight=st.integers(0, 2),
    engine_load=st.none() | st.integers(0, 2),
    heartbeat=st.none() | st.tuples(st.integers(0, 2).map(float)),
    chunks=st.integers(0, 2),
    prompt_bytes=sizes,
    power_w=powers,
)


def in_order(steps: list[Vitals]) -> list[Vitals]:
    at, sights = 0.0, []
    for vitals in steps:
        at += vitals.at
        sights.append(replace(vitals, at=at))
    return sights


@given(policies, st.lists(looks, min_size=1, max_size=60))
def test_nothing_is_wedged_or_suspect_before_the_allowance(
    policy: WedgePolicy, steps: list[Vitals]
) -> None:
    """An oracle that keeps the whole history: the allowance has passed without any change."""
    sights = in_order(steps)
    for i, (_, verdict) in enumerate(seen(sights, policy)):
        if verdict is FINE:
            continue
        here = sights[i]
        since = here.at - policy.allowance_s(here.prompt_bytes)
        silent = [vitals for vitals in sights[: i + 1] if vitals.at >= since]
        assert sights[0].at <= since + 1e-6
        assert len({vitals.chunks for vitals in silent}) == 1
        assert len({vitals.heartbeat for vitals in silent} - {None}) <= 1


@given(policies, st.lists(looks, max_size=20), starts, sizes, powers)
def test_silence_of_twice_the_allowance_is_always_wedged(
    policy: WedgePolicy, before: list[Vitals], start: float, size: int, power_w: float | None
) -> None:
    policy = replace(policy, prefill_tokens_per_s=max(200.0, policy.prefill_tokens_per_s))
    history = in_order(before)
    vitals = replace(BUSY, at=start + (history[-1].at if history else 0), prompt_bytes=size)
    vitals = replace(vitals, power_w=power_w)
    # What came before may have held a larger prompt: the clock starts at a sign of life.
    life = replace(vitals, heartbeat=(99.0,), at=vitals.at + 0.01)
    silence = replace(life, at=life.at + 0.01)
    sights = [*history, vitals, life, *steady(silence, 2 * policy.allowance_s(size))]
    assert last(sights, policy)[1] is WEDGED


@given(policies, st.lists(looks, min_size=1, max_size=60))
def test_an_idle_engine_is_never_wedged(policy: WedgePolicy, steps: list[Vitals]) -> None:
    idle = [replace(vitals, in_flight=0, engine_load=0) for vitals in in_order(steps)]
    assert {verdict for _, verdict in seen(idle, policy)} == {FINE}


@given(policies, sizes, sizes)
def test_a_larger_prompt_never_shortens_the_allowance(
    policy: WedgePolicy, one: int, other: int
) -> None:
    small, large = sorted((one, other))
    assert policy.quiet_s <= policy.allowance_s(small) <= policy.allowance_s(large)


@given(policies, st.lists(looks, min_size=1, max_size=60))
def test_power_postpones_a_kill_and_never_hastens_one(
    policy: WedgePolicy, steps: list[Vitals]
) -> None:
    sights = in_order(steps)
    unread = [replace(vitals, power_w=None) for vitals in sights]
    for (watch, measured), (_, blind) in zip(
        seen(sights, policy), seen(unread, policy), strict=True
    ):
        assert (measured is FINE) == (blind is FINE)
        if measured is SUSPECT:
            assert blind is WEDGED
            assert watch.silence_s < 2 * policy.allowance_s(watch.prompt_bytes)


@given(policies)
def test_the_policy_s_own_pace_is_never_blind(policy: WedgePolicy) -> None:
    assert policy.look_every_s + 2 * policy.read_within_s < policy.blind_s


@given(policies, st.lists(looks, min_size=1, max_size=60))
def test_a_probe_is_never_sent_to_a_busy_engine(policy: WedgePolicy, steps: list[Vitals]) -> None:
    watch = Watch()
    for vitals in in_order(steps):
        load = watch.load if vitals.engine_load is None else vitals.engine_load
        due = probe_due(watch, vitals, policy)
        assert not (due and (vitals.in_flight or load))
        watch, _ = look(watch, vitals, policy)


def test_the_rule_is_pure() -> None:
    tree = ast.parse(Path(wedge.__file__).read_text())
    names = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    names |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert names == {"dataclasses", "enum"}


# ---- silence


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.5, FINE), (0.9, FINE), (0.999, FINE), (1.0, WEDGED), (1.2, WEDGED)]
)
@pytest.mark.parametrize("sight", [BUSY, DEAF], ids=["answers", "deaf"])
def test_the_allowance_decides(share: float, verdict: Verdict, sight: Vitals) -> None:
    assert last(steady(sight, share * POLICY.quiet_s))[1] is verdict


def test_one_long_step_of_most_of_the_allowance_is_no_wedge() -> None:
    quiet = steady(BUSY, 0.9 * POLICY.quiet_s)
    moved = replace(BUSY, at=quiet[-1].at + 1, heartbeat=(6.0,))
    assert last([*quiet, *steady(moved, 0.9 * POLICY.quiet_s)])[1] is FINE


@pytest.mark.parametrize(
    "change",
    [{"heartbeat": (6.0,)}, {"heartbeat": (4.0,)}, {"chunks": 8}],
    ids=["forward", "back", "chunk"],
)
def test_any_change_is_a_sign_of_life(change: dict[str, object]) -> None:
    moved = replace(BUSY, at=170.0, **change)  # type: ignore[arg-type]
    watch, verdict = last([*steady(BUSY, 169), moved])
    assert (watch.silence_s, verdict) == (0.0, FINE)


def test_an_answer_without_news_after_silence_is_no_life() -> None:
    deaf = replace(DEAF, at=60.0)
    back = replace(BUSY, at=121.0)
    watch, _ = last([*steady(BUSY, 59), *steady(deaf, 60), back])
    assert watch.silence_s == 121.0


def test_a_request_that_comes_or_goes_is_no_life() -> None:
    more = replace(BUSY, at=100.0, in_flight=3, engine_load=3)
    assert last([*steady(BUSY, 99), more])[0].silence_s == 100.0


def test_silence_begins_when_the_engine_becomes_busy() -> None:
    busy = replace(BUSY, at=1001.0)
    watch, verdict = last([*steady(IDLE, 1000), *steady(busy, 100)])
    assert (watch.silence_s, verdict) == (100.0, FINE)


@pytest.mark.parametrize("load", [0, 1])
def test_requests_at_our_gate_alone_make_it_busy(load: int) -> None:
    assert last(steady(replace(BUSY, engine_load=load), 200))[1] is WEDGED


def test_requests_at_the_engine_alone_make_it_busy() -> None:
    assert last(steady(replace(IDLE, engine_load=1), 200))[1] is WEDGED


def test_an_engine_that_went_deaf_while_busy_stays_busy() -> None:
    deaf = replace(DEAF, at=10.0, in_flight=0)
    assert last([*steady(BUSY, 9), *steady(deaf, 180)])[1] is WEDGED


def test_a_deaf_engine_that_was_idle_is_left_to_the_probe() -> None:
    deaf = replace(DEAF, at=10.0, in_flight=0)
    watch, verdict = last([*steady(IDLE, 9), *steady(deaf, 1000)])
    assert verdict is FINE
    assert probe_due(watch, replace(deaf, at=1011.0), POLICY)


def test_a_prompt_s_length_buys_time() -> None:
    large = replace(BUSY, prompt_bytes=4 * 200 * 100)  # 100 s at the expected floor
    assert POLICY.allowance_s(large.prompt_bytes) == 280.0
    assert last(steady(large, 279))[1] is FINE
    assert last(steady(large, 280))[1] is WEDGED


def test_what_the_context_cannot_hold_buys_no_time() -> None:
    policy = WedgePolicy(max_prompt_tokens=20_000)
    assert policy.allowance_s(1 << 30) == 280.0


def test_a_large_prompt_that_leaves_does_not_end_the_allowance_at_once() -> None:
    large = replace(BUSY, prompt_bytes=80_000)
    small = replace(BUSY, at=200.0, prompt_bytes=100)
    assert last([*steady(large, 199), *steady(small, 79)])[1] is FINE
    alive = replace(small, at=201.0, chunks=8)
    assert last([*steady(large, 199), small, alive])[0].prompt_bytes == 100


# ---- power


@pytest.mark.parametrize(
    ("power_w", "share", "verdict"),
    [
        (45.0, 0.9, FINE),
        (45.0, 1.2, SUSPECT),
        (30.0, 1.2, SUSPECT),
        (16.0, 0.9, FINE),
        (16.0, 1.0, WEDGED),
        (None, 1.0, WEDGED),
        (45.0, 1.9, SUSPECT),
        (45.0, 2.0, WEDGED),
    ],
)
def test_power_below_the_floor_confirms_and_above_it_waits(
    power_w: float | None, share: float, verdict: Verdict
) -> None:
    sights = steady(replace(BUSY, power_w=power_w), share * POWERED.quiet_s)
    assert last(sights, POWERED)[1] is verdict


def test_a_suspect_that_moves_is_cleared() -> None:
    working = replace(BUSY, power_w=45.0)
    sights = steady(working, 200)
    assert last(sights, POWERED)[1] is SUSPECT
    assert last([*sights, replace(working, at=201.0, chunks=8)], POWERED)[1] is FINE


def test_a_suspect_whose_power_falls_is_wedged() -> None:
    sights = steady(replace(BUSY, power_w=45.0), 200)
    assert last([*sights, replace(BUSY, at=201.0, power_w=16.0)], POWERED)[1] is WEDGED


def test_power_is_wanted_from_half_the_allowance_on_and_only_where_it_counts() -> None:
    early, late = last(steady(BUSY, 89))[0], last(steady(BUSY, 90))[0]
    assert [power_due(watch, POWERED) for watch in (Watch(), early, late)] == [False, False, True]
    assert not power_due(late, POLICY)


# ---- what we did not watch


@pytest.mark.parametrize("jump_s", [91.0, 1e6, -5.0])
def test_a_time_that_nobody_watched_counts_for_nothing(jump_s: float) -> None:
    after = replace(BUSY, at=170.0 + jump_s)
    watch, verdict = last([*steady(BUSY, 170), after])
    assert (watch.silence_s, verdict) == (0.0, FINE)
    assert last([*steady(BUSY, 170), *steady(after, 180)])[1] is WEDGED


def test_a_slow_look_is_not_a_blind_one() -> None:
    assert last(steady(BUSY, 180, every_s=90))[1] is WEDGED


# ---- the probe


def test_an_idle_engine_is_probed_each_minute() -> None:
    watch, at, sent = Watch(), 0.0, []
    while at <= 200:
        vitals = replace(IDLE, at=at)
        if probe_due(watch, vitals, POLICY):
            sent.append(at)
            watch = probed(watch, at)
        watch, _ = look(watch, vitals, POLICY)
        at += 1
    assert sent == [60.0, 120.0, 180.0]


def test_activity_puts_the_probe_off() -> None:
    busy, quiet = replace(BUSY, at=59.0), replace(IDLE, at=60.0)
    watch, _ = last([*steady(IDLE, 58), busy, quiet])
    assert not probe_due(watch, replace(IDLE, at=118.0), POLICY)
    assert probe_due(watch, replace(IDLE, at=119.0), POLICY)


def test_news_between_two_idle_looks_put_the_probe_off() -> None:
    watch, _ = last([*steady(IDLE, 58), replace(IDLE, at=59.0, heartbeat=(6.0,))])
    assert not probe_due(watch, replace(IDLE, at=61.0, heartbeat=(6.0,)), POLICY)
    watch, _ = last(steady(IDLE, 59))
    assert not probe_due(watch, replace(IDLE, at=61.0, chunks=8), POLICY)


def test_an_engine_nobody_has_looked_at_is_not_probed() -> None:
    assert not probe_due(Watch(), replace(IDLE, at=1e6), POLICY)


def test_the_first_look_at_a_silent_engine_starts_the_minute() -> None:
    watch, _ = last([Vitals(at=1e6)])
    assert not probe_due(watch, Vitals(at=1e6 + 59), POLICY)
    assert probe_due(watch, Vitals(at=1e6 + 60), POLICY)


@pytest.mark.parametrize("arrival", [{"in_flight": 1}, {"engine_load": 1}])
def test_a_request_that_has_just_come_stops_a_probe_that_was_due(arrival: dict[str, int]) -> None:
    watch, _ = last(steady(IDLE, 60))
    assert probe_due(watch, replace(IDLE, at=61.0), POLICY)
    assert not probe_due(watch, replace(IDLE, at=61.0, **arrival), POLICY)  # type: ignore[arg-type]


def test_a_probe_that_hangs_is_a_wedge() -> None:
    hanging = replace(IDLE, at=61.0, in_flight=1)
    sights = [*steady(IDLE, 60), *steady(hanging, 179)]
    assert last(sights)[1] is FINE
    assert last([*sights, replace(hanging, at=241.0)])[1] is WEDGED
