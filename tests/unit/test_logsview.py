"""What is new in a log after a break: nothing twice, nothing lost in silence."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.logsview import Line, news_of


def lines(first: int, last: int, life: str = "a") -> list[Line]:
    return [{"number": n, "text": f"{life}{n}"} for n in range(first, last + 1)]


def test_a_reader_that_has_seen_nothing_gets_all() -> None:
    news = news_of(lines(1, 3), [])
    assert (news.lines, news.note) == (lines(1, 3), "")


def test_lines_that_were_seen_do_not_come_again() -> None:
    news = news_of(lines(1, 5), lines(2, 3))
    assert (news.lines, news.note) == (lines(4, 5), "")


def test_a_log_that_begins_again_is_told_whole_and_says_so() -> None:
    news = news_of(lines(1, 2, "b"), lines(6, 7))
    assert news.lines == lines(1, 2, "b")
    assert "started anew" in news.note


def test_a_log_that_begins_again_and_is_longer_already_is_not_taken_for_the_old_one() -> None:
    news = news_of(lines(1, 9, "b"), lines(6, 7))
    assert news.lines == lines(1, 9, "b")
    assert "started anew" in news.note


def test_one_equal_line_does_not_hide_that_the_log_began_again() -> None:
    kept = [*lines(1, 6, "b"), *lines(7, 7)]
    news = news_of(kept, lines(6, 7))
    assert news.lines == kept
    assert "started anew" in news.note


def test_lines_that_are_no_longer_kept_are_counted() -> None:
    news = news_of(lines(11, 12), lines(6, 7))
    assert news.lines == lines(11, 12)
    assert news.note.startswith("3 lines")


def test_an_empty_log_is_no_news() -> None:
    news = news_of([], lines(6, 7))
    assert (news.lines, news.note) == ([], "")


@given(st.integers(1, 40), st.lists(st.integers(0, 40), max_size=8), st.integers(1, 50))
def test_looking_in_steps_tells_each_line_once_and_in_order(
    first: int, steps: list[int], capacity: int
) -> None:
    told: list[int] = []
    missed = 0
    seen: list[Line] = []
    end = first
    for step in steps:
        end += step
        news = news_of(lines(max(1, end - capacity + 1), end), seen)
        if news.note:
            missed += int(news.note.split()[0])
        told += [line["number"] for line in news.lines]
        seen += news.lines
    assert told == sorted(set(told))
    if told:
        assert told[-1] - told[0] + 1 == len(told) + missed
