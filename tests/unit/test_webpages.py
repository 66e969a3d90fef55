"""The console's files: a table and nothing beside it."""

from pathlib import Path

import pytest

from appliance.webpages import CSP, KINDS, read_pages


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("index.html", "page.js", "page.css", "notes.md", ".secret.js", "page.js.map"):
        (tmp_path / name).write_text(name)
    (tmp_path / "sub.js").mkdir()
    return tmp_path


def test_the_index_is_the_root_and_only_known_kinds_are_served(folder: Path) -> None:
    pages = read_pages(folder)
    assert set(pages) == {"/", "/console/page.js", "/console/page.css"}
    assert pages["/"].body == b"index.html"
    assert pages["/console/page.js"].kind == KINDS[".js"]


def test_an_etag_is_of_the_content(folder: Path) -> None:
    before = read_pages(folder)
    (folder / "page.css").write_text("other")
    after = read_pages(folder)
    changed = {path for path in before if before[path].etag != after[path].etag}
    assert changed == {"/console/page.css"}


def test_the_real_console_has_a_page_that_needs_nothing_that_the_policy_forbids() -> None:
    index = read_pages()["/"].body.decode().lower()
    assert index.startswith("<!doctype html>")
    for forbidden in ("<style", "style=", "onclick", "javascript:", "http://", "https://"):
        assert forbidden not in index
    assert "unsafe" not in CSP
