"""What outlives the sidecar: one small file in the state folder, whole or not there.

Also the two fingerprints that say whether what is kept still speaks of the same thing: what the
operator chose, and the checkpoint.
"""

import errno
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import msgspec
import structlog

from appliance import __version__
from appliance.checkpoint.folder import INDEX
from appliance.restart import History, Reason
from appliance.settings import SECRETS, Settings

log = structlog.get_logger()

VERSION = 1
ENGINE_FILE = "engine.json"  # in the state folder
MISSING = "missing"
_LIMIT = 2**20  # bytes; the file has some hundred, so a longer one is not ours
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# Every other setting counts. A setting that is missed here clears the breaker once too often;
# one too many would lock out an operator who has just corrected the cause.
UNRELATED: Mapping[str, str] = {
    **dict.fromkeys(SECRETS, "a new key is no new engine, and a hash of a key is a clue to it"),
    **dict.fromkeys(("host", "port"), "where clients find the appliance"),
    "state_dir": "where this file is",
    "log_format": "the appliance's own log",
    "memory_bandwidth_gb_s": "a figure of the plan, which nothing goes by",
    **dict.fromkeys(("prompt_injection", "prompt_file"), "changes requests, not the engine"),
    **dict.fromkeys(("max_body_bytes", "max_waiting"), "what is let in at the gate"),
    **dict.fromkeys(("queue_timeout_s", "whole_wait_s", "admit_wait_s"), "how long a client waits"),
    **dict.fromkeys(("head_after_s", "keepalive_s", "expected_start_s"), "what it hears meanwhile"),
    **dict.fromkeys(("drain_timeout_s", "idle_stop_after_s"), "when a healthy engine is stopped"),
}


class KeptEngine(msgspec.Struct, frozen=True):
    """The engine that was started last, told from any other process of the same boot.

    ``pid`` 0: the appliance was about to start it. ``start_ticks`` is the process's start in
    clock ticks since boot (``/proc/PID/stat``), ``init_ticks`` that of PID 1.
    """

    pid: Annotated[int, msgspec.Meta(ge=0)]
    start_ticks: Annotated[int, msgspec.Meta(ge=0)]
    token: str
    init_ticks: Annotated[int, msgspec.Meta(ge=0)] = 0


class Kept(msgspec.Struct, frozen=True):
    """What is kept of the engine's past, and what the operator wants.

    ``failures`` are seconds of CLOCK_BOOTTIME of the boot ``boot_id``; ``choice`` is a
    ``choice_hash``; ``wanted`` is False after ``appliance stop``; ``engine`` is None while none
    runs, and of the boot ``boot_id`` too; ``learned`` has the overheads in bytes that the last
    start of this choice logged.
    """

    boot_id: str = ""
    choice: str = ""
    failures: tuple[Annotated[float, msgspec.Meta(ge=0)], ...] = ()
    rung: Annotated[int, msgspec.Meta(ge=0)] = 0
    gave_up: Reason | None = None
    wanted: bool = True
    engine: KeptEngine | None = None
    learned: dict[str, int] = {}
    version: int = VERSION

    @property
    def history(self) -> History:
        """What the life cycle makes of it."""
        return History(self.failures, self.rung, self.gave_up)


class _Head(msgspec.Struct):
    version: int


def fresh(kept: Kept, boot_id: str, choice: str) -> Kept:
    """Return what of ``kept`` still holds in this boot, with what is chosen now. Pure.

    Another boot or another choice forgives: the failures were those of something else.
    """
    is_same_boot = kept.boot_id == boot_id
    if is_same_boot and kept.choice == choice:
        return kept
    return Kept(
        boot_id=boot_id,
        choice=choice,
        wanted=kept.wanted,
        engine=kept.engine if is_same_boot else None,
        learned=kept.learned if kept.choice == choice else {},
    )


def choice_hash(settings_dump: Mapping[str, Any], checkpoint: str, image: str) -> str:
    """Return a fingerprint of what the operator chose for the engine. Pure.

    ``settings_dump`` is ``Settings.model_dump(mode="json")``; ``checkpoint`` a ``checkpoint_id``;
    ``image`` names the version. Host readings and the memory plan must not come in: they differ
    at each start, and would clear the breaker each time.
    """
    chosen = {name: value for name, value in settings_dump.items() if name not in UNRELATED}
    whole = {"settings": chosen, "checkpoint": checkpoint, "image": image}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def checkpoint_id(folder: Path) -> str:
    """Return a fingerprint of a checkpoint: config, index, names and sizes of shards.

    No weights are read. A folder that is not there gives ``"missing"``; a file that cannot be
    read counts as one that is not there.
    """
    try:
        names = sorted(p.name for p in folder.iterdir() if p.suffix == ".safetensors")
    except OSError:
        return MISSING
    digest = hashlib.sha256()
    for name in ("config.json", INDEX):
        digest.update(_digest_of(folder / name))
    for name in names:
        digest.update(os.fsencode(name) + f"\0{_size(folder / name)}\0".encode("ascii"))
    return digest.hexdigest()


