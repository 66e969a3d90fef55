"""What Kilo asks beside its turns, as its editor does: a title, and a compaction on demand."""

import pytest

from tests.accept.kilo.driver import Kilo
from tests.accept.kilo.editor import TURN_S, Session, served
from tests.engines import MODEL, wait_until
from tests.fakes.script import Turn

# Kilo asks for a title from 200 characters on, or once a tool has run.
QUESTION = "What is the answer to the question of life, the universe and everything? " * 3
pytestmark = pytest.mark.timeout(900)


def test_a_title_beside_the_turn_and_a_compaction_both_pass(kilo: Kilo) -> None:
    kilo.stage.script.play(Turn("I think.", "The answer is 42."), Turn(content="Forty-two again."))
    with served(kilo) as http:
        session = Session(http, kilo)
        assert session.ask(QUESTION).strip() == "The answer is 42."
        wait_until(lambda: "title" in kinds(kilo), TURN_S, "the title to be asked for")
        wait_until(lambda: session.title == "A scripted title", TURN_S, "the title")
        session.shorten()
        assert "compaction" in kinds(kilo)
        assert session.ask("And again?").strip() == "Forty-two again."
    assert kilo.stage.script.left() == 0


def kinds(kilo: Kilo) -> list[str]:
    """Return the kinds of the requests so far."""
    return [note["kind"] for note in kilo.stage.script.noted()]


def test_the_preset_names_the_key_and_does_not_hold_it(kilo: Kilo) -> None:
    config = kilo.config()
    assert kilo.stage.appliance.key("client") not in str(config)
    (provider,) = config["provider"].values()
    assert provider["options"]["apiKey"] == "{env:UNGLITCHED_API_KEY}"
    assert provider["models"][MODEL]["limit"] == {"context": 43_253, "output": 8_192}
