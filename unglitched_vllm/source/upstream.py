"""The pin of vLLM's release, read from the file UPSTREAM."""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unglitched_vllm.source.errors import SourceError

HERE = Path(__file__).resolve().parents[1]
UPSTREAM = HERE / "UPSTREAM"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Artifact:
    """One file of a release: its name, its size in bytes, its content."""

    file: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Upstream:
    """A release of vLLM. ``wheels`` maps a machine (``aarch64``) to its stock wheel."""

    name: str
    version: str
    epoch: int  # seconds since 1970; dates everything that we write
    sdist: Artifact
    wheels: Mapping[str, Artifact]
    needs: Mapping[str, str]


def read_upstream(path: Path = UPSTREAM) -> Upstream:
    """Return the pin. Raises SourceError for a file that is not whole."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        return Upstream(
            name=raw["name"],
            version=raw["version"],
            epoch=int(raw["epoch"]),
            sdist=_artifact(raw["sdist"]),
            wheels={machine: _artifact(row) for machine, row in raw["wheel"].items()},
            needs=dict(raw["needs"]),
        )
    except (OSError, KeyError, TypeError, ValueError) as cause:
        raise SourceError(
            f"{path} is no whole pin: {cause!r}", "take it from a whole checkout"
        ) from cause


def _artifact(row: Mapping[str, Any]) -> Artifact:
    return Artifact(str(row["file"]), int(row["size"]), str(row["sha256"]))


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def mismatch(artifact: Artifact, path: Path) -> str:
    """Return how a file differs from its pin, in words; "" when it is the pinned one."""
    size = path.stat().st_size
    if size != artifact.size:
        return f"it has {size} bytes, UPSTREAM says {artifact.size}"
    found = sha256_of(path)
    return "" if found == artifact.sha256 else f"its sha256 is {found}, not {artifact.sha256}"
