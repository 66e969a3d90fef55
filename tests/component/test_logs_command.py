"""``appliance logs`` as a process: what it prints, where, and over which breaks."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from appliance.cli import main
from tests.appliances import (
    COMMAND,
    CONTROL,
    ApplianceProcess,
    RunAppliance,
    clean_environment,
    running_process,
)
from tests.engines import ROOT, wait_until

READY = "Application startup complete"


class Reader:
    """``appliance logs`` as a process, and what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process = process
        self._out = out
        self._err = err

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def says(self, text: str, times: int = 1) -> None:
        wait_until(
            lambda: self.out.count(text) >= times,
            20,
            f"{text!r} in {self.out!r}; it said {self.err!r}",
        )

    def notes(self, text: str) -> None:
        wait_until(lambda: text in self.err, 20, f"{text!r} in {self.err!r}")


@contextmanager
def reading(
    box: ApplianceProcess, *arguments: str, stdout: IO[bytes] | int | None = None
) -> Iterator[Reader]:
    """Run ``appliance logs`` beside ``box``; end it with the test."""
    out, err = box.folder / "logs.out", box.folder / "logs.err"
    env = clean_environment() | dict(box.env) | {"PYTHONPATH": str(ROOT)}
    with out.open("wb") as out_file, err.open("wb") as err_file:
        process = subprocess.Popen(
            [*COMMAND, "logs", *arguments], env=env, stdout=stdout or out_file, stderr=err_file
        )
    with process:
        try:
            yield Reader(process, out, err)
        finally:
            process.kill()
    assert "Traceback" not in err.read_text()


def test_the_last_lines_are_printed_and_as_json_each_is_an_object(
    box: ApplianceProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in box.env.items():
        monkeypatch.setenv(name, value)
    assert main(["logs"]) == 0
    whole = capsys.readouterr().out.splitlines()
    assert any(READY in line for line in whole)
    assert main(["logs", "--lines", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == whole[-2:]
    assert main(["logs", "--lines", "2", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in told] == whole[-2:]
    assert main(["logs", "--lines", "0"]) == 0
    assert capsys.readouterr().out == ""


def test_a_number_of_lines_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["logs", "--lines", "many"])
    assert "from 0 to 2000" in capsys.readouterr().err


@pytest.mark.parametrize("follow", [(), ("--follow",)], ids=["tail", "follow"])
def test_without_an_appliance_it_ends_with_1_and_says_what_to_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], follow: tuple[str, ...]
) -> None:
    assert main(["logs", *follow, "--state-dir", str(tmp_path)]) == 1
    assert "appliance run" in capsys.readouterr().err


def test_following_tells_the_past_then_each_line_and_each_state(run: RunAppliance) -> None:
    box = run()
    box.until("ready")
    with reading(box, "--follow", "--lines", "1") as reader:
        wait_until(lambda: reader.out.count("\n") == 1, 20, "one line of the past")
        with box.local() as http:
            http.post(f"{CONTROL}/restart").raise_for_status()
        reader.says(READY)
        reader.notes("-- engine ready, spawn 2")
        assert "engine ready" not in reader.out
        reader.process.send_signal(signal.SIGINT)
        assert reader.process.wait(20) == 130


def test_following_goes_on_when_the_appliance_is_started_anew(tmp_path: Path) -> None:
    said = tmp_path / "said.txt"
    said.write_text("this is the first life\n")
    faults = ("--log-lines", str(said))
    with running_process(tmp_path / "box", *faults) as box:
        box.until("ready")
        with reading(box, "--follow") as reader:
            reader.says(READY)
            box.signal(signal.SIGTERM)
            assert box.code() == 0
            reader.notes("lost the appliance")
            said.write_text("this is the second life\n")
            with running_process(tmp_path / "box", *faults):
                reader.says(READY, times=2)
                reader.notes("the appliance answers again")
                reader.notes("started anew")
            out = reader.out
    assert [out.count(text) for text in ("first life", "second life", READY)] == [1, 1, 2]


def test_a_reader_of_the_pipe_that_leaves_ends_it_quietly(box: ApplianceProcess) -> None:
    with reading(box, "--lines", "2000", stdout=subprocess.PIPE) as reader:
        assert reader.process.stdout is not None
        reader.process.stdout.close()
        assert reader.process.wait(20) == 0
        assert reader.err == ""
