"""What is asked of two tokenizers, and what is made of their answers."""

import pytest

from appliance.doctor.row import Level, Unseen
from appliance.doctor.tokenizerrows import tokenizer_row
from appliance.samplepaths import STRATA
from appliance.tokenizerdrift import PATHS, Drift, prompts, texts_of, unknown

VERSIONS = {"vllm": "0.33.0", "transformers": "5.3.0", "tokenizers": "0.22.2"}
DRIFTED = Drift(1000, 738, "/home/dev/docker-compose.yml", VERSIONS)
FINE = Drift(1000, 0, "", VERSIONS)


def test_a_thousand_different_paths_are_asked_in_sixty_questions() -> None:
    asked = prompts()
    paths = [path for prompt in asked for path in prompt.paths]
    assert len(paths) == len(set(paths)) == PATHS == 1000
    assert len(asked) == 60
    assert sum(len(prompt.paths) == 1 for prompt in asked) == 40


def test_no_question_is_longer_than_the_smallest_context_takes() -> None:
    # a byte is a token at worst
    assert max(len(prompt.text.encode()) for prompt in prompts()) < 4096


def test_both_tokenizers_always_get_the_same_texts() -> None:
    assert prompts() == prompts()
    assert texts_of(prompts()) == texts_of(prompts())


def test_every_text_that_may_be_asked_is_in_the_reference() -> None:
    texts = set(texts_of(prompts()))
    for prompt in prompts():
        assert prompt.text in texts
        assert {part.text for part in prompt.parts} <= texts
        assert "\n".join(part.text for part in prompt.parts) == prompt.text


def test_every_kind_of_path_is_among_them_alone_and_in_lines() -> None:
    asked = prompts()
    alone = [prompt.text for prompt in asked if len(prompt.paths) == 1]
    lines = [path for prompt in asked if len(prompt.paths) > 1 for path in prompt.paths]
    for paths in (alone, lines):
        assert any("\\" in path for path in paths)
        assert any(" " in path for path in paths)
        assert any(not path.isascii() for path in paths)
        assert len(paths) >= 4 * len(STRATA)


def test_a_drift_is_told_with_its_numbers_an_example_and_the_versions() -> None:
    assert DRIFTED.is_drifted
    assert "738 of 1,000 paths" in DRIFTED.what
    assert "'/home/dev/docker-compose.yml'" in DRIFTED.what
    assert "transformers 5.3.0" in DRIFTED.what
    assert '"tokenizer_class": "PreTrainedTokenizerFast"' in DRIFTED.cure


def test_what_was_not_compared_is_no_drift_and_not_fine() -> None:
    drift = unknown("there is no tokenizer.json", VERSIONS)
    assert not drift.is_drifted
    assert not drift.is_known
    assert drift.what.startswith("not compared: there is no tokenizer.json (vllm 0.33.0")


def test_a_part_that_was_compared_says_why_it_was_not_all() -> None:
    assert Drift(48, 0, "", {}, "the engine is slow").what == (
        "48 paths read as tokenizer.json says; the engine is slow"
    )
    assert Drift(48, 2, "/a", {}, "the engine is slow").what.endswith("; the engine is slow")


@pytest.mark.parametrize(
    ("seen", "level", "has_next"),
    [
        (DRIFTED, Level.WARN, True),
        (FINE, Level.OK, False),
        (unknown("no appliance runs here"), Level.OK, False),
        (Unseen("no answer within 25 s", "appliance status"), Level.WARN, True),
    ],
)
def test_the_doctor_warns_of_a_drift_and_says_what_to_type(
    seen: Drift | Unseen, level: Level, has_next: bool
) -> None:
    row = tokenizer_row(seen)
    assert (row.name, row.level, bool(row.next)) == ("tokenizer", level, has_next)
