"""The labelled corpora: what is found, what is mended, and that no mend is wrong; as a table."""

import json

import pytest

from appliance.pathhistory import read_all
from tests.corpus.pathcases import (
    Case,
    Score,
    cases,
    chat,
    ledger_of,
    load,
    messages,
    names,
    outcome,
    responses,
)
from tests.corpus.pathmutations import mutated, readers

ALL = [case for name in names() for case in cases(name)]


def test_no_mend_of_the_corpus_is_wrong_and_few_glitches_are_missed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    score = Score.of([outcome(case) for case in ALL])
    with capsys.disabled():
        print("\n" + score.table())
    assert score.precision >= 0.995
    assert score.recall >= 0.95


def test_no_mend_of_a_made_glitch_is_wrong_and_few_are_missed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = [case for name in names() for case in mutated(name, *readers(name))]
    score = Score.of([outcome(case) for case in made])
    with capsys.disabled():
        print("\n" + score.table())
    assert len(made) >= 400
    assert score.precision >= 0.995
    assert score.recall >= 0.95


@pytest.mark.long
def test_many_glitches_made_by_chance_are_never_mended_wrongly() -> None:
    made = (case for name in names() for case in mutated(name, *readers(name), each=30))
    wrong = [one for case in made if (one := outcome(case)).is_wrong_mend]
    assert wrong == []


@pytest.mark.parametrize("case", [c for c in ALL if c.never], ids=lambda c: f"{c.tool}:{c.emitted}")
def test_what_must_never_be_mended_never_is(case: Case) -> None:
    assert outcome(case).mended is None


def test_the_corpus_is_as_large_as_it_must_be() -> None:
    assert len(ALL) >= 400
    assert sum(case.never for case in ALL) >= 40


@pytest.mark.parametrize("name", names())
def test_each_api_shows_the_same_paths(name: str) -> None:
    corpus = load(name)
    shown = ledger_of(name)
    for request in (messages(corpus), responses(corpus)):
        ledger = read_all(json.dumps(request).encode())
        assert [outcome(case, ledger=ledger).kind for case in cases(name)] == [
            outcome(case, ledger=shown).kind for case in cases(name)
        ]


@pytest.mark.parametrize("name", names())
def test_a_conversation_is_labelled_by_hand_and_read_whole(name: str) -> None:
    assert len(ledger_of(name)) > 5
    assert json.dumps(chat(load(name)))
