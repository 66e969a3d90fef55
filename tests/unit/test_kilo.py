"""Kilo Code's configuration: ready to paste, with limits that hold, and an address that is ours."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.kilo import (
    FLOOR_TOKENS,
    KEY_FROM_ENVIRONMENT,
    KEY_VARIABLE,
    ROOMY_TOKENS,
    kilo_config,
    short_context,
)

URL = "http://127.0.0.1:9000"


def provider(context: int | None = 49_152) -> dict[str, Any]:
    entry: dict[str, Any] = kilo_config(URL, "Nikola", context, "k")["provider"]["unglitched"]
    return entry


def test_the_provider_speaks_openai_to_this_server_with_this_key() -> None:
    assert provider()["npm"] == "@ai-sdk/openai-compatible"
    assert provider()["options"] == {"baseURL": f"{URL}/v1", "apiKey": "k"}


def test_the_configuration_picks_the_model_that_it_brings() -> None:
    config = json.loads(json.dumps(kilo_config(URL, "Nikola", 4096, "k")))
    name, _, model = config["model"].partition("/")
    assert model in config["provider"][name]["models"]
    assert config["enabled_providers"] == [name]


def test_without_a_key_kilo_reads_it_from_its_environment() -> None:
    config = kilo_config(URL, "Nikola", 4096)
    assert config["provider"]["unglitched"]["options"]["apiKey"] == KEY_FROM_ENVIRONMENT
    assert f"{{env:{KEY_VARIABLE}}}" == KEY_FROM_ENVIRONMENT


@pytest.mark.parametrize(
    ("context", "limit", "share"),
    [
        (49_152, (43_253, 8_192), 71),
        (65_536, (57_671, 10_922), 71),
        (393_216, (346_030, 32_000), 79),
    ],
)
def test_what_is_left_to_kilo_is_an_eighth_less_and_a_sixth_for_its_answer(
    context: int, limit: tuple[int, int], share: int
) -> None:
    told = provider(context)["models"]["Nikola"]["limit"]
    assert (told["context"], told["output"]) == limit
    assert int(100 * (limit[0] - limit[1]) / context) == share


@given(st.integers(min_value=4096, max_value=10**7))
def test_input_and_output_stay_within_the_served_context(context: int) -> None:
    limit = provider(context)["models"]["Nikola"]["limit"]
    assert 0 < limit["output"] < limit["context"] < context


@pytest.mark.parametrize("context", [None, 0])
def test_an_unknown_context_makes_no_limit(context: int | None) -> None:
    assert "limit" not in provider(context)["models"]["Nikola"]


def test_kilo_is_told_of_reasoning_and_tools() -> None:
    model = provider()["models"]["Nikola"]
    assert model["reasoning"] is True
    assert model["tool_call"] is True


# ---- whether it has room


def test_kilos_floor_is_two_and_a_half_times_in_what_is_roomy() -> None:
    assert ROOMY_TOKENS == FLOOR_TOKENS * 5 // 2


@pytest.mark.parametrize("context", [None, ROOMY_TOKENS, 49_152])
def test_enough_context_and_an_unknown_one_are_no_trouble(context: int | None) -> None:
    assert short_context(context, is_chosen=True) is None


@pytest.mark.parametrize(
    ("is_chosen", "cure"), [(True, "APPLIANCE_MAX_MODEL_LEN"), (False, "appliance plan")]
)
def test_too_little_context_is_told_with_the_cure(is_chosen: bool, cure: str) -> None:
    told = short_context(ROOMY_TOKENS - 1, is_chosen=is_chosen)
    assert told is not None
    assert "32,499" in told[0]
    assert "13,000" in told[0]
    assert cure in told[1]
