"""What an answer of the path benchmark is worth, and how sure one may be of a rate."""

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bench.cases import Case, make_cases
from appliance.bench.kinds import glitch_kind
from appliance.bench.score import Outcome, Rate, Said, judge, wilson
from appliance.samplepaths import STRATA, distinct_paths
from tests.fakes.glitching import GLITCHES

PATH = "/srv/Data/Reports/docker-compose.override.yml"
TEXT = Case("t", "s", "recall-1k", PATH, ("/srv/Data/notes.txt",), ())
CALL = Case("c", "s", "tool", PATH, ("/srv/Data",), (), ({"type": "function"},))


def said(text: str) -> tuple[Outcome, str]:
    verdict = judge(TEXT, Said(text))
    return verdict.outcome, verdict.kind


def called(**arguments: object) -> tuple[Outcome, str]:
    verdict = judge(CALL, Said("", (("read_file", json.dumps(arguments)),)))
    return verdict.outcome, verdict.kind


# ---- texts


@pytest.mark.parametrize(
    "text",
    [
        PATH,
        f"  {PATH}\n",
        f"`{PATH}`",
        f"**{PATH}**",
        f'"{PATH}"',
        f"```\n{PATH}\n```",
        f"```text\n{PATH}\n```",
        f"The path is {PATH}",
        f"The path is `{PATH}`.",
        f"It was kept as:\n\n{PATH}\n\nAnything else?",
    ],
)
def test_what_stands_around_a_path_does_not_make_it_wrong(text: str) -> None:
    assert said(text) == (Outcome.EXACT, "")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("/srv/data/Reports/docker-compose.override.yml", "case"),
        ("/srv/Data/Reports/docker- compose.override.yml", "inserted_space"),
        ("`/srv/Data/Reports/docker- compose.override.yml`", "inserted_space"),
        ("The path is /srv/Data/docker-compose.override.yml", "dropped_component"),
        ("/srv/Data/Reports//docker-compose.override.yml", "doubled_separator"),
        ("/srv/Data/Reports/docker-compoze.override.yml", "substituted_character"),
        ("/srv/Data/Reports/docker_compose/override.yaml", "other"),
    ],
)
def test_a_path_gone_wrong_is_a_glitch_of_its_kind(text: str, kind: str) -> None:
    assert said(text) == (Outcome.GLITCH, kind)


def test_another_path_that_was_in_sight_is_no_glitch() -> None:
    assert said("/srv/Data/notes.txt") == (Outcome.OTHER, "")
    assert called(path="/srv/Data") == (Outcome.OTHER, "")


def test_who_writes_all_the_paths_has_not_answered() -> None:
    assert said(f"{PATH}\n/srv/Data/notes.txt") == (Outcome.OTHER, "")


@pytest.mark.parametrize("text", ["", "  \n", "I do not know.", "I am Nikola.", "x" * 5000])
def test_a_text_without_the_path_is_no_glitch(text: str) -> None:
    assert said(text) == (Outcome.NONE, "")


# ---- calls


def test_a_call_is_judged_by_its_path_to_the_letter() -> None:
    assert called(path=PATH) == (Outcome.EXACT, "")
    assert called(path=PATH + " ")[0] is Outcome.GLITCH
    assert called(path=PATH.upper()) == (Outcome.GLITCH, "case")
    assert called(old="a", path=PATH, new="b") == (Outcome.EXACT, "")


@pytest.mark.parametrize("arguments", ["", "{", "[]", "{}", '{"path": 3}', '{"path": ""}', "null"])
def test_a_call_without_a_path_is_none(arguments: str) -> None:
    assert judge(CALL, Said("", (("read_file", arguments),))).outcome is Outcome.NONE


def test_an_answer_in_words_is_no_call() -> None:
    assert judge(CALL, Said(PATH)).outcome is Outcome.NONE


