"""The path benchmark's journal, its report, and what it makes of an endpoint's words."""

import json
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.bench.answers import Answer, read_answer
from appliance.bench.arms import make_arms
from appliance.bench.cases import make_cases
from appliance.bench.chart import svg
from appliance.bench.endpoint import api_url, is_too_long, message_of, read_reply, retry_after_s
from appliance.bench.journal import NAME, Journal
from appliance.bench.questions import Question, questions
from appliance.bench.report import Report, make_report, notes
from appliance.bench.score import Outcome, Said, Verdict
from appliance.bench.table import markdown, percent
from appliance.errors import HostError

ABOUT: dict[str, Any] = {
    "base_url": "http://box/v1",
    "model": "M",
    "seed": 1,
    "cases": 18,
    "temperature": 0.0,
    "begun": "2026-11-23",
    "version": "1",
}
ASKED = questions(make_cases(1, 18, (), ("echo", "tool")), make_arms(("on", "off"), ("off",)))
EXACT, NONE = Verdict(Outcome.EXACT, "", "/a"), Verdict(Outcome.NONE)
GLITCH, UNFIT = Verdict(Outcome.GLITCH, "case", "/A"), Verdict(Outcome.UNFIT)


def answer(question: Question, verdict: Verdict, tokens: int | None = 10) -> Answer:
    return Answer(*question.key, verdict, tokens)


