"""build.sh as it is typed: its help, its refusals, and the ways to an engine."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.demo.envdir import SHIM_VERSION
from appliance.enginefacts import read_engine_facts
from tests.engine_source.conftest import CACHE, ROOT
from tests.engine_source.test_wheel import contents
from tests.engine_source.test_wheel import make as make_wheel
from unglitched_vllm.source import patches, steps
from unglitched_vllm.source.errors import SourceError
from unglitched_vllm.source.preflight import SOURCES
from unglitched_vllm.source.targets import TARGETS
from unglitched_vllm.source.upstream import Artifact, Upstream, sha256_of

BUILD = ROOT / "unglitched_vllm" / "build.sh"


def build(*words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(BUILD), *words],
        env={**os.environ, "PYTHON": sys.executable, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_the_help_teaches() -> None:
    done = build("--help")
    assert done.returncode == 0
    for word in ("--engine wheel", "--engine build", "WHEELS_DIR", "MAX_JOBS", "examples:"):
        assert word in done.stdout


@pytest.mark.parametrize("words", [(), ("--target", "orin"), ("--target", "thor", "--engine", "x")])
def test_a_wrong_word_is_a_usage_error(words: tuple[str, ...]) -> None:
    done = build(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage:" in done.stderr


def test_an_old_python_is_said_with_the_line_to_type(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = build("--target", "spark", PYTHON=str(old))
    assert done.returncode == 1
    assert "-> PYTHON=python3.12" in done.stderr


@pytest.mark.parametrize(("name", "arch"), [("spark", "12.1"), ("thor", "11.0")])
def test_a_dry_run_says_what_would_be_done(name: str, arch: str) -> None:
    done = build("--target", name, "--engine", "build", "--dry-run")
    assert f"TORCH_CUDA_ARCH_LIST={arch}\n" in done.stdout
    assert all(patch.name in done.stdout for patch in patches.read_series())
    stock = build("--target", name, "--dry-run").stdout
    assert "0001-" in stock
    assert "0002-" not in stock


def test_fetch_only_verifies_the_source(sdist: Path) -> None:
    words = ("--target", "thor", "--engine", "build", "--fetch-only", "--work", str(CACHE))
    done = build(*words)
    assert (done.returncode, done.stdout) == (0, f"{sdist}\n")
    assert "(sha256 as pinned)" in done.stderr


def test_a_forged_source_is_refused_before_anything_is_unpacked(
    tmp_path: Path, upstream: Upstream
) -> None:
    (tmp_path / upstream.sdist.file).write_bytes(b"forged")
    words = ("--target", "thor", "--engine", "build", "--fetch-only", "--work")
    done = build(*words, str(tmp_path / "work"), WHEELS_DIR=str(tmp_path))
    assert done.returncode == 1
    assert "is not the release that UPSTREAM pins: it has 6 bytes" in done.stderr
    assert not (tmp_path / "work").exists()


def test_a_machine_that_cannot_compile_says_why_and_fetches_nothing(tmp_path: Path) -> None:
    words = ("--target", "thor", "--engine", "build", "--work", str(tmp_path / "work"))
    done = build(*words, PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin", CUDA_HOME="/none")
    assert done.returncode == 1
    assert "this machine cannot compile vLLM" in done.stderr
    assert "cuda 13.0 is not here" in done.stderr
    assert not (tmp_path / "work").exists()


def test_the_demo_s_engine_is_told_too(tmp_path: Path) -> None:
    done = build("--target", "spark", "--engine", "cpu", "--out", str(tmp_path))
    facts = read_engine_facts(Path(done.stdout.strip()))
    assert (facts.source, facts.vllm, facts.patches) == ("cpu", SHIM_VERSION.split("+")[0], ())


def test_the_readme_names_every_local_source() -> None:
    text = (ROOT / "unglitched_vllm" / "README.md").read_text()
    assert [name for name in SOURCES if name not in text] == []


# -- the steps, on a small release of our own ------------------------------------------------------


def job(tmp_path: Path, series: tuple[patches.Patch, ...]) -> tuple[steps.Job, list[str]]:
    """Return a job over a made-up wheel that was brought by hand, and what it says."""
    wheel = make_wheel(tmp_path / "brought")
    pin = Artifact(wheel.name, wheel.stat().st_size, sha256_of(wheel))
    said: list[str] = []
    upstream = Upstream("vllm", "9.9.0", 1793606822, pin, {"aarch64": pin}, {})
    where = (tmp_path / "work", tmp_path / "out", wheel.parent)
    return steps.Job(upstream, series, TARGETS["spark"], *where, {}, said.append), said


def written(tmp_path: Path, *names: str) -> tuple[patches.Patch, ...]:
    folder = tmp_path / "patches"
    folder.mkdir()
    head = "T\n\n" + "".join(f"{heading}:\n  x\n" for heading in patches.HEADINGS)
    diffs = {
        "vllm/a.py": '@@ -3 +3 @@\n-WORD = "theirs"\n+WORD = "ours"\n',
        "CMakeLists.txt": "@@ -1 +1 @@\n-a\n+b\n",
    }
    for number, name in enumerate(names, 1):
        text = f"{head}---\n--- a/{name}\n+++ b/{name}\n{diffs[name]}"
        (folder / f"{number:04}-x.patch").write_text(text)
    return patches.read_series(folder)


def test_a_wheel_gets_the_python_patches_and_says_which_are_left_out(tmp_path: Path) -> None:
    work, said = job(tmp_path, written(tmp_path, "vllm/a.py", "CMakeLists.txt"))
    made = steps.engine_from_wheel(work)
    assert b'WORD = "ours"' in contents(made)["vllm/a.py"]
    assert "left out, it needs --engine build: 0002-x" in said
    facts = json.loads((tmp_path / "out" / "ENGINE.json").read_text())
    assert facts["patches"] == ["0001-x"]
    assert facts["wheel"] == {"file": made.name, "sha256": sha256_of(made)}


def test_without_a_python_patch_the_stock_wheel_stays_as_it_is(tmp_path: Path) -> None:
    work, _ = job(tmp_path, written(tmp_path, "CMakeLists.txt"))
    made = steps.engine_from_wheel(work)
    assert sha256_of(made) == work.upstream.wheels["aarch64"].sha256
    assert json.loads((tmp_path / "out" / "ENGINE.json").read_text())["patches"] == []


def test_a_box_without_a_stock_wheel_is_told_to_build(tmp_path: Path) -> None:
    work, _ = job(tmp_path, ())
    bare = Upstream("vllm", "9.9.0", 1, work.upstream.sdist, {}, {})
    with pytest.raises(SourceError, match="pins no wheel for aarch64"):
        steps.engine_from_wheel(steps.Job(bare, *list(vars(work).values())[1:]))


def test_the_tree_is_made_anew_only_when_release_or_patches_changed(
    tmp_path: Path, sdist: Path, upstream: Upstream
) -> None:
    small = _small_sdist(tmp_path)
    pin = Artifact(small.name, small.stat().st_size, sha256_of(small))
    mine = Upstream("vllm", "9.9.0", 1, pin, {}, {})
    where = (tmp_path / "work", tmp_path / "out", tmp_path)
    one = steps.Job(mine, (), TARGETS["thor"], *where, {}, lambda _: None)
    tree = steps.patched_tree(one)
    (tree / "object.o").touch()
    assert (steps.patched_tree(one) / "object.o").exists()
    two = steps.Job(mine, written(tmp_path, "vllm/a.py"), *list(vars(one).values())[2:])
    tree = steps.patched_tree(two)
    assert not (tree / "object.o").exists()
    assert "ours" in (tree / "vllm" / "a.py").read_text()


def test_a_tree_that_was_cut_off_is_made_anew(tmp_path: Path) -> None:
    small = _small_sdist(tmp_path)
    pin = Artifact(small.name, small.stat().st_size, sha256_of(small))
    mine = Upstream("vllm", "9.9.0", 1, pin, {}, {})
    where = (tmp_path / "work", tmp_path / "out", tmp_path)
    work = steps.Job(mine, (), TARGETS["thor"], *where, {}, lambda _: None)
    half = tmp_path / "work" / "source-thor" / "vllm-9.9.0"
    half.mkdir(parents=True)
    assert (steps.patched_tree(work) / "vllm" / "a.py").is_file()


def _small_sdist(tmp_path: Path) -> Path:
    tree = tmp_path / "small" / "vllm-9.9.0"
    (tree / "vllm").mkdir(parents=True)
    (tree / "vllm" / "a.py").write_text('1\n\nWORD = "theirs"\n')
    name = shutil.make_archive(str(tmp_path / "vllm-9.9.0"), "gztar", tmp_path / "small")
    return Path(name)


@pytest.mark.parametrize(
    "line", ["  CMake Error at x.cmake:3 (message):", "FAILED: a.o", 'a.cu(3): error: no "x"']
)
def test_what_failed_is_found_before_pip_s_own_hundred_lines(line: str) -> None:
    log = ["copying error_response.py"] * 50 + [line, "its reason"] + ["  note: pip"] * 100
    told = steps.telling(log)
    assert told[:2] == [line.strip(), "its reason"]
    assert len(told) == steps.TELLING_LINES


def test_a_log_that_says_nothing_shows_its_end() -> None:
    assert steps.telling([str(n) for n in range(50)])[-1] == "49"