def test_the_first_call_with_a_path_counts() -> None:
    wrong = json.dumps({"path": "/srv/Data"})
    calls = (("list_files", '{"directory": "."}'), ("read_file", json.dumps({"path": PATH})))
    assert judge(CALL, Said("", (*calls, ("read_file", wrong)))).outcome is Outcome.EXACT


# ---- laws


@pytest.mark.parametrize("task", ["echo", "recall-1k", "edit", "join"])
def test_the_right_answer_to_every_case_is_exact(task: str) -> None:
    for case in make_cases(3, 90, (), (task,)):
        call = ("read_file", json.dumps({"path": case.path}))
        answer = Said("", (call,)) if case.is_call else Said(case.path)
        assert judge(case, answer).outcome is Outcome.EXACT


@pytest.mark.parametrize("stratum", list(STRATA))
@pytest.mark.parametrize("kind", list(GLITCHES))
def test_a_glitch_is_never_taken_for_the_path_and_never_overlooked(kind: str, stratum: str) -> None:
    rng = Random(f"{kind}/{stratum}")  # noqa: S311 - it can be repeated
    for path in distinct_paths(stratum, 25, rng):
        written = GLITCHES[kind](path, rng)
        if written == path:
            continue  # this path cannot be spoiled so
        case = Case("x", stratum, "echo", path, (), ())
        plain = judge(case, Said(written))
        assert (plain.outcome, plain.kind) == (Outcome.GLITCH, kind), (path, written)
        assert judge(case, Said(f"`{written}`")).outcome is Outcome.GLITCH, (path, written)


# ---- Wilson


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_that_of_the_books(count: int, total: int, low: float, high: float) -> None:
    assert wilson(count, total) == pytest.approx((low, high), abs=5e-5)


def test_of_nothing_nothing_is_known() -> None:
    assert Rate(0, 0).share is None
    assert Rate(0, 0).interval == (0.0, 1.0)


@pytest.mark.parametrize(("count", "total"), [(2, 1), (-1, 3), (1, 0)])
def test_a_count_that_is_no_share_is_refused(count: int, total: int) -> None:
    with pytest.raises(ValueError, match="is no share"):
        wilson(count, total)


@given(total=st.integers(1, 5000), part=st.floats(0, 1))
def test_the_share_is_inside_its_interval_and_the_mirror_is_mirrored(
    total: int, part: float
) -> None:
    count = round(part * total)
    low, high = wilson(count, total)
    assert 0 <= low <= count / total <= high <= 1
    assert (low == 0) == (count == 0)
    assert (high == 1) == (count == total)
    assert wilson(total - count, total) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@given(total=st.integers(1, 500), count=st.integers(0, 500))
def test_more_of_the_same_makes_the_interval_smaller(total: int, count: int) -> None:
    count = min(count, total)
    low, high = wilson(count, total)
    lower, higher = wilson(count * 4, total * 4)
    assert higher - lower < high - low


# ---- kinds


@pytest.mark.parametrize(
    ("written", "meant", "kind"),
    [
        ("/srv/gr\u00f6\u00dfe.md", "/srv/gro\u0308\u00dfe.md", "other"),  # composed, decomposed
        ("/srv/a\u00a0b.md", "/srv/ab.md", "inserted_space"),  # one that nobody sees
        ("C:\\\\Data\\x.cs", "C:\\Data\\x.cs", "doubled_separator"),
        ("\\\\nas\\share\\\\x.cs", "\\\\nas\\share\\x.cs", "doubled_separator"),
        ("/srv/Data//X.md", "/srv/Data/x.md", "case"),  # two at once
        ("/opt/core/engine.cpp", "/opt/core/core/engine.cpp", "dropped_component"),
        ("Data/x.md", "/srv/Data/x.md", "other"),
    ],
)
def test_a_glitch_that_the_guard_would_leave_alone_has_a_kind_too(
    written: str, meant: str, kind: str
) -> None:
    assert glitch_kind(written, meant) == kind
