"""An engine that logs prompts is refused, unless an operator says that they want it."""

import pytest

from appliance.errors import SettingsError
from appliance.settings import load_settings

LOUD = [
    {"APPLIANCE_ENGINE_EXTRA_ARGS": "--enable-log-requests"},
    {"APPLIANCE_ENGINE_EXTRA_ARGS": "--max_log_len=500"},
    {"VLLM_LOGGING_LEVEL": "debug"},
    {"VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "1"},
]


@pytest.mark.parametrize("environ", LOUD)
def test_what_logs_prompts_is_refused_by_name(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(environ)
    (name,) = environ
    word = environ[name].partition("=")[0] if name.startswith("APPLIANCE") else name
    assert word in refused.value.what
    assert "APPLIANCE_ENGINE_DEBUG=on" in refused.value.hint
    assert refused.value.exit_code == 78


@pytest.mark.parametrize("environ", LOUD)
def test_debugging_allows_it(environ: dict[str, str]) -> None:
    assert load_settings({**environ, "APPLIANCE_ENGINE_DEBUG": "on"}).engine_debug


def test_an_engine_of_somebody_else_logs_what_they_like() -> None:
    attach = {"APPLIANCE_ENGINE": "attach", "APPLIANCE_ENGINE_URL": "http://127.0.0.1:1"}
    assert load_settings({**attach, "VLLM_LOGGING_LEVEL": "DEBUG"}).engine == "attach"


def test_a_quiet_engine_passes() -> None:
    load_settings({"VLLM_LOGGING_LEVEL": "INFO", "APPLIANCE_ENGINE_EXTRA_ARGS": "--seed 1"})
