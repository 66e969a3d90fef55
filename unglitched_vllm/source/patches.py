"""Our changes to vLLM: the series in ../patches, read, and applied with no fuzz."""

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unglitched_vllm.source.errors import SourceError
from unglitched_vllm.source.upstream import HERE, sha256_of

PATCHES = HERE / "patches"
HEADINGS = ("Why", "Reached by", "Upstream", "Drop when")
_NAME = re.compile(r"\d{4}-[a-z0-9-]+\.patch")


@dataclass(frozen=True)
class Patch:
    """One change. ``touches`` are the files of vLLM's tree that it edits."""

    path: Path
    title: str
    head: dict[str, str]
    touches: tuple[str, ...]
    sha256: str

    @property
    def name(self) -> str:
        """Its name in ENGINE.json and in messages: the file's, without ``.patch``."""
        return self.path.stem

    @property
    def is_python(self) -> bool:
        """True if a wheel holds all that it edits, so that nothing need be compiled."""
        return all(file.startswith("vllm/") and file.endswith(".py") for file in self.touches)


def read_series(folder: Path = PATCHES) -> tuple[Patch, ...]:
    """Return the patches in their order. Raises SourceError for one without a whole head."""
    patches = tuple(_read(path) for path in sorted(folder.glob("*.patch")))
    numbers = [patch.name[:4] for patch in patches]
    if numbers != [f"{at:04}" for at in range(1, len(patches) + 1)]:
        raise SourceError(f"{folder} numbers its patches {numbers}", "number them from 0001 on")
    return patches


def _read(path: Path) -> Patch:
    text = path.read_text(encoding="utf-8")
    head, _, diff = text.partition("\n---\n")
    title, *sections = re.split(r"(?m)^([A-Z][a-z ]+):$", head)
    named = dict(zip(sections[::2], map(str.strip, sections[1::2]), strict=True))
    lacking = [heading for heading in HEADINGS if not named.get(heading)]
    touches = tuple(dict.fromkeys(re.findall(r"(?m)^\+\+\+ b/(\S+)$", diff)))
    if lacking or not touches or not _NAME.fullmatch(path.name):
        raise SourceError(
            f"{path.name} is no patch of ours: it lacks {', '.join(lacking) or 'a change'}",
            f"head it {', '.join(HEADINGS)}, each on a line of its own and with a colon",
        )
    return Patch(path, title.strip(), named, touches, sha256_of(path))


def apply(patches: Iterable[Patch], tree: Path) -> None:
    """Apply each to vLLM's tree, as it stands and with no fuzz.

    Raises SourceError on the first that does not fit. The tree is then half patched: throw it
    away.
    """
    for patch in patches:
        command = ("patch", "-p1", "--fuzz=0", "--no-backup-if-mismatch", "--batch", "--forward")
        done = _run((*command, f"--input={patch.path}"), tree)
        if done.returncode != 0:
            raise SourceError(
                f"{patch.name} does not apply to {tree.name}:\n  | "
                + "\n  | ".join((done.stdout + done.stderr).strip().splitlines()),
                f"make it anew for this release, or drop it: {patch.path}",
            )


def _run(command: Sequence[str], tree: Path) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command, cwd=tree, capture_output=True, text=True, check=False, timeout=60
        )
    except FileNotFoundError as cause:
        raise SourceError("the program patch is not here", "apt-get install patch") from cause
