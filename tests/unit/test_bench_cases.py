"""The suite of the path benchmark: drawn by seed, whole, and the same every time."""

import json
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.bench.arms import make_arms
from appliance.bench.cases import GROUP, TASKS, Case, make_cases
from appliance.bench.distractors import CHARS_PER_TOKEN, distractor
from appliance.bench.questions import Sampling, questions
from appliance.samplepaths import STRATA, distinct_paths, mixed_paths

SUITE = make_cases(1, None)
QUICK = tuple(task for task in TASKS if not task.startswith("recall"))


def shown(case: Case) -> str:
    return "\n".join(str(message["content"]) for message in case.messages)


# ---- paths


def test_the_same_seed_gives_the_same_paths() -> None:
    assert mixed_paths(500, 7) == mixed_paths(500, 7)
    assert mixed_paths(500, 7) != mixed_paths(500, 8)


def test_a_thousand_paths_are_a_thousand_different_ones_of_every_stratum() -> None:
    paths = mixed_paths(1000, 1)
    assert len(set(paths)) == 1000
    assert sum("\\" in path for path in paths) > 80  # Windows
    assert sum(" " in path for path in paths) > 80
    assert sum(not path.isascii() for path in paths) > 80
    assert sum(path.count("/") > 9 for path in paths) > 80


@pytest.mark.parametrize("stratum", list(STRATA))
def test_a_path_is_one_line_without_blanks_at_its_ends(stratum: str) -> None:
    for path in distinct_paths(stratum, 200, Random(3)):  # noqa: S311 - it can be repeated
        assert path == path.strip()
        assert path.isprintable()
        assert len(path.replace("\\", "/").split("/")) >= 3


@pytest.mark.parametrize(
    ("stratum", "has"),
    [
        ("case", lambda p: p != p.lower()),
        ("marks", lambda p: any(mark in p.rpartition("/")[2] for mark in "-_")),
        ("repeated", lambda p: max(Counter(p.split("/")[1:-1]).values()) > 1),
        ("spaces", lambda p: " " in p),
        ("deep", lambda p: p.count("/") >= 10),
        ("windows", lambda p: "\\" in p and "/" not in p),
        ("unicode", lambda p: not p.isascii()),
    ],
)
def test_each_path_of_a_stratum_has_what_the_stratum_is_named_for(stratum: str, has) -> None:  # type: ignore[no-untyped-def]
    paths = distinct_paths(stratum, 300, Random(5))  # noqa: S311 - it can be repeated
    assert sum(map(has, paths)) >= 0.97 * len(paths)


# ---- cases


def test_the_whole_suite_has_three_hundred_cases_and_every_cell() -> None:
    assert len(SUITE) == 315
    cells = Counter((case.stratum, case.task) for case in SUITE)
    assert set(cells) == {(stratum, task) for stratum in STRATA for task in TASKS}
    assert set(cells.values()) == {5}
    assert len({case.id for case in SUITE}) == len(SUITE)


def test_the_same_seed_gives_the_same_cases_and_another_one_does_not() -> None:
    assert make_cases(1, None) == SUITE
    other = {case.id: case for case in make_cases(2, None)}
    assert [case.id for case in SUITE if other[case.id].path == case.path] == []


@settings(max_examples=40)
@given(few=st.integers(1, 60), more=st.integers(0, 60), seed=st.integers(0, 5))
def test_fewer_cases_are_the_first_ones_of_more(few: int, more: int, seed: int) -> None:
    all_of_them = {case.id: case for case in make_cases(seed, few + more, (), QUICK)}
    chosen = make_cases(seed, few, (), QUICK)
    assert len(chosen) == few
    assert all(all_of_them[case.id] == case for case in chosen)


def test_a_case_is_the_same_whatever_else_is_chosen() -> None:
    whole = {case.id: case for case in SUITE}
    for case in make_cases(1, 4, ("windows",), ("join", "edit")):
        assert whole[case.id] == case


def test_the_right_answer_can_be_read_off_every_question() -> None:
    for case in SUITE:
        if case.task == "join":
            folder, name = case.others[0], case.path[len(case.others[0]) + 1 :]
            assert folder in shown(case)
            assert f"The file in it is {name}\n" in shown(case)
        else:
            assert case.path in shown(case)


def test_no_other_path_in_sight_is_the_right_one() -> None:
    assert [case.id for case in SUITE if case.path in case.others] == []
    assert {len(case.others) for case in SUITE if case.task == "recall-1k"} == {GROUP - 1}


def test_an_edit_names_its_file_by_a_size_that_no_other_file_has() -> None:
    for case in make_cases(1, 45, (), ("edit",)):
        size = str(case.messages[-1]["content"]).split("file of ")[1].split(" bytes")[0]
        rows = [line.split(None, 1) for line in str(case.messages[2]["content"]).splitlines()]
        assert [path for found, path in rows if found == size] == [case.path]
        assert sum(path.startswith(case.path[:-8]) for _, path in rows) >= 1
        json.loads(case.messages[1]["tool_calls"][0]["function"]["arguments"])


def test_a_recall_has_as_much_between_path_and_question_as_it_says() -> None:
    for task, tokens in (("recall-1k", 1_000), ("recall-8k", 8_000), ("recall-32k", 32_000)):
        for case in make_cases(1, 9, (), (task,)):
            before, _, after = shown(case).partition(case.path)
            assert len(after) >= tokens * CHARS_PER_TOKEN
            assert len(before) < 2000
            assert case.path not in distractor(tokens, 1)


def test_the_cases_of_a_group_share_all_but_the_question() -> None:
    group = make_cases(1, GROUP, ("case",), ("recall-1k",))
    texts = [shown(case) for case in group]
    common = len(distractor(1_000, 1))
    assert len({text[:common] for text in texts}) == 1
    assert len(set(texts)) == GROUP


# ---- questions


def test_every_case_is_asked_under_every_arm_once() -> None:
    cases = make_cases(1, 20, (), QUICK)
    arms = make_arms(("on", "off"), ("off", "observe", "repair"))
    asked = questions(cases, arms)
    assert len({question.key for question in asked}) == len(asked) == 20 * 6
    assert {question.arm for question in asked} == set(arms)


def test_an_arm_is_asked_for_by_headers_alone() -> None:
    asked = questions(make_cases(1, 1, ("case",), ("tool",)), make_arms(("on", "off"), ("repair",)))
    assert [question.arm.headers for question in asked] == [
        {"x-appliance-prompt": "on", "x-appliance-path-guard": "repair"},
        {"x-appliance-prompt": "off", "x-appliance-path-guard": "repair"},
    ]
    bodies = [question.body(Sampling("m")) for question in asked]
    assert bodies[0] == bodies[1]
    assert set(bodies[0]) == {"model", "messages", "temperature", "max_tokens", "tools"}


def test_a_question_without_tools_sends_no_empty_list_of_them() -> None:
    (question,) = questions(make_cases(1, 1, ("case",), ("echo",)), make_arms(("on",), ("off",)))
    assert "tools" not in question.body(Sampling("m"))
