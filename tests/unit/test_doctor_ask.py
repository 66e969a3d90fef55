"""Nobody is waited for longer than was said."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.doctor.ask import Look, ask
from appliance.doctor.row import Unseen
from appliance.errors import HostError


@pytest.fixture
def hung() -> Iterator[threading.Event]:
    """What a hung look waits for; let go at the end."""
    event = threading.Event()
    yield event
    event.set()


def test_a_programs_answer_is_its_output() -> None:
    answer = ask(("printf", "28.2.2"))
    assert (answer.text, answer.why) == ("28.2.2", "")


def test_it_is_asked_in_the_folder_that_is_named(tmp_path: Path) -> None:
    assert ask(("pwd",), folder=tmp_path).text.strip() == str(tmp_path)


def test_a_program_that_is_not_there_is_not_installed() -> None:
    assert ask(("no-such-program",)).why == "no-such-program is not installed"


def test_one_that_may_not_be_run_says_so(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    assert "cannot be run" in ask((str(tmp_path / "x"),)).why


def test_one_that_fails_is_quoted_by_its_last_line() -> None:
    answer = ask(("sh", "-c", "echo first >&2; echo 'no such option' >&2; exit 3"))
    assert answer.why == "no such option"
    assert ask(("sh", "-c", "exit 3")).why == "sh ended with 3"


def test_one_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """Of which the leak check of all tests would find any."""
    answer = ask(("sh", "-c", "sleep 60 & sleep 60"), within_s=0.2)
    assert answer.is_late
    assert answer.why == "sh does not answer within 0.2 s"
    assert not answer.text


def test_bytes_that_are_no_text_are_no_traceback() -> None:
    assert "\ufffd" in ask(("printf", r"\377")).text


def test_a_look_returns_what_was_seen() -> None:
    assert Look("it", lambda: 42).seen() == 42


def test_a_look_that_hangs_is_given_up(hung: threading.Event) -> None:
    assert Look("it", hung.wait, within_s=0.05).seen() == Unseen("no answer within 0.05 s")


def test_an_error_of_ours_keeps_its_words() -> None:
    def look() -> int:
        raise HostError("no folder", "make one")

    assert Look("it", look).seen() == Unseen("no folder", "make one")


def test_an_error_that_nobody_thought_of_is_told_and_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def look() -> int:
        return dict[str, int]()["x"]

    seen = Look("the disk", look).seen()
    assert seen == Unseen("the disk could not be looked at: KeyError: 'x'")
    assert capsys.readouterr().err == ""


def test_a_look_asked_twice_answers_twice() -> None:
    look = Look("it", lambda: 1)
    assert look.seen() == look.seen() == 1
