"""A task with the real Kilo Code: thoughts, tools, ten turns, and what it asks beside them."""

import json
from typing import Any

import pytest

from tests.accept.gaps import said
from tests.accept.kilo.conftest import SERVED, Begin, KiloAt
from tests.accept.kilo.driver import Kilo
from tests.fakes.script import Turn

PATH = "My Project/Docs & Notes/Über-Design_v2/ReadMe (Final).TXT"
TEXT = 'First line — "quoted" & <angled>\n\tsecond line\n'
WRITES = Turn("I will write the file.", "", (("write", {"filePath": PATH, "content": TEXT}),))
DONE = Turn("It is written.", "Done: the file is there.")
SHARE = 0.70  # of the served context, below which nothing is compacted
TURNS = 10
pytestmark = pytest.mark.timeout(1800)


def test_a_turn_with_reasoning_shows_the_thought_and_the_answer(kilo: Kilo) -> None:
    thought, answer = "Let me think about this first.", "The answer is 42."
    kilo.stage.script.play(Turn(thought, answer))
    told = kilo.ask("What is the answer?")
    assert told.code == 0, told.stderr
    assert told.reasoning.strip() == thought  # once, though it travels under both names
    assert told.text.strip() == answer
    assert told.tools == []
    (asked,) = kilo.stage.script.noted()
    assert asked["body"]["stream"] is True


def test_a_tool_call_writes_exactly_the_path_and_its_result_comes_back(kilo: Kilo) -> None:
    kilo.stage.script.play(WRITES, DONE)
    told = kilo.ask(f"Write the file {PATH}")
    assert told.code == 0, told.stderr
    assert told.tools == [("write", "completed")]
    assert told.text.strip() == DONE.content
    assert (kilo.workspace / PATH).read_text() == TEXT
    files = [path for path in kilo.workspace.rglob("*") if ".git" not in path.parts]
    assert [path for path in files if path.is_file()] == [kilo.workspace / PATH]

    first, second = kilo.stage.script.noted()
    *_, assistant, result = second["body"]["messages"]
    (call,) = assistant["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"filePath": PATH, "content": TEXT}
    assert said(assistant) == WRITES.reasoning
    assert (result["role"], result["tool_call_id"]) == ("tool", call["id"])
    # append-only: what the engine has cached of the first turn serves the second
    messages = first["body"]["messages"]
    assert second["body"]["messages"][: len(messages)] == messages
    assert second["body"]["tools"] == first["body"]["tools"]


def test_two_calls_of_one_turn_both_run(kilo: Kilo) -> None:
    both = tuple(("write", {"filePath": f"{n}.txt", "content": f"{n}\n"}) for n in ("one", "two"))
    kilo.stage.script.play(Turn("Both at once.", "", both), DONE)
    told = kilo.ask("Write both files.")
    assert told.code == 0, told.stderr
    assert told.tools == [("write", "completed")] * 2
    assert [(kilo.workspace / f"{n}.txt").read_text() for n in ("one", "two")] == ["one\n", "two\n"]


@pytest.mark.parametrize("served", [SERVED, 27_648])
def test_ten_tool_turns_fit_without_compaction_below_70_percent(
    kilo_at: KiloAt, begin: Begin, served: int
) -> None:
    stage = begin(max_model_len=served)
    kilo = kilo_at(stage)
    stage.script.play(Turn(content="Ready."))
    assert kilo.ask("Are you ready?").code == 0
    (floor,) = [note["prompt_tokens"] for note in stage.script.noted()]

    # Each turn adds what is written, and some 150 tokens of call, result and thought.
    room = int((SHARE - 0.015) * served) - floor - 200
    chars = max(1, int((room / TURNS - 150) * 4))
    stage.script.play(*(writes(number, chars) for number in range(TURNS)), DONE)
    told = kilo.ask("Write ten files.", resume=True)
    assert told.code == 0, told.stderr
    assert told.tools == [("write", "completed")] * TURNS
    assert told.text.strip() == DONE.content
    notes = stage.script.noted()
    assert [note["kind"] for note in notes] == ["turn"] * (TURNS + 1)
    share = notes[-1]["prompt_tokens"] / served
    print(f"\n{served} tokens served: {floor} at first, {share:.1%} after ten tool turns")
    assert SHARE - 0.1 < share < SHARE  # the story came as far as it should

    # And further on it compacts by itself, before anything is refused.
    more = int(0.05 * served * 4)  # each another 5 %
    stage.script.play(*(writes(TURNS + number, more) for number in range(4)), DONE)
    told = kilo.ask("Write some more.", resume=True)
    assert told.code == 0, told.stderr
    notes = stage.script.noted()
    kinds = [note["kind"] for note in notes]
    assert "compaction" in kinds
    assert notes[kinds.index("compaction") - 1]["prompt_tokens"] > (SHARE - 0.05) * served
    assert max(note["prompt_tokens"] for note in notes) < served
    assert not told.parts("error")


def writes(number: int, chars: int) -> Turn:
    """Return a turn that writes a file of so many characters."""
    words = " ".join(f"word{n}" for n in range(chars // 5))[:chars]  # no runaway's repetition
    call: tuple[str, dict[str, Any]] = (
        "write",
        {"filePath": f"out/{number}.txt", "content": words},
    )
    return Turn(f"File {number} is next.", "", (call,))