def choice_of(settings: Settings, environ: Mapping[str, str]) -> str:
    """Return the fingerprint of what is chosen now. Reads the checkpoint's folder.

    ``environ`` names the image: another one holds another vLLM.
    """
    image = f"{__version__} {environ.get('UNGLITCHED_IMAGE', '')}"
    checkpoint = checkpoint_id(settings.model_dir)
    return choice_hash(settings.model_dump(mode="json"), checkpoint, image)


def kept_overheads(folder: Path, choice: str) -> Mapping[str, int]:
    """Return what the last start of this choice has taught, {} for nothing. Changes nothing.

    It is for those who do not hold the state folder: what cannot be read is left as it is.
    """
    try:
        kept = _decode(_read(folder / ENGINE_FILE))
    except (OSError, *_UNREADABLE, _UnknownVersion):
        return {}
    return kept.learned if kept.choice == choice else {}


def _digest_of(path: Path) -> bytes:
    # a digest of fixed length: no byte of one file can pass for a byte of the next
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return bytes(hashlib.sha256().digest_size)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


class StateFile:
    """The file of one ``Kept``. A folder that cannot be written never ends the appliance.

    ``note`` says what was wrong with the file at the last ``load``, "" if nothing was.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.note = ""
        self._said: set[int | None] = set()
        self._lock = threading.Lock()

    def load(self) -> Kept:
        """Return what is kept; the defaults if there is none, or none that can be understood.

        A file that cannot be understood is set aside as ``engine.json.damaged``, for people.
        """
        self.note = ""
        try:
            data = _read(self.path)
        except FileNotFoundError:
            return Kept()
        except OSError as cause:
            return self._without(f"{self.path} cannot be read: {cause.strerror}")
        try:
            return _decode(data)
        except _UNREADABLE as cause:
            what = f"{self.path} is damaged ({cause})"
        except _UnknownVersion as cause:
            what = f"{self.path} is of version {cause}, not {VERSION}"
        aside = self.path.with_name(self.path.name + ".damaged")
        try:
            os.replace(self.path, aside)
        except OSError as cause:
            return self._without(f"{what}, and cannot be set aside: {cause.strerror}")
        return self._without(f"{what}; it is set aside as {aside.name}")

    def save(self, kept: Kept) -> str:
        """Keep ``kept``; return "" or what went wrong. The file is the old or the new one.

        Threads may call it at once: each writes a whole file, and the last one's stays.
        """
        try:
            with self._lock:  # there is one temporary name
                write_private(self.path, to_json(kept))
        except OSError as cause:
            what = f"{self.path} cannot be written: {cause.strerror}"
            if cause.errno not in self._said:  # a full disk is full at each save
                self._said.add(cause.errno)
                log.warning("state.not_written", what=what)
            return what
        return ""

    def _without(self, note: str) -> Kept:
        self.note = note
        log.warning("state.not_read", what=note)
        return Kept()


class _UnknownVersion(ValueError):
    """The file is of another version of the appliance."""


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LIMIT + 1)


def _decode(data: bytes) -> Kept:
    if len(data) > _LIMIT:
        raise msgspec.DecodeError(f"it has more than {_LIMIT} bytes")
    version = msgspec.json.decode(data, type=_Head).version
    if version != VERSION:
        raise _UnknownVersion(version)
    return msgspec.json.decode(data, type=Kept)


def to_json(value: Any) -> bytes:
    """Return a struct as JSON, whatever text is in it.

    File names may hold bytes that are no text, which Python reads as lone surrogates and JSON
    cannot write: they become ``?``.
    """
    return msgspec.json.encode(_writable(msgspec.to_builtins(value)))


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_writable(key): _writable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(item) for item in value]
    return value


def write_private(path: Path, data: bytes) -> None:
    """Write a file (0600) so that after a crash, or on a full disk, it is the old or the new one.

    One caller at a time for each ``path``. Raises OSError; the old file is then as it was, and
    nothing else is left behind.
    """
    # One fixed name: what a killed appliance left is written over, not added to. The state
    # folder's lock says that nobody else writes.
    temporary = path.with_name(f".{path.name}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(temporary, flags, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)  # what was left may have another mode
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name durable: without this, a power cut may bring back the old file."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as cause:
        # Some network file systems have no such call for a folder; the file is there.
        if cause.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
