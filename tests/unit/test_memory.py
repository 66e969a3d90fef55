"""The ladder of safer plans, as a law."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.memory import CONTEXTS, RUNGS, safer
from appliance.settings import Settings, load_settings

CHOSEN = st.none() | st.integers(1, 1_000_000)
RUNG = st.integers(0, 2 * RUNGS)
CHOICE = load_settings({"APPLIANCE_PROFILE": "demo"})


def chosen(context: int | None) -> Settings:
    return CHOICE.model_copy(update={"max_model_len": context})


def tokens(settings: Settings) -> float:
    """The context asked for; none named is as much as the model has."""
    return float("inf") if settings.max_model_len is None else settings.max_model_len


@given(CHOSEN, RUNG, RUNG)
def test_a_higher_rung_never_asks_for_more(context: int | None, one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert tokens(safer(chosen(context), high)) <= tokens(safer(chosen(context), low))


@given(CHOSEN)
def test_the_first_rung_is_what_was_chosen(context: int | None) -> None:
    settings = chosen(context)
    assert safer(settings, 0) is settings


@given(CHOSEN, RUNG)
def test_nothing_but_the_context_changes(context: int | None, rung: int) -> None:
    before, after = (s.model_dump() for s in (chosen(context), safer(chosen(context), rung)))
    del before["max_model_len"], after["max_model_len"]
    assert before == after


@given(CHOSEN, st.integers(RUNGS, 100))
def test_below_the_last_rung_there_is_no_other(context: int | None, rung: int) -> None:
    assert safer(chosen(context), rung) == safer(chosen(context), RUNGS - 1)


def test_the_ladder_is_three_contexts_long() -> None:
    steps = [safer(chosen(49_152), rung).max_model_len for rung in range(RUNGS)]
    assert steps == [49_152, 32_768, 16_384] == list(CONTEXTS)


def test_a_safer_plan_remembers_where_the_other_settings_came_from() -> None:
    settings = load_settings({"APPLIANCE_PROFILE": "demo", "APPLIANCE_PORT": "1"})
    assert safer(settings, 1).origin("port") == "APPLIANCE_PORT"
