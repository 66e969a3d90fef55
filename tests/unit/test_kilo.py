"""Kilo Code's configuration: ready to paste, with limits that hold."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.kilo import kilo_config

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
