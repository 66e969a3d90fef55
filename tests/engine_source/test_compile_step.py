"""build.sh from the real source to a wheel, with compilers that make empty files.

Everything but PyTorch, nvcc, g++ and vLLM's ten outside sources is real; see stubbed.py.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engine_source.conftest import CACHE, ROOT, unpack
from tests.engine_source.stubbed import codes, environment, make_sources
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
class Built:
    target: str
    commands: list[str]
    out: Path
    said: str


# One box in the gate, the other in test-long: 35 s of processor time each.
@pytest.fixture(scope="module", params=["thor", pytest.param("spark", marks=pytest.mark.long)])
def built(
    request: pytest.FixtureRequest, sdist: Path, tmp_path_factory: pytest.TempPathFactory
) -> Built:
    folder = tmp_path_factory.mktemp("compile")
    wishes = unpack(sdist, folder / "wishes", "cmake/external_projects")
    sources = make_sources(folder / "sources", wishes / "cmake" / "external_projects")
    env = environment(sources, folder / "commands")
    words = ("--target", request.param, "--engine", "build", "--out", str(folder / "out"))
    done = subprocess.run(
        [str(ROOT / "unglitched_vllm" / "build.sh"), *words, "--work", str(folder / "work")],
        env={**env, "WHEELS_DIR": str(CACHE), "TORCH_CUDA_ARCH_LIST": "12.0a"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    commands = (folder / "commands").read_text().splitlines()
    return Built(request.param, commands, folder / "out", done.stderr)


def test_the_compilers_are_told_the_box_s_architectures(built: Built) -> None:
    expected = EXPECTED[built.target]
    assert {source: codes(built.commands, source) for source in expected} == expected


def test_no_compiler_is_told_of_one_chip_of_a_family(built: Built) -> None:
    assert len(built.commands) > 100
    assert [line for line in built.commands if "sm_120a" in line or "sm_110a" in line] == []
    assert "TORCH_CUDA_ARCH_LIST=12.0a is not used" in built.said


def test_a_wheel_comes_out_that_says_what_it_is(built: Built) -> None:
    facts = json.loads((built.out / "ENGINE.json").read_text())
    (wheel,) = built.out.glob("*.whl")
    assert wheel.name.startswith("vllm-0.33.0+unglitched.2-")
    assert facts["wheel"] == {"file": wheel.name, "sha256": sha256_of(wheel)}
    assert (facts["source"], facts["target"]) == ("build", built.target)
    files = contents(wheel)
    assert "vllm/_moe_C_stable_libtorch.abi3.so" in files
    assert (
        b"or not self._reasoning_parser.engine_based_streaming"
        in files["vllm/parser/abstract_parser.py"]
    )
