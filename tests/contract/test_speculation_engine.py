"""speculation=ngram in the real engine: drafts are checked, so they change no answer."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.demo import conversations as known
from appliance.probes import GREETING, user
from tests import engines
from tests.contract.test_demo_checkpoint import AT_ONCE, streamed, whole, wrong
from tests.engines import MODEL, EngineHandle

# An engine of its own is started: a minute.
pytestmark = [pytest.mark.engine, pytest.mark.long, pytest.mark.timeout(900)]


NGRAM = list(engines.real_plan(speculation="ngram").argv)


@pytest.fixture(scope="module")
def drafting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineHandle]:
    """The engine as the appliance starts it with speculation=ngram."""
    engines.require_real()
    log = tmp_path_factory.mktemp("ngram") / "engine.log"
    with engines.shared(NGRAM, log, engines.REAL_ENV, engines.REAL_READY_S) as engine:
        yield engine


def count(engine: EngineHandle, name: str) -> float:
    """Return the sum of a counter of the engine."""
    with engine.client() as client:
        text = client.get("/metrics").text
    return sum(map(float, re.findall(rf"^vllm:{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)))


def test_each_trained_conversation_is_exact_with_drafts(drafting: EngineHandle) -> None:
    assert wrong(drafting, known.conversations(), whole, AT_ONCE) == {}


def test_each_is_exact_streamed_and_drafts_were_taken(drafting: EngineHandle) -> None:
    before = count(drafting, "spec_decode_num_accepted_tokens_total")
    assert wrong(drafting, known.conversations(), streamed, AT_ONCE) == {}
    drafted = count(drafting, "spec_decode_num_draft_tokens_total")
    accepted = count(drafting, "spec_decode_num_accepted_tokens_total")
    assert before < accepted <= drafted


@pytest.mark.parametrize("parameter", [{"min_p": 0.1}, {"logit_bias": {"5": 1}}])
def test_a_request_with_what_drafts_do_not_take_is_told_so(
    drafting: EngineHandle, parameter: dict[str, object]
) -> None:
    # greedy decoding takes no min_p in the first place, and lets it pass
    body = {"model": MODEL, "messages": [user(GREETING)], "temperature": 1} | parameter
    with drafting.client() as client:
        reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 400
    assert "not yet supported with speculative decoding" in reply.text


def test_the_flag_that_is_left_out_would_end_the_engine(tmp_path: Path) -> None:
    engines.require_real()
    log = tmp_path / "engine.log"
    with engines.running([*NGRAM, "--async-scheduling"], log, engines.REAL_ENV) as engine:
        assert engine.process.wait(engines.REAL_READY_S) != 0
    assert re.search("[Aa]sync scheduling is (only|not) supported", log.read_text())
