"""The grammar of the paths that a read may name, read by a small interpreter of its EBNF."""

import json
import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.pathgrammar import MOST_PATHS, TooMany, Unspelled, build, literal, structural_tag
from appliance.paths import PathName, parse

_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|\[\^(?:[^\]\\]|\\.)*\]\*?|[a-z]\w*|[()|?])')


def as_pattern(grammar: str) -> re.Pattern[str]:
    """Return a grammar without recursion as a regular expression."""
    rules = dict(line.split(" ::= ", 1) for line in grammar.splitlines())
    known: dict[str, str] = {}

    def rule(name: str) -> str:
        if name not in known:
            known[name] = f"(?:{''.join(map(part, _TOKEN.findall(rules[name])))})"
        return known[name]

    def part(token: str) -> str:
        if token[0] == '"':
            return re.escape(json.loads(token)) if "\\U" not in token else re.escape(wide(token))
        if token[0] == "[" or token in "()|?":
            return "(?:" if token == "(" else token
        return rule(token)

    return re.compile(rule("root"))


def wide(token: str) -> str:
    """Return a literal with signs beyond the first plane, which JSON spells otherwise."""
    signs = re.sub(r"\\U([0-9a-f]{8})", lambda found: chr(int(found[1], 16)), token[1:-1])
    return re.sub(r"\\u([0-9a-f]{4})|\\(.)", lambda f: chr(int(f[1], 16)) if f[1] else f[2], signs)


def named(*texts: str) -> list[PathName]:
    found = [parse(text) for text in texts]
    return [path for path in found if path is not None]


def made(
    known: Iterable[PathName], closed: Iterable[PathName], *roots: str, files_only: bool = False
) -> str:
    steps = build(known, closed, tuple(named(*roots)), files_only=files_only)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return str(end.value)


HERE = PathName("", ())
FILES = named("/srv/Data/Reports/Annual Summary.docx", "/srv/Data/notes.txt", "/srv/Data/old")
DATA = as_pattern(made(FILES, named("/srv/Data", "/srv/Data/Reports")))
WORK = as_pattern(
    made(named("src/App.tsx", "src/ui", "README.md"), [HERE, *named("src")], "/home/Me/desk")
)


@pytest.mark.parametrize(
    "path",
    [
        "/srv/Data/Reports/Annual Summary.docx", "/srv/Data/notes.txt", "/srv/Data",
        "/srv/Data/", "/srv", "/", "",
        "/srv/Data/old/what nobody listed.txt", "/srv/Data/.env",
        "/var/log/nikola/Engine Start.log", "/etc/hosts", "~/notes.txt", "src/main.c", "../up",
    ],
)  # fmt: skip
def test_a_known_path_and_one_outside_all_that_was_listed_go_through(path: str) -> None:
    assert DATA.fullmatch(path)


@pytest.mark.parametrize(
    "path",
    [
        "/srv/data/notes.txt", "/Srv/Data/notes.txt", "/srv/Data/Notes.txt", "/srv//Data/notes.txt",
        "/srv/Data/notes. txt", "/srv/ Data/notes.txt", "/srv/Data/Annual Summary.docx",
        "/srv/Data/Reports/AnnualSummary.docx", "/srv/notes.txt", "//srv/Data/notes.txt",
        "/srv/Data/notes.txt\n", " /srv/Data/notes.txt", "/srv/Data/old<",
    ],
)  # fmt: skip
def test_a_glitch_of_a_known_path_does_not(path: str) -> None:
    assert not DATA.fullmatch(path)


@pytest.mark.parametrize(
    "path",
    [
        "src/App.tsx",
        "/home/Me/desk/src/App.tsx",
        "/home/Me/other/x",
        "/home/You/x",
        "/home/Me/",
        "src/ui/New.tsx",
        "./src/App.tsx",
    ],
)
def test_what_is_below_the_root_goes_in_full_too_and_what_is_beside_it_freely(path: str) -> None:
    assert WORK.fullmatch(path)


def test_beside_a_closed_home_a_name_may_begin_with_its_sign() -> None:
    pattern = as_pattern(made(named("~/notes.txt"), named("~/")))
    assert all(map(pattern.fullmatch, ("~/notes.txt", "~", "~draft.txt", "~you/x")))
    assert not any(map(pattern.fullmatch, ("~/Notes.txt", "~ /notes.txt", "~//notes.txt")))


def test_what_is_no_file_is_no_end_where_a_file_is_read() -> None:
    closed = named("/srv/Data", "/srv/Data/Reports")
    pattern = as_pattern(made(FILES, closed, files_only=True))
    for folder in ("/", "/srv", "/srv/", "/srv/Data", "/srv/Data/", "/srv/Data/Reports"):
        assert not pattern.fullmatch(folder)
    for file in (*(path.text for path in FILES), "/etc/hosts", "/srv/Data/.env"):
        assert pattern.fullmatch(file)


