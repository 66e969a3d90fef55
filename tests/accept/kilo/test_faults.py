"""What goes wrong under a task with the real Kilo Code, and how the task ends well all the same."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.accept.kilo.conftest import Begin, KiloAt
from tests.accept.kilo.driver import TURN_S, Kilo
from tests.accept.kilo.test_turns import DONE, PATH, TEXT, WRITES
from tests.accept.stage import Stage
from tests.engines import wait_until
from tests.fakes.script import Turn

OVERFLOW = (
    "This model's maximum context length is 49152 tokens. However, your prompt contains at least "
    "49153 input tokens, which exceeds this limit even without any output tokens."
)

# Kilo's own deadlines end a story that hangs; this one is for the test's own mistakes.
pytestmark = pytest.mark.timeout(1800)


def counted(stage: Stage, name: str) -> float:
    """Return one of the appliance's counters, all its labels together."""
    with stage.appliance.http() as http:
        families = text_string_to_metric_families(http.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return sum(s.value for s in samples if s.name == f"appliance_{name}_total")


def test_keep_alives_before_the_first_event_are_nothing_to_kilo(kilo: Kilo) -> None:
    # Its patience of 300 s has no shorter setting that counts bytes: test_long_waits.py takes it.
    before = counted(kilo.stage, "keepalives")
    kilo.stage.script.play(Turn("Long.", "Here I am.", faults={"silent_prefill": 12.0}))
    told = kilo.ask("Are you there?")
    assert told.code == 0, told.stderr
    assert told.text.strip() == "Here I am."
    assert len(kilo.stage.script.noted()) == 1
    assert counted(kilo.stage, "keepalives") - before >= 8


@pytest.mark.parametrize("after", [3, 9], ids=["in thought", "in the call"])
def test_keep_alives_in_mid_stream_are_nothing_to_kilo(kilo: Kilo, after: int) -> None:
    before = counted(kilo.stage, "keepalives")
    faults = {"stall_after": after, "stall_s": 12.0}
    kilo.stage.script.play(Turn(WRITES.reasoning, "", WRITES.calls, faults=faults), DONE)
    told = kilo.ask("Write it.")
    assert told.code == 0, told.stderr
    assert told.reasoning.strip().startswith(WRITES.reasoning)
    assert (kilo.workspace / PATH).read_text() == TEXT
    assert len(kilo.stage.script.noted()) == 2
    assert counted(kilo.stage, "keepalives") - before >= 8


def test_an_engine_that_starts_late_is_waited_for(
    kilo_at: KiloAt, begin: Begin, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    stage = begin("--ready-when", str(go), ready=False, start_timeout_s=300, admit_wait_s=300)
    stage.appliance.until("starting")
    stage.script.play(WRITES, DONE)
    kilo = kilo_at(stage)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(kilo.ask, "Write it.")
        wait_until(lambda: counted(stage, "keepalives") >= 8, TURN_S, "Kilo to wait")
        go.touch()
        told = asked.result()
    assert told.code == 0, told.stderr
    assert (kilo.workspace / PATH).read_text() == TEXT
    assert len(stage.script.noted()) == 2


def test_a_503_in_mid_task_is_retried(kilo: Kilo) -> None:
    kilo.stage.script.play(WRITES, Turn(status=503), DONE)
    told = kilo.ask("Write it.")
    assert told.code == 0, told.stderr
    assert told.text.strip() == DONE.content
    assert (kilo.workspace / PATH).read_text() == TEXT
    assert len(kilo.stage.script.noted()) == 3


# A drop without a delay overtakes what came before it: Kilo has shown nothing of that either.
SLOWLY = {"chunk_delay": 0.3}
UNSAID = Turn("", "", WRITES.calls, faults={**SLOWLY, "tear_after": 1})
BARE_CALL = Turn("", "", WRITES.calls, faults={**SLOWLY, "tear_after": 6})
IN_THOUGHT = Turn("I have begun to think.", "", faults={**SLOWLY, "tear_after": 4})
IN_TEXT = Turn("", "I have begun to talk.", faults={**SLOWLY, "tear_after": 4})
IN_A_CALL = Turn("I think.", "", WRITES.calls, faults={**SLOWLY, "tear_after": 9})


@pytest.mark.parametrize("torn", [UNSAID, BARE_CALL], ids=["before a word", "in a call"])
def test_a_drop_after_nothing_that_kilo_counts_is_retried(kilo: Kilo, torn: Turn) -> None:
    kilo.stage.script.play(torn, WRITES, DONE)
    told = kilo.ask("Write it.")
    assert told.code == 0, told.stderr
    assert told.text.strip() == DONE.content
    assert told.tools.count(("write", "completed")) == 1  # the torn call never ran
    assert (kilo.workspace / PATH).read_text() == TEXT
    assert kilo.stage.script.left() == 0


@pytest.mark.parametrize(
    "torn",
    [IN_THOUGHT, IN_TEXT, IN_A_CALL],
    ids=["in thought", "in text", "in a call after a thought"],
)
def test_a_drop_of_which_kilo_has_shown_some_ends_the_turn_and_the_next_goes_on(
    kilo: Kilo, torn: Turn
) -> None:
    # Kilo 7.7.9 tries nothing again of which it has shown a thought or a word.
    kilo.stage.script.play(torn, WRITES, DONE)
    told = kilo.ask("Write it.")
    assert told.code == 1
    (error,) = told.parts("error")
    assert error["error"]["data"]["isRetryable"] is True
    assert ("write", "completed") not in told.tools
    assert kilo.stage.script.left() == 2
    told = kilo.ask("Go on.", resume=True)
    assert told.code == 0, told.stderr
    assert told.text.strip() == DONE.content
    assert (kilo.workspace / PATH).read_text() == TEXT


def test_an_engine_that_dies_before_a_word_is_replaced_and_the_task_goes_on(
    kilo_at: KiloAt, begin: Begin
) -> None:
    stage = begin("--ready-after", "5", restart_backoff_s=0.5, admit_wait_s=120)
    dies = Turn("I die.", "never", exit_code=1, exit_after=0.5, faults={"silent_prefill": 9.0})
    stage.script.play(WRITES, dies, DONE)
    kilo = kilo_at(stage)
    told = kilo.ask("Write it.")
    assert told.code == 0, told.stderr
    assert told.text.strip() == DONE.content
    assert stage.script.left() == 0
    assert stage.appliance.status()["spawn"] == 2


def test_a_context_overflow_that_the_appliance_sees_compacts_and_goes_on(
    kilo_at: KiloAt, begin: Begin
) -> None:
    # No limits: so Kilo asks for 32,000 tokens of output and never compacts by itself.
    stage = begin(max_model_len=16_384)
    kilo = kilo_at(stage, limited=False)
    kilo.prepare()
    (kilo.workspace / "big.txt").write_text("plenty of words in a row\n" * 1000)
    reads = Turn("I read it.", "", (("read", {"filePath": "big.txt"}),))
    stage.script.play(reads, DONE)
    told = kilo.ask("Read big.txt")
    assert told.text.strip().endswith(DONE.content), (told.events, told.stderr)
    kinds = [note["kind"] for note in stage.script.noted()]
    assert kinds[0] == "turn"
    assert "compaction" in kinds  # a part at a time, then all parts together
    assert kinds[-1] == "turn"
    assert counted(stage, "context_refusals") >= 1
    assert counted(stage, "clamps") >= 2  # of each 32,000 that went on


def test_a_context_overflow_that_the_engine_sees_compacts_and_goes_on(kilo: Kilo) -> None:
    kilo.stage.script.play(WRITES, Turn(status=400, message=OVERFLOW), DONE)
    told = kilo.ask("Write it.")
    assert told.text.strip().endswith(DONE.content), (told.events, told.stderr)
    assert "compaction" in [note["kind"] for note in kilo.stage.script.noted()]
    assert kilo.stage.script.left() == 0
