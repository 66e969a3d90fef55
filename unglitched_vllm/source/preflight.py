"""Before an hour of compiling: is everything here that it needs? Every gap is said at once."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from unglitched_vllm.source.errors import SourceError

# What vLLM's CMake fetches by git unless a local folder is named.
SOURCES = (
    *("VLLM_CUTLASS_SRC_DIR", "TRITON_KERNELS_SRC_DIR", "DEEPGEMM_SRC_DIR", "DEEPSELECT_SRC_DIR"),
    *("FMHA_SM100_SRC_DIR", "FLASH_MLA_SRC_DIR", "FLASH_KDA_SRC_DIR", "QUTLASS_SRC_DIR"),
    *("TML_FA4_SRC_DIR", "VLLM_FLASH_ATTN_SRC_DIR"),
)
_ASK_TIMEOUT_S = 120.0  # importing torch reads gigabytes from a cold disk

# Answers a command's output, or None where there is no such command.
Ask = Callable[[Sequence[str]], str | None]


def ask(command: Sequence[str]) -> str | None:
    """Run a command and return what it printed, or None if it is not here or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_ASK_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def check(needs: Mapping[str, str], env: Mapping[str, str], asking: Ask = ask) -> None:
    """Raise SourceError with every gap, if there is one."""
    gaps = list(find_gaps(needs, env, asking))
    if gaps:
        raise SourceError(
            "this machine cannot compile vLLM:\n" + "\n".join(f"  - {gap}" for gap in gaps),
            "take NVIDIA's PyTorch image of this release, or --engine wheel (nothing to compile)",
        )


def find_gaps(needs: Mapping[str, str], env: Mapping[str, str], asking: Ask) -> list[str]:
    """Return what is missing or too old, one line each with what to type."""
    torch = "import torch; print(torch.__version__)"
    rows = (
        ("torch", (sys.executable, "-c", torch), rf"^({_NUMBER})", "exactly"),
        ("cuda", (_nvcc(env), "--version"), rf"release ({_NUMBER})", "from"),
        ("gcc", (env.get("CXX", "g++"), "-dumpfullversion"), rf"^({_NUMBER})", "from"),
        ("cmake", ("cmake", "--version"), rf"version ({_NUMBER})", "from"),
    )
    gaps = []
    for name, command, pattern, how in rows:
        found = re.search(pattern, asking(command) or "")
        have, want = found[1] if found else "", needs[name]
        if not have:
            gaps.append(f"{name} {want} is not here: {_HINTS[name].format(want)}")
        elif not _fits(have, want, exactly=how == "exactly"):
            gaps.append(f"{name} is {have}, {how} {want} is needed: {_HINTS[name].format(want)}")
    gaps += _modules(asking)
    if (
        any(name not in env for name in SOURCES)
        and shutil.which("git", path=env.get("PATH")) is None
    ):
        gaps.append(
            "git is not here, and vLLM fetches CUTLASS and others by it: apt-get install git"
        )
    return gaps


def _modules(asking: Ask) -> list[str]:
    wanted = ("setuptools_scm", "setuptools_rust", "jinja2", "wheel", "ninja")
    absent = [m for m in wanted if asking((sys.executable, "-c", f"import {m}")) is None]
    names = " ".join(m.replace("_", "-") for m in absent)
    return [f"Python lacks {', '.join(absent)}: pip install {names}"] if absent else []


def _nvcc(env: Mapping[str, str]) -> str:
    home = env.get("CUDA_HOME", "")
    return f"{home}/bin/nvcc" if home else "nvcc"


def _fits(have: str, want: str, *, exactly: bool) -> bool:
    found, wanted = (tuple(map(int, version.split("."))) for version in (have, want))
    return found == wanted if exactly else found >= wanted


_NUMBER = r"\d+(?:\.\d+)*"
_HINTS = {
    "torch": "pip install torch=={0}",
    "cuda": "install the CUDA toolkit, and set CUDA_HOME",
    "gcc": "apt-get install g++-{0}, then CXX=g++-{0}",
    "cmake": "pip install 'cmake>={0}'",
}
