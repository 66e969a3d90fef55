"""A machine that can compile vLLM, in make-believe: PyTorch, nvcc, g++ 13, and vLLM's sources.

Real are build.sh, pip, setuptools, CMake, ninja and vLLM's own build files. The compilers make
empty files and keep their command lines, so what a real one would be told can be read.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

STUBS = Path(__file__).with_name("stubs")

# Where vLLM's CMake looks for each source, and the file that says what it wants in there.
SOURCES = {
    "VLLM_CUTLASS_SRC_DIR": "",
    "TRITON_KERNELS_SRC_DIR": "triton_kernels",
    "DEEPGEMM_SRC_DIR": "deepgemm",
    "DEEPSELECT_SRC_DIR": "deepselect",
    "FMHA_SM100_SRC_DIR": "fmha_sm100",
    "FLASH_MLA_SRC_DIR": "flashmla",
    "FLASH_KDA_SRC_DIR": "flashkda",
    "QUTLASS_SRC_DIR": "qutlass",
    "TML_FA4_SRC_DIR": "tml_fa4",
    "VLLM_FLASH_ATTN_SRC_DIR": "vllm_flash_attn",
}
_WANTED = re.compile(r"\$\{(?:\w[\w-]*_SOURCE_DIR|FMHA_SM100_PY_ROOT)\}/([\w./-]+)")
_DEEPGEMM = "open('deep_gemm/_C_extension.abi3.so', 'w').close()\n"
_FLASH_ATTENTION = "add_custom_target(_vllm_fa2_C)\nadd_custom_target(_vllm_fa3_C)\n"


def make_sources(folder: Path, wishes: Path) -> dict[str, str]:
    """Make the ten sources, empty, each with the files that vLLM's CMake names; return the env."""
    env = {}
    for variable, name in SOURCES.items():
        source = folder / variable
        _touch(source / "README")
        text = (wishes / f"{name}.cmake").read_text(encoding="utf-8") if name else ""
        root = source / "python" / "fmha_sm100" if name == "fmha_sm100" else source
        for place in sorted(set(_WANTED.findall(text))):
            _touch(root / place if Path(place).suffix else root / place / "README")
        env[variable] = str(source)
    (folder / "VLLM_FLASH_ATTN_SRC_DIR" / "CMakeLists.txt").write_text(_FLASH_ATTENTION)
    (folder / "DEEPGEMM_SRC_DIR" / "setup.py").write_text(_DEEPGEMM)
    return env


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def environment(sources: dict[str, str], log: Path) -> dict[str, str]:
    """Return the environment of such a machine; each compiler's command line goes to ``log``."""
    keep = {k: v for k, v in os.environ.items() if k in {"HOME", "LANG"} or k.startswith("PIP_")}
    return {
        **keep,
        **sources,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "PYTHONPATH": ":".join(filter(None, (str(STUBS), os.environ.get("PYTHONPATH")))),
        "CUDA_HOME": str(STUBS / "cuda"),
        "CXX": str(STUBS / "bin" / "g++"),
        "CMAKE_ARGS": f"-DCMAKE_TOOLCHAIN_FILE={STUBS / 'toolchain.cmake'}",
        "STUB_LOG": str(log),
        "MAX_JOBS": "2",
    }


def planned(build_ninja: str) -> list[str]:
    """Return what ninja would tell the compilers: a line for each source, of its name and flags."""
    rule = re.compile(r"(?m)^build \S+: \S+ (\S+).*\n(?:  .*\n)*?  FLAGS = (.*)$")
    return [f"{source} {flags}" for source, flags in rule.findall(build_ninja)]


def codes(commands: Iterable[str], source: str) -> set[str]:
    """Return what the compilers were told to make of the sources whose name ends in ``source``.

    ``sm_110f`` is code for that chip's family, ``compute_80`` is PTX.
    """
    found = set()
    for command in commands:
        words = shlex.split(command)
        if any(word.endswith(source) for word in words):
            found |= {m[1] for word in words if (m := re.search(r",code=(\w+)$", word))}
    return found
