"""What a pull remembers in its folder: from which commit, and which files it has verified."""

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from appliance.checkpoint.hub import HubFile

SHA256_LETTERS = 64  # git's own hash has 40
RECORD = ".pulled.json"  # hidden: no file of the checkpoint


@dataclass(frozen=True)
class Kept:
    """One verified file: its hash as the hub names it, and what tells that nobody changed it."""

    size: int
    hash: str
    changed_ns: int


class PullRecord:
    """The record of one folder. Each change of it is on the disk when the method returns."""

    def __init__(
        self, folder: Path, asked: str, commit: str, kept: dict[str, Kept], *, whole: bool
    ):
        self.folder = folder
        self.asked = asked  # hf://owner/name@revision, as it was typed
        self.commit = commit
        self.is_whole = whole
        self._kept = kept
        self._lock = threading.Lock()

    @classmethod
    def read(cls, folder: Path) -> "PullRecord | None":
        """Return the record of ``folder``; None where there is none, or none that is understood."""
        try:
            content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            kept = {name: Kept(**entry) for name, entry in content["files"].items()}
            return cls(folder, content["asked"], content["commit"], kept, whole=content["whole"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def has(self, name: str, hash_: str) -> bool:
        """Tell whether a file is there, verified, with this hash, and unchanged since."""
        kept = self._kept.get(name)
        if kept is None or kept.hash != hash_:
            return False
        try:
            status = (self.folder / name).lstat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (kept.size, kept.changed_ns)

    def add(self, name: str, hash_: str) -> None:
        """Remember a file that was verified just now."""
        status = (self.folder / name).lstat()
        with self._lock:
            self._kept[name] = Kept(status.st_size, hash_, status.st_mtime_ns)
            self._write()

    def files(self) -> Iterator[HubFile]:
        """Yield every verified file, as the hub listed it."""
        for name, kept in self._kept.items():
            is_sha256 = len(kept.hash) == SHA256_LETTERS
            yield HubFile(
                name, kept.size, kept.hash if is_sha256 else "", "" if is_sha256 else kept.hash
            )

    def begin(self) -> None:
        """Say that the folder is not whole, whatever it looks like."""
        self.is_whole = False
        self._write()

    def finish(self) -> None:
        """Say that all is there."""
        self.is_whole = True
        self._write()

    def _write(self) -> None:
        content: dict[str, Any] = {
            "asked": self.asked,
            "commit": self.commit,
            "whole": self.is_whole,
            "files": {name: asdict(kept) for name, kept in sorted(self._kept.items())},
        }
        path = self.folder / f"{RECORD}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, 0o644), "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path, self.folder / RECORD)
