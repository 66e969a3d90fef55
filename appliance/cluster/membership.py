"""What each node keeps of the other: files of 0600 in the state folder.

The worker keeps no key, but the key's digest; and the last order's serial, so that an old order
stays old over a restart.
"""

import hashlib
import hmac
from pathlib import Path
from typing import TypeVar

import msgspec

from appliance.cluster.wire import Hex32, Name, Serial
from appliance.errors import HostError
from appliance.statefile import write_private

FOLDER = "cluster"
_LIMIT = 2**16

T = TypeVar("T")


class HeadKept(msgspec.Struct, frozen=True):
    """A worker's head: its name, its key's SHA-256, the last serial and token it ordered with."""

    head: Name
    key_sha256: Hex32
    serial: Serial = 0
    token: str = ""


class WorkerKept(msgspec.Struct, frozen=True):
    """A head's worker: "host:port", the pinned certificate, and the key of this cluster."""

    address: str
    certificate: str
    key: Hex32

    def __repr__(self) -> str:  # a key must not come into a log with its struct
        return f"WorkerKept({self.address!r})"


class Kept:
    """The files of one state folder. Each raises HostError for a file that cannot be used."""

    def __init__(self, state_dir: Path) -> None:
        self.folder = state_dir.expanduser() / FOLDER
        self._head, self._worker = self.folder / "head.json", self.folder / "worker.json"

    def head(self) -> HeadKept | None:
        """Return this worker's head; None before a join."""
        return _read(self._head, HeadKept)

    def worker(self) -> WorkerKept | None:
        """Return this head's worker; None before a join."""
        return _read(self._worker, WorkerKept)

    def keep_head(self, head: HeadKept) -> None:
        """Keep it, durably."""
        self._write(self._head, head)

    def keep_worker(self, worker: WorkerKept) -> None:
        """Keep it, durably."""
        self._write(self._worker, worker)

    def forget_head(self) -> bool:
        """Take no more orders from it; False where there was none."""
        return _delete(self._head)

    def forget_worker(self) -> bool:
        """Order nothing of it any more; False where there was none."""
        return _delete(self._worker)

    def _write(self, path: Path, value: msgspec.Struct) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(path, msgspec.json.encode(value))
        except OSError as cause:
            raise HostError(f"{path} cannot be written: {cause.strerror}", "see df -h") from cause


def digest_of(key: str) -> str:
    """Return what a worker keeps of a key, in hex."""
    return hashlib.sha256(key.encode()).hexdigest()


def fits(kept: HeadKept, presented: str) -> bool:
    """Whether the presented key is the head's, told in constant time."""
    return hmac.compare_digest(kept.key_sha256, digest_of(presented))


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_LIMIT), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as cause:
        why = cause.strerror if isinstance(cause, OSError) else "it is damaged"
        raise HostError(f"{path} cannot be used: {why}", "delete it, and join again") from cause


def _delete(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as cause:
        raise HostError(f"{path} cannot be deleted: {cause.strerror}", "delete it") from cause
    return True
