"""The two waits that Kilo's own timers make long, once for real and with the default timers."""

from typing import Any

import pytest

from tests.accept.kilo.conftest import Begin, KiloAt
from tests.accept.kilo.test_turns import DONE, PATH, TEXT, WRITES
from tests.fakes.script import Turn

SILENCE_S = 330.0  # Kilo gives up on 300
START_S = 720.0  # an engine on a Spark: 12 minutes
DEFAULTS: dict[str, Any] = {"keepalive_s": 15, "head_after_s": 10}
pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


def test_330_seconds_of_silence_end_well(kilo_at: KiloAt, begin: Begin) -> None:
    stage = begin(**DEFAULTS, wedge_quiet_s=3600)  # a real engine's counters go on meanwhile
    stage.script.play(WRITES, Turn("Long.", DONE.content, faults={"silent_prefill": SILENCE_S}))
    kilo = kilo_at(stage)
    told = kilo.ask("Write it.", within_s=600)
    assert told.code == 0, told.stderr
    assert told.text.strip() == DONE.content
    assert (kilo.workspace / PATH).read_text() == TEXT
    assert len(stage.script.noted()) == 2  # it never gave up and asked again


def test_an_engine_that_needs_12_minutes_to_start_is_waited_for(
    kilo_at: KiloAt, begin: Begin
) -> None:
    waits = {"start_timeout_s": 3600, "admit_wait_s": 1200, "start_quiet_s": 1200}
    stage = begin("--ready-after", str(START_S), ready=False, **DEFAULTS, **waits)
    stage.appliance.until("starting")
    stage.script.play(WRITES, DONE)
    kilo = kilo_at(stage)
    told = kilo.ask("Write it.", within_s=START_S + 300)
    assert told.code == 0, told.stderr
    assert told.text.strip() == DONE.content
    assert (kilo.workspace / PATH).read_text() == TEXT
    assert len(stage.script.noted()) == 2
