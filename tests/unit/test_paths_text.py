"""Paths in text: prose, code, listings, commands and patches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.pathlisting import listed
from appliance.pathtext import mentions, patched, shell_words, words_with_paths


def prose(text: str) -> set[str]:
    return set(mentions(text, is_prose=True))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("Look at src/a.ts.", "src/a.ts"),
        ("Look at (src/a.ts), please", "src/a.ts"),
        ("`src/a.ts`", "src/a.ts"),
        ("src/a.ts:12:5: error", "src/a.ts"),
        ("see [the docs](docs/a.md)", "docs/a.md"),
        ('open "docs/Release Notes.md"', "docs/Release Notes.md"),
        ("open 'My File.txt' now", "My File.txt"),
        ("open /w/docs/Release Notes.md now", "/w/docs/Release Notes.md"),
        ("open My\\ Files/a.txt", "My Files/a.txt"),
        ("C:\\Users\\Me\\a.cs is wrong", "C:\\Users\\Me\\a.cs"),
        ("~/.ssh/config", "~/.ssh/config"),
        ("the README.md", "README.md"),
        ("the Makefile", "Makefile"),
        ("the .gitignore", ".gitignore"),
        ("--config=conf/a.toml", "conf/a.toml"),
        ("app/[id]/page.tsx", "app/[id]/page.tsx"),
    ],
)
def test_prose_mentions_a_path(text: str, path: str) -> None:
    assert path in prose(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/src/a.ts",
        "git@github.com:o/src.git",
        "ssh://h/src/a.ts",
        "version 1.2.3",
        "// a comment",
        "/* another */",
    ],
)
def test_what_is_no_path_is_not_mentioned(text: str) -> None:
    assert prose(text) == set()


def test_the_words_of_a_quoted_path_are_no_paths() -> None:
    assert prose('"docs/Release Notes.md"') == {"docs/Release Notes.md"}


def test_code_mentions_what_has_a_separator_alone() -> None:
    code = "import os.path\nopen('./a/b.ts')\nself.x = y.z\nsrc/a.ts:3:x"
    assert set(mentions(code, is_prose=False)) == {"./a/b.ts", "src/a.ts"}


@given(st.text(max_size=200), st.booleans())
def test_no_text_makes_looking_fail(text: str, is_prose: bool) -> None:
    list(mentions(text, is_prose=is_prose))
    list(listed(text, "/w"))
    list(words_with_paths(text))
    list(patched(text))


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("a.ts\nsub/b c.ts", ["/w/a.ts", "/w/sub/b c.ts"]),
        ("/w/a.ts\n/w/b.ts", ["/w/a.ts", "/w/b.ts"]),
        ("src/\n  a.ts\n  sub/\n    b.ts\nREADME.md",
         ["/w/src/", "/w/src/a.ts", "/w/src/sub/", "/w/src/sub/b.ts", "/w/README.md"]),
        ("- /w/\n  - a.ts\n  - sub/\n    - b.ts", ["/w/", "/w/a.ts", "/w/sub/", "/w/sub/b.ts"]),
        (".\n├── src\n│   ├── a.ts\n│   └── b.ts\n└── c d.md\n\n1 directory, 3 files",
         ["/w", "/w/src", "/w/src/a.ts", "/w/src/b.ts", "/w/c d.md"]),
        ("total 8\n-rw-r--r-- 1 u g 12 Nov  1 12:00 My x.txt\nlrwxrwxrwx 1 u g 3 Nov 1 9:00 l -> m",
         ["/w/My x.txt", "/w/l"]),
        (".:\na.ts\n\n./sub:\nb.ts", ["/w/a.ts", "/w/sub/b.ts"]),
        ("[DIR] src\n[FILE] a.ts", ["/w/src", "/w/a.ts"]),
        ('["a.ts","b/c.ts"]', ["/w/a.ts", "/w/b/c.ts"]),
        ('[{"name":"src","children":[{"name":"a.ts"}]}]', ["/w/src", "/w/src/a.ts"]),
        (" M a.ts\n?? b.ts\nR  c.ts -> d.ts", ["/w/a.ts", "/w/b.ts", "/w/d.ts"]),
        ("a.ts (12 KB)\nb.sh*", ["/w/a.ts", "/w/b.sh"]),
        ("(Results are truncated. Use a more specific path.)\na.ts", ["/w/a.ts"]),
        ("Error: the folder does not exist.", []),
        ("23807 ./a.py\n4.0K\tsub/b c.py\n  12  d.py\n   317 e/f.py\n2024 report.md",
         ["/w/a.py", "/w/sub/b c.py", "/w/d.py", "/w/e/f.py", "/w/2024 report.md"]),
        ("https://x.y/z", []),
    ],
)  # fmt: skip
def test_a_listing_shows_these_paths(text: str, paths: list[str]) -> None:
    assert list(listed(text, "/w")) == paths


def test_a_line_that_names_its_folder_is_not_put_into_it_twice() -> None:
    assert list(listed("src/a.ts\nb.ts", "src")) == ["src/a.ts", "src/b.ts"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("cat a b", [["cat", "a", "b"]]),
        ("cd x && ls 'a b'; rm c", [["cd", "x"], ["ls", "a b"], ["rm", "c"]]),
        ('cat "a \\"b\\"" c\\ d', [["cat", 'a "b"', "c d"]]),
        ("a | b > out.txt 2>/dev/null", [["a"], ["b", "out.txt", "/dev/null"]]),
        ("type C:\\a\\b.txt", [["type", "C:\\a\\b.txt"]]),
        ("echo 'not closed", [["echo", "not", "closed"]]),
        ("", []),
    ],
)
def test_the_words_of_a_command(command: str, words: list[list[str]]) -> None:
    assert shell_words(command) == words


def test_the_paths_of_a_command() -> None:
    command = "npx tsc --project=conf/a.json -I/usr/include x 'a b/c.ts' https://x.y/z"
    assert list(words_with_paths(command)) == ["conf/a.json", "a b/c.ts"]


def test_the_files_of_a_patch() -> None:
    patch = (
        "*** Begin Patch\n*** Update File: a/b.ts\n*** Move to: a/c d.ts\n*** Add File: x.ts\n"
        "--- a/src/q.ts\n+++ /dev/null\n"
    )
    assert list(patched(patch)) == ["a/b.ts", "a/c d.ts", "x.ts", "src/q.ts"]
