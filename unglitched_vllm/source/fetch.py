"""Get a pinned file by its package's name, and believe it only by its SHA-256."""

import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from unglitched_vllm.source.errors import SourceError
from unglitched_vllm.source.upstream import Artifact, Upstream, mismatch

FETCH_TIMEOUT_S = 3600.0  # 333 MB over a slow line
# Folders of the source that no build reads, and that are half of its files.
_UNBUILT = [["tests"], ["docs"], ["examples"], ["recipes"], ["benchmarks"], [".buildkite"]]
PLATFORMS = "manylinux_2_28_{0},manylinux_2_31_{0},manylinux_2_34_{0},manylinux_2_35_{0}"


def obtain(
    artifact: Artifact, cache: Path, wheels: Path | None, command: Sequence[str]
) -> tuple[Path, bool]:
    """Return the pinned file, and True if it had to be fetched by ``command``.

    It is looked for in ``cache`` and in ``wheels`` first. Raises SourceError when what was
    fetched is not the pinned file (it is then removed), or a file in ``wheels`` is not.
    """
    cached = cache / artifact.file
    if cached.is_file():
        if not mismatch(artifact, cached):
            return cached, False
        cached.unlink()  # a download that was cut off, or an older pin of the same name
    if wheels is not None and (wheels / artifact.file).is_file():
        return check(artifact, wheels / artifact.file), False
    cache.mkdir(parents=True, exist_ok=True)
    _run([*command, "--download", str(cache)], artifact)
    if not cached.is_file():
        raise SourceError(
            f"the package index gave no {artifact.file}",
            "put it into a folder and name that: WHEELS_DIR=…",
        )
    try:
        return check(artifact, cached), True
    except SourceError:
        cached.unlink()
        raise


def check(artifact: Artifact, path: Path) -> Path:
    """Return ``path`` if it is the pinned file. Raises SourceError if it is not."""
    if not path.is_file():
        raise SourceError(f"there is no {path}", f"name the folder or file of {artifact.file}")
    wrong = mismatch(artifact, path)
    if wrong:
        raise SourceError(
            f"{path} is not the release that UPSTREAM pins: {wrong}",
            "remove it and run again; if it comes back, the package index serves another file",
        )
    return path


def sdist_command(upstream: Upstream) -> list[str]:
    """Return the command that fetches the source."""
    return [*_UNEARTH, "--no-binary", f"{upstream.name}=={upstream.version}"]


def wheel_command(upstream: Upstream, machine: str) -> list[str]:
    """Return the command that fetches the stock wheel for a machine that need not be this one."""
    chosen = ["--only-binary", "--py", "3.12", "--platforms", PLATFORMS.format(machine)]
    return [*_UNEARTH, *chosen, f"{upstream.name}=={upstream.version}"]


# It asks the indexes that pip is set to. pip itself would build the source to learn its metadata.
_UNEARTH = (sys.executable, "-m", "unearth")


def _run(command: Sequence[str], artifact: Artifact) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=FETCH_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as cause:
        raise SourceError(
            f"{artifact.file} did not come within {FETCH_TIMEOUT_S:.0f} s",
            "check the network, or bring the file and name its folder: WHEELS_DIR=…",
        ) from cause
    if "No module named unearth" in done.stderr:
        raise SourceError("unearth is not here, which fetches by name", "pip install unearth")
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["(it said nothing)"]
        raise SourceError(
            f"{artifact.file} was not fetched: {said[0]}",
            "check the network and `pip config list`, or bring the file: WHEELS_DIR=…",
        )


def unpack(sdist: Path, into: Path) -> Path:
    """Unpack what of a source archive is built; return its one folder.

    Members that point elsewhere are refused.
    """
    into.mkdir(parents=True, exist_ok=True)
    with tarfile.open(sdist) as archive:
        built = (member for member in archive if member.name.split("/")[1:2] not in _UNBUILT)
        archive.extractall(into, built, filter="data")
    (tree,) = (path for path in into.iterdir() if path.is_dir())
    return tree
