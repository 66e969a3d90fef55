"""An interrupted run loses nothing: killed at any moment or out of disk, --resume ends the same."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from appliance.checkpoint.command import main
from appliance.checkpoint.destination import WORK
from appliance.checkpoint.journal import marks_of
from appliance.checkpoint.plan import ShardPlan
from appliance.checkpoint.write import Writer
from tests.checkpointbox import (
    SMALL,
    Shape,
    build,
    contents,
    dice_of,
    write_json,
    write_mask,
    written,
)
from tests.engines import ROOT

COMMAND = [sys.executable, "-S", str(ROOT / "extras" / "delete_experts.py")]
# a few MB in many ranges: long enough to be met half way, short enough for twenty runs
SHAPE = Shape(layers=6, experts=32, hidden=128, inner=64, shards=4, vocabulary=512)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source, a mask, and what an uninterrupted run makes of them."""
    folder = tmp_path_factory.mktemp("resume")
    build(folder / "source", SHAPE)
    write_mask(folder / "mask.json", SHAPE, 24)
    assert main(argv(folder, folder / "whole")) == 0
    return folder


def argv(box: Path, out: Path, *flags: str) -> list[str]:
    mask = str(box / "mask.json")
    return [str(box / "source"), str(out), "--deleted-experts-file", mask, "--jobs", "2", *flags]


def kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> bool:
    """Kill the process at the moment that ``ready`` tells; return whether it still ran."""
    while process.poll() is None and not ready():
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    return process.wait(60) == -signal.SIGKILL


@pytest.mark.long
def test_killed_at_20_random_moments_a_resume_ends_byte_for_byte_the_same(
    box: Path, tmp_path: Path
) -> None:
    whole = contents(box / "whole")
    size = sum(map(len, whole.values()))
    dice, killed = dice_of("moments"), 0
    for number in range(20):
        out = tmp_path / str(number)
        moment = dice.randrange(size)
        with subprocess.Popen([*COMMAND, *argv(box, out)], stderr=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL) as process:  # fmt: skip
            killed += kill_when(process, lambda out=out, at=moment: written(out) > at)  # type: ignore[misc]
        if (out / WORK).exists():
            assert main(argv(box, out, "--resume", "--verify")) == 0
        assert contents(out) == whole
    assert killed >= 15  # the others had ended before they were met


