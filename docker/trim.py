"""Takes out of the demo's engine what no serving CPU needs: half of its size.

Kept on purpose: the compiled .pyc files (without them a start takes twice as long), all variants
of vLLM's kernels (the CPU chooses one at run time), and libraries under ``*.libs`` (auditwheel
changed them in a way that strip breaks).
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

STRIP_FROM_BYTES: Final = 8 * 2**20  # below it there is nothing to gain
ELF: Final = b"\x7fELF"

# Folders and files below site-packages, as glob patterns. Torch's headers are for compiling.
UNUSED: Final = (
    "pip",
    "pip-*.dist-info",
    "torch/include",
    "torch/test",
    "torch/bin/protoc*",
    "torch/bin/test_*",
    "torch/share",
    "torch/utils/benchmark",
    "torch/lib/*.a",
    "mistral_common/data",
    "pycountry/locales",
    "**/tests",
    "**/*.pyi",
)
# Beside them: pip, man pages, headers, and the libraries by which OpenMP reaches Intel GPUs.
UNUSED_BESIDE: Final = (
    "bin/pip*",
    "include",
    "share",
    "opt",
    "lib/pkgconfig",
    "lib/*.a",
    "lib/*.dbg",
    "lib/libomptarget*",
    "lib/libsycl*",
    "lib/libur_*",
    "lib/libpi_*",
    "lib/libarcher*",
    "lib/libiomp5_db.so",
    "lib/libiompstubs5.so",
)


def unused(environment: Path, packages: Path) -> Iterator[Path]:
    """Yield what can go, outermost first."""
    for name in UNUSED_BESIDE:
        yield from sorted(environment.glob(name))
    for pattern in UNUSED:
        yield from sorted(packages.glob(pattern))


def libraries(packages: Path) -> Iterator[Path]:
    """Yield the large shared libraries that strip may change."""
    for path in sorted(packages.rglob("*.so*")):
        changed_before = any(part.endswith(".libs") for part in path.parts)
        if path.is_symlink() or changed_before or path.stat().st_size < STRIP_FROM_BYTES:
            continue
        with path.open("rb") as library:
            if library.read(4) == ELF:
                yield path


def size_mb(folder: Path) -> int:
    """Return what a folder's files take, in MB."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) // 10**6


def main(arguments: list[str]) -> int:
    """Trim the environment that is named; say what it was and is."""
    environment = Path(arguments[0])
    packages = next(environment.glob("lib/python3.*/site-packages"))
    before_mb = size_mb(environment)
    for path in unused(environment, packages):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in libraries(packages):
        subprocess.run(["strip", "--strip-unneeded", str(path)], check=True)
    print(f"trim: {before_mb} MB, now {size_mb(environment)} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
