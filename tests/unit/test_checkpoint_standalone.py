"""The command needs a clone or one file, and the standard library: no installation, no package."""

import subprocess
import sys
from pathlib import Path

import pytest

from extras.zipapps import main, needed
from tests.checkpointbox import SMALL, build, write_mask
from tests.engines import ROOT

NAME = "delete_experts.pyz"


def run(argv: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run with nothing but the standard library to import, and nothing of ours in the way."""
    # -I ignores PYTHONPATH and the folder it runs in, -S all that is installed
    return subprocess.run(
        [sys.executable, "-I", "-S", *argv], cwd=cwd, env={"PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def zipapp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    assert main([str(folder)]) == 0
    return folder / NAME


def test_a_clone_is_enough(tmp_path: Path) -> None:
    done = run([str(ROOT / "extras" / "delete_experts.py"), "--help"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "exit codes:" in done.stdout


def test_one_file_prunes_and_verifies_outside_the_clone(tmp_path: Path, zipapp: Path) -> None:
    source = build(tmp_path / "source", SMALL)
    mask = write_mask(tmp_path / "mask.json", SMALL, 6)
    argv = [str(zipapp), str(source), "out", "--deleted-experts-file", str(mask), "--verify"]
    done = run(argv, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "all as in the source" in done.stdout


def test_the_one_file_finds_exact_masks_without_numpy(tmp_path: Path, zipapp: Path) -> None:
    source, reference = build(tmp_path / "source", SMALL), tmp_path / "reference"
    mask = write_mask(tmp_path / "mask.json", SMALL, 6)
    run([str(zipapp), str(source), str(reference), "--deleted-experts-file", str(mask)], tmp_path)
    done = run([str(zipapp), str(source), "out", "--compare-with", str(reference)], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("identical") == 3


def test_the_same_sources_give_the_same_file(tmp_path: Path, zipapp: Path) -> None:
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / NAME).read_bytes() == zipapp.read_bytes()


def test_the_one_file_holds_what_is_imported_and_no_server() -> None:
    files = needed("appliance.checkpoint.command")
    assert {"appliance/__init__.py", "appliance/errors.py", "appliance/checkpoint/plan.py"} <= files
    assert not files & {"appliance/settings.py", "appliance/app.py", "appliance/cli.py"}


def test_every_module_of_the_package_imports_with_the_standard_library_alone() -> None:
    package = sorted((ROOT / "appliance" / "checkpoint").glob("*.py"))
    names = [f"appliance.checkpoint.{path.stem}" for path in package if path.stem != "__init__"]
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {', '.join(names)}"
    done = run(["-c", script], ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wrong_call_of_the_packer_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
