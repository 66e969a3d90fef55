"""The real source of vLLM, fetched once and kept in build/engine, as it comes and patched."""

import fcntl
import os
import shutil
import sysconfig
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from unglitched_vllm.source import fetch, patches
from unglitched_vllm.source.upstream import Upstream, read_upstream

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "engine"


@contextmanager
def locked() -> Iterator[None]:
    """Hold the cache, so that two workers do not fetch the same file."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def upstream() -> Upstream:
    return read_upstream()


@pytest.fixture(scope="session")
def sdist(upstream: Upstream) -> Path:
    """The release's source, 47 MB, by name from the package index."""
    with locked():
        return fetch.obtain(upstream.sdist, CACHE, None, fetch.sdist_command(upstream))[0]


def unpack(sdist: Path, folder: Path, *wanted: str) -> Path:
    """Unpack what of the source lies under ``wanted``; return the tree."""
    with tarfile.open(sdist) as archive:
        top = archive.next()
        assert top is not None
        tree = folder / top.name.split("/")[0]
        chosen = tuple(f"{tree.name}/{place}" for place in wanted)
        members = [m for m in archive if m.name.startswith(chosen)]
        archive.extractall(folder, members, filter="data")
    return tree


@pytest.fixture(scope="session")
def stock_tree(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What of vLLM the patches touch, and its CMake files, as they come."""
    touched = (name for patch in patches.read_series() for name in patch.touches)
    return unpack(sdist, tmp_path_factory.mktemp("stock"), "cmake/", "CMakeLists.txt", *touched)


@pytest.fixture(scope="session")
def patched_tree(stock_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with every patch in."""
    return patched_copy(stock_tree, tmp_path_factory.mktemp("patched"))


def patched_copy(stock: Path, folder: Path) -> Path:
    """Return a copy of the tree, in ``folder``, with every patch in."""
    tree = folder / stock.name
    shutil.copytree(stock, tree, copy_function=os.link)  # patch writes a new file
    patches.apply(patches.read_series(), tree)
    return tree


@pytest.fixture(scope="session")
def cmake() -> str:
    """CMake: the one beside this Python, else the machine's."""
    beside = Path(sysconfig.get_path("scripts")) / "cmake"
    found = str(beside) if beside.is_file() else shutil.which("cmake")
    assert found is not None, "CMake is not here: pip install cmake"
    return found