def report_of(*verdicts: Verdict, tokens: int | None = 10) -> Report:
    """Return the report on all questions, the verdicts in turn; the arms take the same."""
    answers = [answer(q, verdicts[n // 2 % len(verdicts)], tokens) for n, q in enumerate(ASKED)]
    return make_report(ABOUT, ASKED, answers)


# ---- the report


def test_every_answer_is_counted_once_in_its_arm_its_stratum_and_its_task() -> None:
    report = report_of(EXACT, EXACT, GLITCH)
    for part in report.arms:
        assert part.total.exact.total == 18
        for parts in (part.strata, part.tasks):
            for name in ("exact", "glitched"):
                whole = getattr(part.total, name).count
                assert sum(getattr(tally, name).count for tally in parts.values()) == whole


def test_what_did_not_fit_counts_in_no_rate() -> None:
    total = report_of(EXACT, UNFIT).arms[0].total
    assert (total.exact.count, total.exact.total, total.unfit) == (9, 9, 9)
    assert total.exact.share == 1.0


def test_the_order_of_the_answers_does_not_matter() -> None:
    answers = [answer(q, (EXACT, GLITCH, NONE)[n % 3]) for n, q in enumerate(ASKED)]
    there = make_report(ABOUT, ASKED, answers)
    back = make_report(ABOUT, ASKED, reversed(answers))
    assert there.as_json() == back.as_json()
    assert markdown(there) == markdown(back)
    assert svg(there) == svg(back)


def test_the_shares_of_the_outcomes_make_a_whole() -> None:
    for part in report_of(EXACT, GLITCH, NONE, Verdict(Outcome.OTHER, "", "/b")).arms:
        total = part.total
        found = total.exact.count + total.glitched.count + total.other + total.none
        assert found == total.exact.total
        assert sum(total.kinds.values()) == total.glitched.count


def test_a_report_is_plain_json_and_says_what_was_measured() -> None:
    told = json.loads(json.dumps(report_of(EXACT, GLITCH).as_json()))
    assert told["about"] == ABOUT
    assert [(arm["prompt"], arm["guard"]) for arm in told["arms"]] == [
        ("on", "off"),
        ("off", "off"),
    ]
    assert told["arms"][0]["exact"]["low"] < told["arms"][0]["exact"]["share"] < 1


def test_a_report_says_that_the_endpoint_does_not_inject() -> None:
    assert any("does not inject" in note for note in notes(report_of(EXACT)))
    assert not any("does not inject" in note for note in notes(report_of(EXACT, tokens=None)))
    mixed = [answer(q, EXACT, 90 if q.arm.prompt == "on" else 10) for q in ASKED]
    assert list(notes(make_report(ABOUT, ASKED, mixed))) == []


def test_a_report_on_a_part_says_how_much_is_missing() -> None:
    report = make_report(ABOUT, ASKED, [answer(ASKED[0], EXACT)])
    assert not report.is_whole
    assert "35 of 36 questions are not answered yet" in markdown(report)


def test_a_model_that_follows_no_question_is_said_to() -> None:
    assert any("little about paths" in note for note in notes(report_of(NONE, NONE, EXACT)))


# ---- table and chart


def test_the_tables_are_markdown_whose_columns_line_up() -> None:
    tables, rows = 0, markdown(report_of(EXACT, GLITCH, NONE)).splitlines()
    for line, after in pairwise(rows):
        if after.startswith("|-"):
            tables += 1
            assert line.count("|") == after.count("|")
            assert len(line) == len(after)
    assert tables == 4  # arms, kinds, strata, tasks


def test_a_share_is_shown_with_its_interval() -> None:
    total = report_of(EXACT, GLITCH).arms[0].total
    assert percent(total.exact) == "50.0 (29.0 to 71.0)"
    assert percent(report_of(UNFIT).arms[0].total.exact) == "-"


def test_the_chart_is_an_image_with_a_dot_for_each_share_and_nothing_outside() -> None:
    report = report_of(EXACT, EXACT, GLITCH)
    root = ET.fromstring(svg(report))  # noqa: S314 - our own text
    space = "{http://www.w3.org/2000/svg}"
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    dots = root.findall(f"{space}circle")
    assert len(dots) == len(report.arms) * (1 + 9 + 2)
    assert all(0 < float(dot.attrib["cx"]) < width for dot in dots)
    assert all(0 < float(dot.attrib["cy"]) < height for dot in dots)
    words = {text.text for text in root.findall(f"{space}text")}
    assert {"windows", "echo", "tool"} <= words


def test_a_models_name_cannot_break_the_chart() -> None:
    report = make_report({**ABOUT, "model": "<M&M>"}, ASKED, [])
    assert "<M&M>" in "".join(ET.fromstring(svg(report)).itertext())  # noqa: S314 - our own text


# ---- the journal


def test_an_answer_is_what_was_written_of_it() -> None:
    for verdict in (EXACT, GLITCH, NONE, Verdict(Outcome.GLITCH, "other", "C:\\ü \u2028x")):
        told = answer(ASKED[0], verdict, None)
        assert read_answer(told.line()) == told


def test_a_journal_gives_back_what_was_added(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "new", ABOUT, resume=False) as journal:
        for question in ASKED:
            journal.add(answer(question, GLITCH))
        written = list(journal.answers)
    with Journal.open(tmp_path / "new", ABOUT, resume=True) as journal:
        assert journal.answers == written


@pytest.mark.parametrize("lost", range(1, 60, 7))
def test_a_line_cut_in_half_is_dropped_and_the_next_answer_is_whole(
    tmp_path: Path, lost: int
) -> None:
    with Journal.open(tmp_path, ABOUT, resume=False) as journal:
        for question in ASKED[:3]:
            journal.add(answer(question, Verdict(Outcome.GLITCH, "other", "ß" * 40)))
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-lost])
    with Journal.open(tmp_path, ABOUT, resume=True) as journal:
        assert len(journal.answers) == 2
        journal.add(answer(ASKED[2], EXACT))
    with Journal.open(tmp_path, ABOUT, resume=True) as journal:
        assert [one.verdict.outcome for one in journal.answers][2:] == [Outcome.EXACT]


def test_answers_are_not_written_over(tmp_path: Path) -> None:
    Journal.open(tmp_path, ABOUT, resume=False).__exit__(None, None, None)
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(HostError, match="--resume"):
        Journal.open(tmp_path, ABOUT, resume=False)
    assert (tmp_path / NAME).read_bytes() == before


def test_another_measurement_is_not_resumed_and_the_difference_is_named(tmp_path: Path) -> None:
    Journal.open(tmp_path, ABOUT, resume=False).__exit__(None, None, None)
    with pytest.raises(HostError, match="seed was 1 and is 2"):
        Journal.open(tmp_path, {**ABOUT, "seed": 2}, resume=True)


def test_another_day_and_another_version_are_resumed_under_the_first_date(tmp_path: Path) -> None:
    Journal.open(tmp_path, ABOUT, resume=False).__exit__(None, None, None)
    later = {**ABOUT, "begun": "2026-12-01", "version": "2"}
    with Journal.open(tmp_path, later, resume=True) as journal:
        assert journal.about == ABOUT


@pytest.mark.parametrize("text", ["no JSON\n", "[]\n", '{"a": 1}\n', "\x80\n"])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text, encoding="latin-1")
    with pytest.raises(HostError, match="--out DIR"):
        Journal.open(tmp_path, ABOUT, resume=True)
    assert (tmp_path / NAME).read_text(encoding="latin-1") == text