def test_what_a_kill_left_half_written_never_has_its_name(box: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", contents(box / "whole")
    with subprocess.Popen([*COMMAND, *argv(box, out)], stderr=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL) as process:  # fmt: skip
        kill_when(process, lambda: written(out) > 1_000_000)
    for name, content in contents(out).items():
        if not name.startswith(WORK):
            assert content == whole[name]
    assert not (out / "model.safetensors.index.json").exists() or not (out / WORK).exists()


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


def test_a_disk_that_is_full_is_said_clearly_and_resume_goes_on(box: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = subprocess.run(
        [*COMMAND, *argv(box, out)], capture_output=True, text=True, timeout=60, preexec_fn=limited
    )
    assert run.returncode == 74
    assert "is full" in run.stderr
    assert "--resume" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (out / "config.json").exists()
    assert main(argv(box, out, "--resume")) == 0
    assert contents(out) == contents(box / "whole")


def test_a_resume_copies_only_what_is_missing(
    box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    subprocess.run([*COMMAND, *argv(box, out)], preexec_fn=limited, check=False, timeout=60,
                   capture_output=True)  # fmt: skip
    (out / "model-00002-of-00004.safetensors").write_bytes(
        (box / "whole" / "model-00002-of-00004.safetensors").read_bytes()
    )
    before = (out / "model-00002-of-00004.safetensors").stat().st_ino
    assert main(argv(box, out, "--resume")) == 0
    assert (out / "model-00002-of-00004.safetensors").stat().st_ino == before


def test_a_resume_goes_on_within_a_file_from_what_is_surely_on_the_disk(
    box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.checkpoint.write.MARK_BYTES", 50_000)
    out = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        assert main(argv(box, out)) == 74
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    marks, _ = marks_of((out / WORK / "journal").read_bytes())
    assert max(marks.values()) >= 200_000
    name, mark = max(marks.items(), key=lambda item: item[1])
    part = out / WORK / f"{name}.part"
    with part.open("r+b") as file:  # what was noted is kept as it is; --verify would see this
        file.seek(mark - 1)
        file.write(b"\x7f")
    assert main(argv(box, out, "--resume")) == 0
    ours, whole = (out / name).read_bytes(), (box / "whole" / name).read_bytes()
    assert [at for at in range(len(whole)) if ours[at] != whole[at]] in ([mark - 1], [])


@pytest.mark.parametrize("change", ["mask", "flag", "source"])
def test_a_resume_with_another_wish_is_refused(
    box: Path, tmp_path: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, flags = tmp_path / "out", []
    subprocess.run([*COMMAND, *argv(box, out)], preexec_fn=limited, check=False, timeout=60,
                   capture_output=True)  # fmt: skip
    other = tmp_path / "box"
    other.mkdir()
    (other / "source").symlink_to(box / "source")
    write_mask(other / "mask.json", SHAPE, 24, seed=4 if change == "mask" else 3)
    if change == "flag":
        flags.append("--keep-code")
    if change == "source":
        (other / "source").unlink()
        build(other / "source", SHAPE)
        write_json(other / "source" / "generation_config.json", {"eos_token_id": 2})
    assert main(argv(other, out, "--resume", *flags)) == 73
    assert "another source, mask or set of flags" in capsys.readouterr().err


def test_two_runs_do_not_write_one_folder(
    box: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    subprocess.run([*COMMAND, *argv(box, out)], preexec_fn=limited, check=False, timeout=60,
                   capture_output=True)  # fmt: skip
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl,os,sys; f=os.open(sys.argv[1],0); "
         "fcntl.flock(f,2); print(flush=True); sys.stdin.read()", str(out / WORK)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert main(argv(box, out, "--resume")) == 73
        holder.kill()
    assert "another process" in capsys.readouterr().err


def test_a_journal_torn_at_any_byte_is_read_up_to_there() -> None:
    text = b'{"plan": "p"}\n{"file": "a", "bytes": 5}\n{"file": "a", "bytes": 9}\n'
    for end in range(len(text)):
        marks, plan = marks_of(text[:end])
        assert plan == ("p" if end >= 13 else "")
        assert marks.get("a", 0) == (9 if end >= len(text) - 1 else 5 if end >= 39 else 0)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours handles it."""


def test_killed_while_it_tidies_up_it_is_finished(
    box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def half_removed(*_: object, dir_fd: int, **__: object) -> None:
        for inside in out.glob(".*/journal"):
            if not (out / WORK).exists():
                inside.unlink()
                raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("appliance.checkpoint.destination.shutil.rmtree", half_removed)
        with pytest.raises(Killed):
            main(argv(box, out))
    assert not (out / WORK).exists()
    assert main(argv(box, out, "--resume")) == 73, "there is no interrupted run to go on with"
    assert main(argv(box, out, "--verify")) == 0
    shown = {name: content for name, content in contents(out).items() if name[0] != "."}
    assert shown == contents(box / "whole")


def test_without_a_journal_no_file_is_taken_for_one_of_this_run(box: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "box"
    assert main(argv(box, out)) == 0
    (out / WORK).mkdir()  # as after a crash that lost the journal
    other.mkdir()
    (other / "source").symlink_to(box / "source")
    write_mask(other / "mask.json", SHAPE, 24, seed=4)
    assert main(argv(other, out, "--resume", "--verify")) == 0
    assert contents(out) != contents(box / "whole")


@pytest.mark.parametrize(("way", "resumed"), [("rewritten", 73), ("touched", 73), ("cut", 65)])
def test_a_source_that_changes_while_it_is_read_makes_no_checkpoint(
    tmp_path: Path,
    way: str,
    resumed: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, out = build(tmp_path / "source", SMALL), tmp_path / "out"
    write_mask(tmp_path / "mask.json", SMALL, 6)
    changed = folder / f"model-00001-of-{SMALL.shards:05}.safetensors"
    write_files = Writer.write_files

    def meanwhile(writer: Writer, plans: Iterable[ShardPlan], jobs: int) -> None:
        write_files(writer, plans, jobs)
        content = changed.read_bytes()
        match way:
            case "rewritten":
                changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            case "cut":
                changed.write_bytes(content[:-1])
        os.utime(changed, ns=(7, 7))

    monkeypatch.setattr(Writer, "write_files", meanwhile)
    assert main(argv(tmp_path, out)) == 66
    assert f"has changed while it was read: {changed.name}" in capsys.readouterr().err
    assert not (out / "model.safetensors.index.json").exists()
    assert not (out / "config.json").exists()
    assert main(argv(tmp_path, out, "--resume")) == resumed, "the mixture is not gone on with"
