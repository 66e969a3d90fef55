"""build.sh on the real source, with compilers that make empty files, up to them and beyond.

Everything but PyTorch, nvcc, g++ and vLLM's ten outside sources is real; see stubbed.py. The gate
goes as far as the first compiler, for one box; test-long goes on to the wheel, for both.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engine_source.conftest import CACHE, ROOT, unpack
from tests.engine_source.stubbed import codes, environment, make_sources, planned
from tests.engine_source.test_wheel import contents
from unglitched_vllm.source.upstream import sha256_of

MOE = "csrc/moe/marlin_moe_wna16/sm80_kernel_bfloat16_fe2m1f_bfloat16.cu"  # this model's
REPACK = "csrc/quantization/marlin/gptq_marlin_repack.cu"
EVERY = "csrc/activation_kernels.cu"
# Each box: what a compiler makes of the kernels that our command runs, and of any kernel.
EXPECTED = {
    "thor": {MOE: {"sm_110f"}, REPACK: {"sm_110f"}, EVERY: {"sm_110"}},
    "spark": {MOE: {"sm_120f"}, REPACK: {"sm_80", "compute_80"}, EVERY: {"sm_120"}},
}


@dataclass
class Box:
    """A machine that can compile, and one run on it after another."""

    target: str
    folder: Path
    env: dict[str, str]

    def build(self, **env: str) -> "subprocess.CompletedProcess[str]":
        out, work = self.folder / "out", self.folder / "work"
        words = ("--target", self.target, "--engine", "build", "--out", str(out))
        return subprocess.run(
            [str(ROOT / "unglitched_vllm" / "build.sh"), *words, "--work", str(work)],
            env={**self.env, **env, "WHEELS_DIR": str(CACHE), "TORCH_CUDA_ARCH_LIST": "12.0a"},
            capture_output=True,
            text=True,
            check=False,
            timeout=800,
        )


def make_box(target: str, sdist: Path, folder: Path) -> Box:
    wishes = unpack(sdist, folder / "wishes", "cmake/external_projects")
    sources = make_sources(folder / "sources", wishes / "cmake" / "external_projects")
    return Box(target, folder, environment(sources, folder / "commands"))


def assert_right(target: str, commands: list[str]) -> None:
    expected = EXPECTED[target]
    assert {source: codes(commands, source) for source in expected} == expected
    assert [line for line in commands if "sm_120a" in line or "sm_110a" in line] == []


def test_the_compilers_are_told_a_thor_s_architectures(sdist: Path, tmp_path: Path) -> None:
    box = make_box("thor", sdist, tmp_path)
    done = box.build(STUB_STOPS="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "TORCH_CUDA_ARCH_LIST=12.0a is not used" in done.stderr
    assert "FAILED: " in done.stderr
    assert "run again to go on from here" in done.stderr
    assert (tmp_path / "commands").read_text() != ""
    (ninja,) = (tmp_path / "work").glob("source-thor/*/build/temp*/build.ninja")
    assert_right("thor", planned(ninja.read_text()))


def assert_wheel(box: Box) -> None:
    (wheel,) = (box.folder / "out").glob("*.whl")
    assert wheel.name.startswith("vllm-0.33.0+unglitched.2-")
    facts = json.loads((box.folder / "out" / "ENGINE.json").read_text())
    assert facts["wheel"] == {"file": wheel.name, "sha256": sha256_of(wheel)}
    assert (facts["source"], facts["target"]) == ("build", box.target)
    files = contents(wheel)
    assert "vllm/_moe_C_stable_libtorch.abi3.so" in files
    ours = b"or not self._reasoning_parser.engine_based_streaming"
    assert ours in files["vllm/parser/abstract_parser.py"]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_spark_s_wheel_comes_out_and_says_what_it_is(sdist: Path, tmp_path: Path) -> None:
    box = make_box("spark", sdist, tmp_path)
    done = box.build()
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / "commands").read_text().splitlines()
    assert len(commands) > 100
    assert_right("spark", commands)
    assert_wheel(box)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_build_that_was_stopped_goes_on_and_does_nothing_twice(
    sdist: Path, tmp_path: Path
) -> None:
    box = make_box("thor", sdist, tmp_path)
    assert box.build(STUB_STOPS="1").returncode == 1
    first = (tmp_path / "commands").read_text().splitlines()
    done = box.build()
    assert done.returncode == 0, done.stderr
    assert ", patched\n" in done.stderr  # the tree was found, not made
    compiled = (tmp_path / "commands").read_text().splitlines()[len(first) :]
    assert_wheel(box)
    assert box.build().returncode == 0
    again = (tmp_path / "commands").read_text().splitlines()[len(first) + len(compiled) :]
    assert len(compiled) > 100
    assert_right("thor", compiled)
    assert again == []
