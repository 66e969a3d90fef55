"""vLLM's Python sources of a version, out of its wheel; its kernels are not needed."""

import subprocess
import sys
import zipfile
from pathlib import Path


def vllm_sources(version: str, folder: Path) -> Path:
    """Download vLLM's wheel by name; return the folder that holds its Python files."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    platform = ["--platform", "manylinux_2_28_x86_64"]
    subprocess.run(
        [*pip, *platform, "-d", str(folder), f"vllm=={version}"], check=True, timeout=600
    )
    (wheel,) = folder.glob("vllm-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith((".py", ".json"))]
        archive.extractall(folder / version, members=names)
    wheel.unlink()
    return folder / version
