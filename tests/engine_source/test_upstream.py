"""The pin, and what is believed of a file that came over the network."""

import sys
from pathlib import Path

import pytest

from unglitched_vllm.source import fetch
from unglitched_vllm.source.errors import SourceError
from unglitched_vllm.source.upstream import Artifact, Upstream, read_upstream, sha256_of

TEXT = b"the release"
PIN = Artifact("x.tar.gz", len(TEXT), "")


@pytest.fixture
def pin(tmp_path: Path) -> Artifact:
    sample = tmp_path / "sample"
    sample.write_bytes(TEXT)
    return Artifact("x.tar.gz", len(TEXT), sha256_of(sample))


def giving(text: bytes) -> list[str]:
    """Return a command that, as unearth does, puts the file into the folder of --download."""
    code = f"import sys; open(sys.argv[-1] + '/x.tar.gz', 'wb').write({text!r})"
    return [sys.executable, "-c", code]


NOTHING = [sys.executable, "-c", "raise SystemExit('nobody should ask')"]


def test_the_real_source_is_the_pinned_one(sdist: Path, upstream: Upstream) -> None:
    assert fetch.check(upstream.sdist, sdist) == sdist


def test_a_fetched_file_is_kept(tmp_path: Path, pin: Artifact) -> None:
    cache = tmp_path / "cache"
    assert fetch.obtain(pin, cache, None, giving(TEXT)) == (cache / pin.file, True)
    assert fetch.obtain(pin, cache, None, NOTHING) == (cache / pin.file, False)


def test_a_cut_off_download_is_fetched_again(tmp_path: Path, pin: Artifact) -> None:
    (tmp_path / pin.file).write_bytes(TEXT[:-1])
    assert fetch.obtain(pin, tmp_path, None, giving(TEXT)) == (tmp_path / pin.file, True)


@pytest.mark.parametrize(
    ("text", "why"),
    [(b"other words", "its sha256 is"), (b"short", "it has 5 bytes, UPSTREAM says 11")],
    ids=["same size", "other size"],
)
def test_another_file_is_refused_and_not_kept(
    tmp_path: Path, pin: Artifact, text: bytes, why: str
) -> None:
    with pytest.raises(SourceError, match=why):
        fetch.obtain(pin, tmp_path, None, giving(text))
    assert not (tmp_path / pin.file).exists()


def test_a_file_brought_by_hand_is_taken_where_it_lies(tmp_path: Path, pin: Artifact) -> None:
    brought = tmp_path / "brought"
    brought.mkdir()
    (brought / pin.file).write_bytes(TEXT)
    assert fetch.obtain(pin, tmp_path / "c", brought, NOTHING) == (brought / pin.file, False)


def test_a_wrong_file_brought_by_hand_is_refused_and_left_alone(
    tmp_path: Path, pin: Artifact
) -> None:
    (tmp_path / pin.file).write_bytes(b"other words")
    with pytest.raises(SourceError, match="is not the release that UPSTREAM pins"):
        fetch.obtain(pin, tmp_path / "c", tmp_path, NOTHING)
    assert (tmp_path / pin.file).read_bytes() == b"other words"


def test_an_index_that_fails_is_said_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no route to the index')"]
    with pytest.raises(SourceError, match="was not fetched: no route to the index"):
        fetch.obtain(PIN, tmp_path, None, command)


def test_an_index_without_the_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"gave no x\.tar\.gz"):
        fetch.obtain(PIN, tmp_path, None, [sys.executable, "-c", ""])


def test_a_missing_fetcher_is_said_with_the_line_to_type(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('No module named unearth')"]
    with pytest.raises(SourceError, match="pip install unearth"):
        fetch.obtain(PIN, tmp_path, None, command)


def test_no_command_names_a_host(upstream: Upstream) -> None:
    commands = [fetch.sdist_command(upstream), fetch.wheel_command(upstream, "aarch64")]
    assert not any("//" in word for command in commands for word in command[1:])


@pytest.mark.parametrize("text", ["", "name = 'x'", "= ="], ids=["empty", "half", "no TOML"])
def test_a_pin_that_is_not_whole_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "UPSTREAM").write_text(text)
    with pytest.raises(SourceError, match="is no whole pin"):
        read_upstream(tmp_path / "UPSTREAM")
