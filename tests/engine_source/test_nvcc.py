"""A real nvcc 13.0, from the package index: does it make code for both boxes?"""

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.test_parser_in_engine import ENGINE_PYTHON
from tests.engine_source.conftest import CACHE, locked, unpack

PACKAGES = ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-runtime")
MARLIN = "sm80_kernel_bfloat16_fe2m1f_bfloat16.cu"  # bf16 times NVFP4: this model's experts
PROBE = "__global__ void probe(float* x) { x[threadIdx.x] *= 2; }\n"
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def nvcc() -> Path:
    """NVIDIA's compiler of CUDA 13.0, 270 MB, kept in build/engine."""
    with locked():
        folder = CACHE / "nvcc-13.0"
        program = folder / "nvidia" / "cu13" / "bin" / "nvcc"
        if not program.is_file():
            wanted = [f"{name}==13.0.*" for name in (*PACKAGES, "nvidia-cuda-cccl")]
            pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder)]
            subprocess.run([*pip, *wanted], check=True, timeout=600)
            for tool in (*program.parent.iterdir(), *(folder / "nvidia/cu13/nvvm/bin").iterdir()):
                tool.chmod(0o755)
        return program


def compile_for(nvcc: Path, source: Path, chip: str, *words: str) -> int:
    """Compile for one chip; return the chip that the code says it is for, 121 for sm_121."""
    made = source.with_suffix(f".{chip}.cubin")
    gencode = f"-gencode=arch=compute_{chip},code=sm_{chip}"
    done = subprocess.run(
        [str(nvcc), "-cubin", gencode, *words, "-o", str(made), str(source)],
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr
    elf = made.read_bytes()
    assert elf[:5] == b"\x7fELF\x02"
    (machine,) = struct.unpack_from("<H", elf, 18)
    (flags,) = struct.unpack_from("<I", elf, 48)
    assert machine == 190  # EM_CUDA
    return int(flags >> 8 & 0xFF)


@pytest.mark.parametrize(
    ("chip", "means"), [("110", 110), ("110f", 110), ("120f", 120), ("121", 121)]
)
def test_a_probe_is_made_for_the_chip(nvcc: Path, tmp_path: Path, chip: str, means: int) -> None:
    source = tmp_path / "probe.cu"
    source.write_text(PROBE)
    assert compile_for(nvcc, source, chip) == means


@pytest.mark.parametrize(("arch", "chip", "means"), [("11.0", "110f", 110), ("12.0", "120f", 120)])
def test_this_model_s_marlin_compiles_natively(
    nvcc: Path, sdist: Path, tmp_path: Path, arch: str, chip: str, means: int
) -> None:
    headers = list(ENGINE_PYTHON.parents[1].glob("lib/python*/site-packages/torch/include"))
    if not headers:
        pytest.skip("PyTorch's headers come with the demo's engine: make setup")
    tree = unpack(sdist, tmp_path, "csrc/quantization/marlin", "csrc/moe/marlin", "csrc/core")
    folder = tree / "csrc" / "moe" / "marlin_moe_wna16"
    maker = tree / "csrc" / "quantization" / "marlin" / "generate_kernels.py"
    subprocess.run([sys.executable, str(maker), arch, str(folder)], check=True, timeout=60)
    whole = (folder / MARLIN).read_text()
    one = whole[: whole.index("MARLIN_KERNEL_PARAMS );")] + "MARLIN_KERNEL_PARAMS );\n}\n"
    source = folder / f"one_{chip}.cu"  # one of fifteen instances: 8 s in place of a minute
    source.write_text(one)
    words = ("-std=c++20", "-O2", "--expt-relaxed-constexpr", f"-I{tree / 'csrc'}")
    assert compile_for(nvcc, source, chip, *words, f"-I{headers[0]}") == means
