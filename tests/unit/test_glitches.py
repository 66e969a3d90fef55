"""Glitches: what a path is, against a ledger; which kind, how sure, and what was meant."""

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from appliance.glitches import compare
from appliance.partdiff import STYLE, Kind, part_difference
from appliance.pathdiff import difference, is_common
from appliance.pathhistory import read_all
from appliance.pathledger import LISTING, USER, Ledger, Page
from appliance.paths import PathName, parse


def ledger(*paths: str, kind: int = LISTING, said: str = "", root: str = "") -> Ledger:
    page = Page()
    for path in paths:
        page.add(path, kind)
    page.said = said
    if root and (path_name := parse(root)) is not None:
        page.roots = (path_name,)
    return Ledger([page])


SHOWN = ledger(
    "/w/src/components/Button.tsx",
    "/w/src/components/checkout/PaymentForm.tsx",
    "/w/docs/Release Notes.md",
    "/w/docker-compose.yml",
    "/w/conf/v1.2.0.json",
    "/w/logs/2024-01-15.log",
    root="/w",
)


@pytest.mark.parametrize(
    ("emitted", "kind", "meant"),
    [
        ("/w/src/Components/Button.tsx", Kind.CASE, "/w/src/components/Button.tsx"),
        ("src/components/button.tsx", Kind.CASE, "src/components/Button.tsx"),
        ("/w/docker- compose. yml", Kind.INSERTED_SPACE, "/w/docker-compose.yml"),
        ("/w/docker-compose.yml\n", Kind.INSERTED_SPACE, "/w/docker-compose.yml"),
        ("/w/docs/ReleaseNotes.md", Kind.LOST_SPACE, "/w/docs/Release Notes.md"),
        ("/w/components/Button.tsx", Kind.DROPPED_COMPONENT, "/w/src/components/Button.tsx"),
        ("/w/src//components/Button.tsx", Kind.DOUBLED_SEPARATOR, "/w/src/components/Button.tsx"),
        ("/w/docker-compose..yml", Kind.DOUBLED_SEPARATOR, "/w/docker-compose.yml"),
        ("/w/docker_compose.yml", Kind.SUBSTITUTED_CHARACTER, "/w/docker-compose.yml"),
        ("/w/dosker-compose.yml", Kind.SUBSTITUTED_CHARACTER, "/w/docker-compose.yml"),
        ("/w/src/componnts/Button.tsx", Kind.OTHER, "/w/src/components/Button.tsx"),
        ("/w/src/src/components/Button.tsx", Kind.OTHER, "/w/src/components/Button.tsx"),
        ("w/src/components/Button.tsx", Kind.OTHER, "/w/src/components/Button.tsx"),
        ("/w/src/component s/New.tsx", Kind.INSERTED_SPACE, "/w/src/components/New.tsx"),
    ],
)  # fmt: skip
def test_a_glitch_has_a_kind_and_a_path_that_was_meant(
    emitted: str, kind: Kind, meant: str
) -> None:
    found = compare(emitted, SHOWN)
    assert (found.kind, found.meant) == (kind, meant)
    assert found.evidence == LISTING
    assert 0.5 <= found.confidence <= 1


@pytest.mark.parametrize(
    "emitted",
    [
        "/w/src/components/Select.tsx",
        "/w/src/components/Buttons.tsx",
        "/w/conf/v1.2.1.json",
        "/w/conf/v1.20.json",
        "/w/logs/2024-01-16.log",
        "/w/logs/2024_01_15.log",
        "/w/src/index.ts",
        "/other/place.ts",
        "src/**/*.tsx",
        "https://example.org/w/src/Components/Button.tsx",
        "",
        "   ",
        "\n",
    ],
)
def test_what_may_be_meant_is_new(emitted: str) -> None:
    found = compare(emitted, SHOWN)
    assert not found.is_glitch
    assert not found.is_known


def test_a_file_to_be_created_may_be_much_like_one_that_is_there() -> None:
    known = ledger("/w/parser.js", "/w/reader.py", root="/w")
    for emitted in ("/w/parse.js", "/w/header.py", "/w/parsers.js"):
        assert not compare(emitted, known, creates=True).is_glitch
    assert compare("/w/Parser.js", known, creates=True).confidence < STYLE
    assert compare("/w/parser. js", known, creates=True).confidence >= STYLE