def test_a_line_that_is_no_answer_is_shown(tmp_path: Path) -> None:
    Journal.open(tmp_path, ABOUT, resume=False).__exit__(None, None, None)
    with (tmp_path / NAME).open("a") as file:
        file.write('{"case": 3}\n')
    with pytest.raises(HostError, match="no entry"):
        Journal.open(tmp_path, ABOUT, resume=True)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="--out DIR"):
        Journal.open(tmp_path / "file" / "below", ABOUT, resume=False)


# ---- an endpoint's words


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("http://box:9000", "http://box:9000/v1"),
        ("http://box:9000/", "http://box:9000/v1"),
        ("http://box:9000/v1/", "http://box:9000/v1"),
        ("https://api.example.com/api/v1", "https://api.example.com/api/v1"),
    ],
)
def test_an_address_without_a_path_means_v1(typed: str, meant: str) -> None:
    assert api_url(typed) == meant


@pytest.mark.parametrize("typed", ["box:9000", "ftp://box", "http://", "http://box:x", "", "/v1"])
def test_what_is_no_address_is_refused_with_an_example(typed: str) -> None:
    with pytest.raises(HostError, match=r"--base-url http://spark\.local:9000"):
        api_url(typed)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
        (None, None),
        ("soon", None),
        ("", None),
        ("-3", None),
        ("1e400", float("inf")),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, datetime(2026, 11, 23, 12, tzinfo=UTC)) == seconds


def test_the_words_of_a_refusal_are_found_in_any_shape() -> None:
    error = {"error": {"message": "no", "code": "x"}}
    assert message_of(httpx.Response(400, json=error)) == "no (x)"
    assert message_of(httpx.Response(401, json={"error": "Unauthorized"})) == "Unauthorized"
    assert message_of(httpx.Response(502, text="<html>")) == "<html>"
    assert message_of(httpx.Response(500, json=["x"])) == '["x"]'


def test_a_prompt_that_is_too_long_is_told_from_other_refusals() -> None:
    assert is_too_long("This model's maximum context length is 8192 tokens (None)")
    assert is_too_long("prompt too large (context_length_exceeded)")
    assert not is_too_long("the model does not exist (model_not_found)")


def test_a_reply_is_read_with_its_calls_and_its_tokens() -> None:
    call = {"id": "1", "function": {"name": "read_file", "arguments": '{"path": "/a"}'}}
    message = {"content": None, "tool_calls": [call]}
    told = read_reply({"choices": [{"message": message}], "usage": {"prompt_tokens": 9}})
    assert told.said == Said("", (("read_file", '{"path": "/a"}'),))
    assert told.prompt_tokens == 9
    assert read_reply({"choices": [{"message": {"content": "x"}}]}).said == Said("x")
