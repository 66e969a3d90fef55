"""Path names: what is one, its parts, and how it is spelled again."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.paths import (
    LONGEST,
    PathName,
    composed,
    has_extension,
    is_shaped,
    looked_alike,
    parse,
    skeleton,
    spell,
    without_line,
)


@pytest.mark.parametrize(
    ("text", "anchor", "parts"),
    [
        ("src/a.ts", "", ("src", "a.ts")),
        ("./src/a.ts", "", ("src", "a.ts")),
        ("/w/p/a b/c.ts", "/", ("w", "p", "a b", "c.ts")),
        ("/w/p/", "/", ("w", "p")),
        ("src//a.ts", "", ("src", "a.ts")),
        ("src/../lib/a.ts", "", ("lib", "a.ts")),
        ("../a.ts", "", ("..", "a.ts")),
        ("../../a", "", ("..", "..", "a")),
        ("~/.config/x", "~/", (".config", "x")),
        ("~", "~/", ()),
        ("C:\\Users\\Me\\a.cs", "c:/", ("Users", "Me", "a.cs")),
        ("c:/Users/Me", "c:/", ("Users", "Me")),
        ("\\\\Host\\share\\a b.docx", "//host/", ("share", "a b.docx")),
        ("src\\app\\b.ts", "", ("src", "app", "b.ts")),
        ("app/[id]/(group)/page.tsx", "", ("app", "[id]", "(group)", "page.tsx")),
        ("dt=2024-01-01/part-0.parquet", "", ("dt=2024-01-01", "part-0.parquet")),
        ("lib/@types/node/index.d.ts", "", ("lib", "@types", "node", "index.d.ts")),
        ("größe/深度.md", "", ("größe", "深度.md")),
        (".env", "", (".env",)),
        ("a/...", "", ("a", "...")),
    ],
)  # fmt: skip
def test_a_path_has_these_parts(text: str, anchor: str, parts: tuple[str, ...]) -> None:
    assert parse(text) == PathName(anchor, parts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://example.org/a/b.ts",
        "file:///a/b",
        "git@github.com:o/r.git",
        "mailto:a@b.c",
        "src/**/*.ts",
        "src/?.ts",
        "src/{a,b}.ts",
        "^src/.*",
        "src/\\w+\\.ts",
        "a/b\nc",
        "$HOME/a",
        "${ROOT}/a",
        "a|b/c",
        "x/" * LONGEST,
    ],
)
def test_what_is_no_path_that_could_be_compared_is_left_alone(text: str) -> None:
    assert parse(text) is None


NAMES = st.text(
    st.characters(categories=["L", "N"], include_characters=" .-_@+()[]&"), min_size=1, max_size=9
).filter(lambda name: name.strip(".") and name == name.strip())
PARTS = st.lists(NAMES, min_size=1, max_size=6).map(tuple)


@given(st.sampled_from(["", "/", "~/", "c:/"]), PARTS)
def test_what_is_spelled_is_read_again(anchor: str, parts: tuple[str, ...]) -> None:
    path = PathName(anchor, parts)
    assert parse(path.text) == path
    for like in ("C:\\x" if anchor == "c:/" else path.text, path.text + "/"):
        again = parse(spell(path, like))
        assert again == path or (anchor == "" and "\\" in like)


@given(st.text(max_size=60))
def test_no_text_makes_reading_fail(text: str) -> None:
    path = parse(text)
    if path is not None:
        assert parse(path.text) is None or path.key == composed(path.text)
        assert all("/" not in part and part not in ("", ".") for part in path.parts)


@given(PARTS)
def test_composed_and_decomposed_names_are_one(parts: tuple[str, ...]) -> None:
    apart = tuple(unicodedata.normalize("NFD", part) for part in parts)
    whole = tuple(unicodedata.normalize("NFC", part) for part in parts)
    assert PathName("", apart).key == PathName("", whole).key


@pytest.mark.parametrize(
    ("text", "like", "spelled"),
    [
        ("/w/a", "/w//a", "/w/a"),
        ("src/a", "./src//a", "./src/a"),
        ("c:/U/a", "C:\\\\U\\\\a", "C:\\U\\a"),
        ("c:/U/a", "c:/U/A", "c:/U/a"),
        ("src/a", "src/A/", "src/a/"),
        ("//host/s/a", "\\\\host\\s\\A", "\\\\host\\s\\a"),
    ],
)
def test_a_path_is_spelled_as_the_one_that_it_replaces(text: str, like: str, spelled: str) -> None:
    path = parse(text) if not text.startswith("//") else parse(text.replace("/", "\\"))
    assert path is not None
    assert spell(path, like) == spelled


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("docker- compose. yml", "docker-compose.yml"),
        ("ReadMe.MD", "readme.md"),
        ("foo_bar", "foo-bar"),
        ("Release Notes", "ReleaseNotes"),
        ("\u0440lot.pdf", "plot.pdf"),
        ("resume.pdf", "résumé.pdf"),
        ("a\u200bb", "ab"),
    ],
)
def test_alike_names_have_one_skeleton(one: str, other: str) -> None:
    assert skeleton(one) == skeleton(other)


@pytest.mark.parametrize(("one", "other"), [("a.ts", "b.ts"), ("v1", "v2"), ("深", "度")])
def test_other_names_have_another(one: str, other: str) -> None:
    assert skeleton(one) != skeleton(other)


def test_a_name_of_marks_alone_keeps_them() -> None:
    assert skeleton("..-") == "..-"
    assert looked_alike("a‐b") == "a-b"  # noqa: RUF001


@pytest.mark.parametrize(
    ("text", "bare"),
    [("a.ts:12", "a.ts"), ("a.ts:12:5", "a.ts"), ("a.ts#L3-L9", "a.ts"), ("a.ts", "a.ts")],
)
def test_a_line_number_is_no_part_of_a_path(text: str, bare: str) -> None:
    assert without_line(text) == bare


@pytest.mark.parametrize("text", ["a.ts", "a.b.tsx", "forest.gdshader", ".env.local"])
def test_names_with_an_ending(text: str) -> None:
    assert has_extension(text)


@pytest.mark.parametrize("text", ["a", ".env", "v1.2", "a.", "1.0.0"])
def test_names_without_one(text: str) -> None:
    assert not has_extension(text)


@pytest.mark.parametrize("text", ["/w/p/a.ts", "src/a.ts", "C:\\a\\b.cs", "~/x"])
def test_values_shaped_like_a_path(text: str) -> None:
    assert is_shaped(text)


@pytest.mark.parametrize(
    "text", ["a.ts", "and/or", "read/write", "/", "/usr", "see src/a.ts for the rest of it", "n/a"]
)
def test_values_that_only_have_a_slash(text: str) -> None:
    assert not is_shaped(text)
