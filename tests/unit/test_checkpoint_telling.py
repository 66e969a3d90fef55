"""Nobody listens, or what was asked for cannot be written: the work is kept, and the cause told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.checkpoint.bar import Bar
from appliance.checkpoint.command import main
from appliance.checkpoint.failures import DestinationError
from appliance.checkpoint.saving import save
from tests.checkpointbox import SMALL, build, write_mask
from tests.engines import ROOT

INDEX = "model.safetensors.index.json"


@pytest.fixture
def argv(tmp_path: Path) -> list[str]:
    source = build(tmp_path / "source", SMALL)
    mask = write_mask(tmp_path / "mask.json", SMALL, 6)
    return [str(source), str(tmp_path / "out"), "--deleted-experts-file", str(mask)]


def run(argv: list[str], stdout: int, stderr: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-S", str(ROOT / "extras" / "delete_experts.py"), *argv]
    return subprocess.Popen(command, stdout=stdout, stderr=stderr, text=True)


def closed_pipe() -> int:
    """Return the writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def test_a_run_whose_output_nobody_reads_ends_as_any_other(tmp_path: Path, argv: list[str]) -> None:
    writing = closed_pipe()
    with run([*argv, "--verify"], writing, subprocess.PIPE) as process:
        os.close(writing)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said == "delete_experts: stdout is lost (Broken pipe); the work goes on\n"
    assert (tmp_path / "out" / INDEX).exists()


def test_a_run_that_can_tell_nothing_at_all_ends_as_any_other(
    tmp_path: Path, argv: list[str]
) -> None:
    writing = closed_pipe()
    with run(argv, writing, writing) as process:
        os.close(writing)
        assert process.wait(60) == 0
    assert (tmp_path / "out" / INDEX).exists()


def test_a_full_disk_behind_stdout_is_told(tmp_path: Path, argv: list[str]) -> None:
    with open("/dev/full", "w") as full, run(argv, full.fileno(), subprocess.PIPE) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "stdout is lost (No space left on device)" in said
    assert "Traceback" not in said


def test_a_bar_whose_stream_breaks_does_not_break_the_work() -> None:
    with open(closed_pipe(), "w") as out:
        bar = Bar("writing", 10, out)
        bar._tty = True
        bar._shown = -1e9
        bar.add(5)
        bar.close()


def test_a_report_that_cannot_be_written_is_told_and_the_checkpoint_is_kept(
    tmp_path: Path, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "--report", "/dev/full"]) == 73
    said = capsys.readouterr()
    assert "/dev/full cannot be written: No space left on device" in said.err
    assert "wrote " in said.out
    assert main([*argv, "--verify"]) == 0


@pytest.mark.parametrize("flag", ["--report", "--save-deleted-experts"])
def test_a_folder_in_place_of_a_file_is_told_before_the_work(
    tmp_path: Path, argv: list[str], flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, flag, str(tmp_path)]) == 73
    assert f"{tmp_path} cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_mask_that_cannot_be_saved_is_told(
    tmp_path: Path, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 0
    find = [argv[0], str(tmp_path / "again"), "--compare-with", argv[1]]
    assert main([*find, "--save-deleted-experts", "/dev/full"]) == 73
    assert "/dev/full cannot be written" in capsys.readouterr().err


def test_a_file_that_cannot_be_replaced_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mask.json"
    save(path, json.dumps(1), "")
    monkeypatch.setattr(Path, "replace", lambda *_: os.truncate(tmp_path / "gone", 0))
    with pytest.raises(DestinationError, match="cannot be written: No such file"):
        save(path, json.dumps(2), "")
    assert path.read_text() == "1"
    assert os.listdir(tmp_path) == ["mask.json"]
