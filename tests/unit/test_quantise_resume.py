"""Interrupted while it quantises, the same command with --resume ends byte for byte the same."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.checkpoint.destination import WORK
from appliance.checkpoint.formats import Format, Recipe
from appliance.checkpoint.plan import Made, Piece, Range, after, groups, merged
from appliance.checkpoint.quantise.encode import encoded
from appliance.checkpoint.quantisecommand import main
from appliance.checkpoint.source import LocalSource
from tests.checkpointbox import Shape, build, contents, dice_of, written
from tests.engines import ROOT

COMMAND = [sys.executable, str(ROOT / "extras" / "quantize_attention.py")]
SHAPE = Shape(form="nvfp4", layers=6, experts=8, hidden=256, inner=64, heads=8, shards=4)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source, and what an uninterrupted run makes of it."""
    folder = tmp_path_factory.mktemp("resume")
    build(folder / "source", SHAPE)
    assert main(argv(folder, folder / "whole")) == 0
    return folder


def argv(box: Path, out: Path, *flags: str) -> list[str]:
    return [str(box / "source"), str(out), "--lm-head", "--jobs", "2", *flags]


def killed_at(box: Path, out: Path, moment: int) -> bool:
    """Run, and kill when so many bytes are written; return whether it still ran."""
    with subprocess.Popen([*COMMAND, *argv(box, out)], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:  # fmt: skip
        while process.poll() is None and written(out) <= moment:
            os.sched_yield()
        process.send_signal(signal.SIGKILL)
        return process.wait(60) == -signal.SIGKILL


@pytest.mark.long
def test_killed_at_12_random_moments_a_resume_ends_byte_for_byte_the_same(
    box: Path, tmp_path: Path
) -> None:
    whole = contents(box / "whole")
    size, dice, killed = sum(map(len, whole.values())), dice_of("moments"), 0
    for number in range(12):
        out = tmp_path / str(number)
        killed += killed_at(box, out, dice.randrange(size))
        if (out / WORK).exists():
            assert main(argv(box, out, "--resume", "--verify")) == 0
        assert contents(out) == whole
    assert killed >= 8  # the others had ended before they were met


def test_killed_half_way_a_resume_ends_byte_for_byte_the_same(box: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", contents(box / "whole")
    killed_at(box, out, sum(map(len, whole.values())) // 2)
    if (out / WORK).exists():
        assert main(argv(box, out, "--resume", "--verify")) == 0
    assert contents(out) == whole


def test_a_resume_goes_on_within_a_matrix(
    box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # so many bytes that the mark stands in the middle of one that is being made
    monkeypatch.setattr("appliance.checkpoint.write.MARK_BYTES", 10_000)
    monkeypatch.setattr("appliance.checkpoint.quantise.encode.BLOCK_BYTES", 8_192)
    whole = contents(box / "whole")
    for limit in (50_000, 123_457, 200_001):
        out = tmp_path / str(limit)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            assert main(argv(box, out)) == 74
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert main(argv(box, out, "--resume")) == 0
        assert contents(out) == whole


@pytest.mark.parametrize(
    "flags", [["--format", "mxfp8"], ["--layers", "0-2"], ["--keep-above", "0.001"]]
)
def test_a_resume_with_another_wish_is_refused(
    box: Path, tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        assert main(argv(box, out)) == 74
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert main(argv(box, out, "--resume", *flags)) == 73
    assert "another source, mask or set of flags" in capsys.readouterr().err


# ---- the law behind it


RECIPES = st.builds(Recipe, st.sampled_from([*Format]), st.integers(1, 9), st.just(32))
PIECES = st.lists(
    st.builds(Range, st.integers(0, 400), st.integers(0, 60))
    | st.builds(lambda recipe, at: Made(at, recipe.size, recipe), RECIPES, st.integers(0, 100)),
    max_size=8,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    # small numbers, none of them infinite
    (folder / "data").write_bytes(bytes(b & 0x3F for b in dice_of("data").randbytes(2000)))
    return folder


def taken(folder: Path, pieces: list[Piece]) -> bytes:
    source = LocalSource(folder)
    try:
        return b"".join(
            b"".join(encoded(source, "data", piece))
            if isinstance(piece, Made)
            else source.read("data", piece.offset, piece.length)
            for piece in pieces
        )
    finally:
        source.close()


@given(pieces=PIECES, count=st.integers(0, 2500))
def test_what_is_left_after_a_resume_is_the_tail_of_what_is_made(
    data: Path, pieces: list[Piece], count: int
) -> None:
    whole = taken(data, pieces)
    assert len(whole) == sum(piece.length for piece in pieces)
    assert taken(data, [*merged(pieces)]) == whole
    left = [*after(merged(pieces), count)]
    assert taken(data, left) == whole[count:]
    assert [piece for group in groups(left) for piece in group] == left
    assert taken(data, [*after(left, count)]) == whole[2 * count :]
