"""What an operator reads about the next step, for each state."""

from dataclasses import replace

import pytest

from appliance.events import BY_OPERATOR, IDLE
from appliance.lifecycle import SETTLED, EngineState, Machine, Policy
from appliance.restart import History, Reason, RestartPolicy
from appliance.whatnext import forecast

POLICY = Policy(restart=RestartPolicy(max_failures=3))
GAVE_UP = History((1.0, 2.0, 3.0), gave_up=Reason("gave_up"))


def at(state: EngineState) -> Machine:
    return Machine(state=state, reason=Reason("loading"), spawn=1)


TABLE = [
    (at(EngineState.PREPARING), "starts"),
    (at(EngineState.STARTING), "is ended and tried again, if it shows no progress,"),
    (at(EngineState.READY), ""),
    (at(EngineState.DRAINING), "stops once what runs has ended, at the latest"),
    (
        replace(at(EngineState.DRAINING), again=True),
        "restarts once what runs has ended, at the latest",
    ),
    (at(EngineState.STOPPING), "is killed, if it has not ended by itself"),
    (replace(at(EngineState.STOPPING), killed=True), "is killed again"),
    (
        replace(at(EngineState.BACKOFF), history=History((1.0, 2.0))),
        "starts again (failure 2 of 3)",
    ),
    (at(EngineState.FAILED), "nothing until: appliance start"),
    (replace(at(EngineState.FAILED), history=GAVE_UP), "nothing until: appliance reset"),
    (replace(at(EngineState.STOPPED), reason=BY_OPERATOR), "nothing until: appliance start"),
    (replace(at(EngineState.STOPPED), reason=IDLE), "the next request starts it"),
]


@pytest.mark.parametrize(("machine", "text"), TABLE)
def test_each_state_says_what_comes_next(machine: Machine, text: str) -> None:
    assert forecast(machine, POLICY) == text


def test_a_start_that_waits_for_memory_says_so() -> None:
    preparing = at(EngineState.PREPARING)
    assert forecast(preparing, POLICY, settling=True) == "starts once memory is back"
    for machine, text in TABLE:
        if machine.state is not EngineState.PREPARING:
            assert forecast(machine, POLICY, settling=True) == text


def test_every_state_is_in_the_table() -> None:
    assert {machine.state for machine, _ in TABLE} == set(EngineState)


@pytest.mark.parametrize("state", sorted(set(EngineState) - {EngineState.READY}))
def test_only_an_engine_that_serves_has_nothing_to_say(state: EngineState) -> None:
    # it stands behind "next: ", one line, in the middle of a sentence
    text = forecast(at(state), POLICY)
    assert text
    assert text[0].islower()
    assert text[-1] not in ". "
    assert len(text) < 60
    assert "\n" not in text


@pytest.mark.parametrize("state", sorted(SETTLED - {EngineState.READY}))
def test_where_nothing_comes_by_itself_it_says_what_to_type(state: EngineState) -> None:
    assert "until: appliance " in forecast(at(state), POLICY)