def test_a_folder_beside_the_listed_one_is_free() -> None:
    pattern = as_pattern(made(named("packages/ui/src/App.tsx"), named("packages/ui/src")))
    assert pattern.fullmatch("packages/api/src/main.ts")
    assert pattern.fullmatch("README.md")
    assert not pattern.fullmatch("Packages/ui/src/App.tsx")
    assert not pattern.fullmatch("packages/UI/src/App.tsx")


@pytest.mark.parametrize(
    "path",
    [
        "src/app.tsx",
        "/home/Me/desk/src/app.tsx",
        "/home/me/desk/src",
        "/home/Me/Desk/src/App.tsx",
        "App.tsx",
        "/home/Me/desk/App.tsx",
    ],
)
def test_both_spellings_are_held_to_the_listing(path: str) -> None:
    assert not WORK.fullmatch(path)


SIGNS = "aB-_ .'\"\\]^[{}()é漢\u0301😀"
NAMES = st.text(
    st.one_of(st.sampled_from(SIGNS), st.characters(exclude_categories=("C", "Z"))),
    min_size=1,
    max_size=6,
).filter(lambda name: name.strip() == name and name.strip(".") and not set(name) & set("/<\n"))
PATHS = st.builds(
    PathName, st.sampled_from(["/", "~/", ""]), st.lists(NAMES, min_size=1, max_size=4).map(tuple)
)


@given(st.lists(PATHS, min_size=1, max_size=8), st.data())
def test_every_known_path_goes_through_whatever_is_closed(
    paths: list[PathName], data: st.DataObject
) -> None:
    folders = [path.parent for path in paths]
    closed = data.draw(st.lists(st.sampled_from(folders), min_size=1))
    pattern = as_pattern(made(paths, closed))
    for path in paths:
        assert pattern.fullmatch(path.text)


@given(st.lists(PATHS, min_size=1, max_size=8), NAMES)
def test_in_a_closed_folder_no_name_goes_that_is_neither_known_nor_hidden(
    paths: list[PathName], name: str
) -> None:
    folder = paths[0].parent
    known = {path.parts[len(folder.parts)] for path in paths if path.relative_to(folder)}
    pattern = as_pattern(made(paths, [folder]))
    text = PathName(folder.anchor, (*folder.parts, name)).text
    is_hidden = any(one.startswith((".", "~")) for one in (name, *folder.parts))
    if is_hidden or any(_same(name, one) for one in known):
        return
    assert not pattern.fullmatch(text)


def _same(one: str, other: str) -> bool:
    return literal(one) == literal(other) or PathName("", (one,)).key == PathName("", (other,)).key


@given(st.text(st.characters(codec="utf-8")))
def test_a_literal_says_what_it_was_made_of(text: str) -> None:
    assert wide(literal(text)) == text
    assert literal(text).isascii()
    assert literal(text).isprintable()


def test_nothing_closed_makes_no_grammar() -> None:
    assert made(FILES, []) == ""


def test_more_paths_than_the_engine_reads_in_time_are_refused() -> None:
    many = [PathName("", ("src", f"f{n}.c")) for n in range(MOST_PATHS + 1)]
    with pytest.raises(TooMany):
        made(many, named("src"))
    assert made(many[1:], named("src"))


def test_paths_of_windows_are_not_spelled() -> None:
    with pytest.raises(Unspelled):
        made(named("C:\\Users\\Me\\notes.txt"), [])


def test_folders_that_hold_the_same_share_a_rule() -> None:
    one = named("/a/x/f.c", "/a/y/f.c", "/a/z/f.c")
    grammar = made(one, named("/a", "/a/x", "/a/y", "/a/z"))
    assert sum(line.startswith("f") for line in grammar.splitlines()) == 3  # free, and two folders


def test_the_tag_looks_for_a_key_within_its_own_tool_alone() -> None:
    told = json.loads(structural_tag({"read_file": {"path": 'root ::= "a"'}, "list": {"dir": "x"}}))
    assert told["type"] == "structural_tag"
    outer = told["format"]
    assert outer["triggers"] == ['<invoke name="list">', '<invoke name="read_file">']
    inner = outer["tags"][1]["content"]
    assert inner["triggers"] == ['<parameter name="path">']
    assert inner["tags"][0]["content"] == {"type": "grammar", "grammar": 'root ::= "a"'}
    assert inner["tags"][0]["end"] == "</parameter>"