def test_two_paths_that_may_be_meant_are_told() -> None:
    known = ledger("/w/a/Foo.ts", "/w/a/foo.ts", root="/w")
    assert not compare("/w/a/FOO.ts", known).is_sole
    assert compare("/w/a/Foo.ts", known).is_known


def test_a_name_that_a_user_gave_is_no_glitch_of_another() -> None:
    known = ledger("/w/readme.md", root="/w", said="Rename readme.md to ReadMe.md")
    assert not compare("/w/ReadMe.md", known, creates=True).is_glitch


def test_without_a_folder_of_the_work_the_ends_of_paths_are_compared() -> None:
    known = ledger("src/app/main.go")
    assert compare("/anywhere/src/app/main.go", known).is_known
    assert compare("/anywhere/src/app/main. go", known).meant == "/anywhere/src/app/main.go"


def test_decomposed_names_are_mended_to_what_the_listing_had() -> None:
    apart = unicodedata.normalize("NFD", "/w/größe/Übersicht.svg")
    known = ledger(apart, root="/w")
    assert compare("/w/größe/Übersicht.svg", known).is_known
    assert compare("/w/größe/Übersicht. svg", known).meant == apart


def test_a_name_in_both_forms_of_unicode_may_be_two_files() -> None:
    apart = unicodedata.normalize("NFD", "/w/Übersicht.svg")
    known = ledger("/w/Übersicht.svg", apart, root="/w")
    assert not compare("/w/Übersicht. svg", known).is_sole
    assert compare(apart, known).is_known


@pytest.mark.parametrize("part", ["index.ts", "__init__.py", "README.md", ".env", "package.json"])
def test_names_that_stand_anywhere(part: str) -> None:
    assert is_common(part)
    assert not is_common("PaymentForm.tsx")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("v1", "v2"), ("a.ts", "b.ts"), ("test_1.py", "test_2.py"), ("de.json", "fr.json"),
        ("main.3f2a9c.js", "main.3f2a9d.js"), ("app.ts", "app.js"), ("report-2023", "report-2024"),
        ("x", "y"), ("chapter10", "chapter1"), ("1.2", "12"), ("Button", "Select"),
    ],
)  # fmt: skip
def test_parts_that_differ_on_purpose(ours: str, theirs: str) -> None:
    assert part_difference(ours, theirs) is None


NAMES = st.text(st.sampled_from("abcdefXYZ012-_. é"), min_size=1, max_size=8).filter(
    lambda name: name.strip(". ") == name
)
PATHS = st.lists(NAMES, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(PATHS, min_size=1, max_size=8), st.sampled_from([USER, LISTING]))
def test_a_ledger_path_that_is_emitted_exactly_is_exact(paths: list[str], kind: int) -> None:
    known = ledger(*paths, kind=kind)
    for path in paths:
        for text in (path, path + "/"):
            assert compare(text, known).is_known
            assert compare(text, known, creates=True).is_known


@given(st.lists(PATHS, min_size=1, max_size=8), PATHS)
def test_what_is_meant_is_exact_or_stands_in_a_known_folder(paths: list[str], emitted: str) -> None:
    known = ledger(*paths)
    found = compare(emitted, known)
    if found.is_glitch:
        assert found.meant != emitted
        again = compare(found.meant, known)
        assert again.is_known == found.tail_known
        assert not (found.tail_known and again.is_glitch)


@given(PATHS, PATHS)
def test_nothing_differs_from_itself(one: str, other: str) -> None:
    path, known = parse(one), parse(other)
    assert path is not None
    assert known is not None
    assert difference(path, path) is None
    found = difference(path, known)
    assert found is None or 0 < found.confidence < 1


@given(NAMES, NAMES)
def test_no_two_parts_make_the_comparison_fail(ours: str, theirs: str) -> None:
    assume(ours != theirs)
    found = part_difference(ours, theirs)
    assert found is None or found.parts == (ours,)


@given(st.text(max_size=50))
def test_no_text_makes_the_comparison_fail(text: str) -> None:
    compare(text, SHOWN)


def test_a_real_conversation_is_compared_end_to_end() -> None:
    request: dict[str, Any] = {
        "messages": [
            {"role": "user", "content": "<env>\nWorking directory: /w\n</env>\nsee src/a_long.py"}
        ]
    }
    shown = read_all(json.dumps(request).encode())
    assert compare("/w/src/a_ long.py", shown).meant == "/w/src/a_long.py"
    assert PathName("/", ("w",)) in shown.roots
