"""The journal of an acceptance run: nothing that was done is lost, or done twice."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.accept.journal import EARLIER, NAME, open_journal
from appliance.accept.steps import STEPS, Finding, Outcome, failed, passed, skipped
from appliance.errors import HostError

ABOUT = {
    "format": 1,
    "version": "0.1.0",
    "box": "here",
    "settings": "abc",
    "begun": "2026-11-23T01:02",
}


def outcome(step: str, finding: Finding | None = None) -> Outcome:
    found = finding or passed("fine", rows=[1, "two", None], share=25)
    return Outcome(step, found, "2026-11-23T01:02:03+00:00", 1.5, ((0.0, 5), (1.0, 4)))


def write(folder: Path, *outcomes: Outcome, **about: Any) -> None:
    journal, _ = open_journal(folder, {**ABOUT, **about}, fresh=False)
    with journal:
        for each in outcomes:
            journal.add(each)


def kept(folder: Path, *, fresh: bool = False, **about: str) -> dict[str, Outcome]:
    journal, _ = open_journal(folder, {**ABOUT, "begun": "later", **about}, fresh=fresh)
    with journal:
        return dict(journal.outcomes)


def test_what_passed_is_gone_on_with_and_the_rest_is_done_again(tmp_path: Path) -> None:
    done = outcome("doctor")
    write(tmp_path, done, outcome("appliance", failed("no", "do")), outcome("plan", skipped("no")))
    assert kept(tmp_path) == {"doctor": done}


def test_the_beginning_of_a_run_stays_its_own_when_it_is_gone_on_with(tmp_path: Path) -> None:
    write(tmp_path, outcome("doctor"))
    journal, told = open_journal(tmp_path, {**ABOUT, "begun": "later"}, fresh=False)
    with journal:
        assert journal.about["begun"] == ABOUT["begun"]
    assert "going on" in told
    assert "1 step" in told


def test_the_last_outcome_of_a_step_counts(tmp_path: Path) -> None:
    write(tmp_path, outcome("doctor", failed("no")), outcome("doctor"))
    assert kept(tmp_path) == {"doctor": outcome("doctor")}
    write(tmp_path, outcome("doctor", failed("no")))
    assert kept(tmp_path) == {}


@pytest.mark.parametrize("changed", ["version", "box", "settings"])
def test_another_box_version_or_settings_begin_anew(tmp_path: Path, changed: str) -> None:
    write(tmp_path, outcome("doctor"))
    another: dict[str, Any] = {changed: "another"}
    assert kept(tmp_path, **another) == {}
    assert (tmp_path / EARLIER / "20261123T0102" / NAME).exists()


def test_a_whole_run_is_followed_by_a_new_one(tmp_path: Path) -> None:
    write(tmp_path, *(outcome(step.name) for step in STEPS))
    assert kept(tmp_path) == {}


def test_fresh_begins_anew_and_keeps_what_was_there(tmp_path: Path) -> None:
    write(tmp_path, outcome("doctor"))
    (tmp_path / "report.html").write_text("old")
    assert kept(tmp_path, fresh=True) == {}
    assert not (tmp_path / "report.html").exists()
    assert [path.read_text() for path in tmp_path.glob(f"{EARLIER}/*/report.html")] == ["old"]


def test_two_runs_of_the_same_minute_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for _ in range(3):
        journal, _ = open_journal(tmp_path, ABOUT, fresh=True)
        journal.add(outcome("doctor"))
        with journal:
            pass
    assert len(list(tmp_path.glob(f"{EARLIER}/*/{NAME}"))) == 2


@given(cut=st.integers(1, 10_000))
def test_a_journal_cut_anywhere_keeps_each_whole_line(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    steps = [step.name for step in STEPS[:5]]
    write(folder, *map(outcome, steps))
    data = (folder / NAME).read_bytes()
    cut = min(cut, len(data))
    (folder / NAME).write_bytes(data[:cut])
    whole = data[:cut].count(b"\n") - 1  # the first is the header
    assert list(kept(folder)) == steps[: max(0, whole)]
    # and goes on: the next line is whole again
    write(folder, outcome("drain"))
    assert "drain" in kept(folder)


def test_a_file_that_is_no_journal_is_moved_away_and_not_lost(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("no journal\n")
    assert kept(tmp_path) == {}
    assert [path.read_text() for path in tmp_path.glob(f"{EARLIER}/*/{NAME}")] == ["no journal\n"]


def test_a_folder_that_cannot_be_used_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="file"):
        open_journal(tmp_path / "file", ABOUT, fresh=False)
