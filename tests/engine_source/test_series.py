"""Our patches: each says why it is there, and fits the real release with no fuzz."""

import re
from pathlib import Path

import pytest

from unglitched_vllm.source import patches, upstream
from unglitched_vllm.source.errors import SourceError
from unglitched_vllm.source.patches import HEADINGS, Patch, read_series

SERIES = read_series()
README = upstream.HERE / "README.md"
HEAD = "A title\n\n" + "".join(f"{heading}:\n  x\n" for heading in HEADINGS)
DIFF = "--- a/vllm/a.py\n+++ b/vllm/a.py\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"


def folder(tmp_path: Path, *texts: str) -> Path:
    for number, text in enumerate(texts, 1):
        (tmp_path / f"{number:04}-x.patch").write_text(text)
    return tmp_path


def tree(tmp_path: Path, text: str) -> Path:
    place = tmp_path / "vllm-9.9" / "vllm" / "a.py"
    place.parent.mkdir(parents=True)
    place.write_text(text)
    return tmp_path / "vllm-9.9"


def test_the_series_fits_the_real_release(patched_tree: Path, stock_tree: Path) -> None:
    for patch in SERIES:
        for name in patch.touches:
            assert (patched_tree / name).read_bytes() != (stock_tree / name).read_bytes()


@pytest.mark.parametrize("patch", SERIES, ids=lambda patch: patch.name)
def test_a_patch_says_what_of_our_command_reaches_it(patch: Patch) -> None:
    assert re.search(r"(^|\s)--[a-z-]+ \w+", patch.head["Reached by"])
    assert re.search(r"\w+\.py:\d+", patch.head["Reached by"])
    assert "Apache-2.0" in patch.path.read_text()


@pytest.mark.parametrize("patch", SERIES, ids=lambda patch: patch.name)
def test_a_patch_says_which_test_tells_when_it_can_go(patch: Patch) -> None:
    named = re.findall(r"test_\w+", patch.head["Drop when"])
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert named
    assert all(f"def {name}(" in tests for name in named)


@pytest.mark.parametrize("patch", SERIES, ids=lambda patch: patch.name)
def test_the_readme_lists_every_patch(patch: Patch) -> None:
    assert patch.name in README.read_text()


def test_a_patch_that_fits_is_applied(tmp_path: Path) -> None:
    series = read_series(folder(tmp_path, f"{HEAD}---\n{DIFF}"))
    place = tree(tmp_path, "one\ntwo\nthree\n")
    patches.apply(series, place)
    assert (place / "vllm" / "a.py").read_text() == "one\n2\nthree\n"
    assert sorted(path.name for path in (place / "vllm").iterdir()) == ["a.py"]


@pytest.mark.parametrize(
    "text", ["1\ntwo\nthree\n", "one\n2\nthree\n", ""], ids=["fuzz", "in already", "other file"]
)
def test_a_patch_that_does_not_fit_exactly_is_refused(tmp_path: Path, text: str) -> None:
    series = read_series(folder(tmp_path, f"{HEAD}---\n{DIFF}"))
    with pytest.raises(SourceError, match=r"0001-x does not apply to vllm-9\.9"):
        patches.apply(series, tree(tmp_path, text))


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_patch_without_a_whole_head_is_refused(tmp_path: Path, heading: str) -> None:
    text = HEAD.replace(f"{heading}:\n  x\n", "") + f"---\n{DIFF}"
    with pytest.raises(SourceError, match=f"it lacks {heading}"):
        read_series(folder(tmp_path, text))


def test_a_patch_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="it lacks a change"):
        read_series(folder(tmp_path, f"{HEAD}---\n"))


def test_a_gap_in_the_numbers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0002-x.patch").write_text(f"{HEAD}---\n{DIFF}")
    with pytest.raises(SourceError, match="0002"):
        read_series(tmp_path)


def test_only_a_patch_of_packaged_python_goes_into_a_wheel() -> None:
    assert {patch.name[:4]: patch.is_python for patch in SERIES} == {"0001": True, "0002": False}
