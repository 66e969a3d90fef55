"""Named client keys: one file of names, limits and digests, read anew when it changes.

It holds SHA-256 digests, never a key: who reads it, or a backup of it, can open nothing. A key
is 256 random bits, so there is nothing to guess that a slow hash or a salt would protect.
"""

import fcntl
import hashlib
import os
import re
import secrets
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import structlog

from appliance.errors import HostError
from appliance.fairqueue import Share

log = structlog.get_logger()

LOOK_S = 1.0  # a new or revoked key counts after this time at the latest
MOST = 256  # each request is compared with all of them
RESERVED = ("default", "operator", "nobody")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")  # it is a metric's label
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"sha256", "made", "max_running", "max_waiting"}


@dataclass(frozen=True)
class ClientKey:
    """One named key: the digest of its secret, the day it was made, and its limits."""

    name: str
    sha256: bytes
    made: str = ""
    max_running: int | None = None
    max_waiting: int | None = None

    @property
    def share(self) -> Share:
        """What the gate goes by."""
        return Share(self.name, self.max_running, self.max_waiting)


def digest(secret: str) -> bytes:
    """Return what is kept, and compared, of a key."""
    return hashlib.sha256(secret.encode()).digest()


def checked_name(name: str) -> str:
    """Return a name that is fit for a key. Raises HostError for another."""
    if name in RESERVED:
        raise HostError(f"{name!r} is the name of a key that is there always", "take another name")
    if not _NAME.fullmatch(name):
        raise HostError(
            f"{name[:40]!r} is no name for a key",
            "take 1 to 32 small letters, digits, dots, dashes or underscores, a letter or digit "
            "first: appliance key new laptop",
        )
    return name


# ---- the file's text


def parse_keys(text: str, where: str) -> tuple[ClientKey, ...]:
    """Return the keys of a file's ``text``. Raises HostError that names ``where`` and what."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as cause:
        raise _unreadable(where, f"it is no TOML: {cause}") from None
    keys = []
    for name, row in table.items():
        try:
            checked_name(name)
        except HostError as cause:
            raise _unreadable(where, cause.what) from None
        keys.append(_parsed(name, row, where))
    if len(keys) > MOST:
        raise _unreadable(where, f"{len(keys)} keys are more than {MOST}")
    return tuple(keys)


def _parsed(name: str, row: Any, where: str) -> ClientKey:
    if not isinstance(row, dict):
        raise _unreadable(where, f"{name} is no table like [{name}]")
    if unknown := sorted(set(row) - _FIELDS):
        raise _unreadable(where, f"[{name}] has no field {unknown[0]!r}")
    kept = row.get("sha256")
    if not isinstance(kept, str) or not _DIGEST.fullmatch(kept):
        raise _unreadable(where, f"[{name}] needs sha256, 64 hexadecimal digits")
    for limit, least in (("max_running", 1), ("max_waiting", 0)):
        value = row.get(limit)
        if value is not None and (type(value) is not int or value < least):
            shown = repr(value)[:40]
            raise _unreadable(where, f"[{name}] {limit}={shown} must be {least} or more")
    made = _day(row.get("made", ""))
    if made is None:
        shown = repr(row["made"])[:40]
        raise _unreadable(where, f"[{name}] made={shown} is no day like 2026-11-23")
    return ClientKey(
        name, bytes.fromhex(kept), made, row.get("max_running"), row.get("max_waiting")
    )


def _day(value: Any) -> str | None:
    """Return a day as it is written and shown, "" for none, None for what is no day."""
    if value == "":
        return ""
    try:
        return date.fromisoformat(str(value)).isoformat()
    except ValueError:
        return None


def format_keys(keys: Iterable[ClientKey]) -> str:
    """Return the file's text; ``parse_keys`` reads it back."""
    lines = ["# Client keys by name; appliance key new, list and revoke look after them."]
    for key in keys:
        lines += ["", f'["{key.name}"]', f'sha256 = "{key.sha256.hex()}"']
        lines += [f'made = "{key.made}"'] if key.made else []
        lines += [
            f"{limit} = {value}"
            for limit, value in (("max_running", key.max_running), ("max_waiting", key.max_waiting))
            if value is not None
        ]
    return "\n".join(lines) + "\n"


def _unreadable(where: str, why: str) -> HostError:
    return HostError(
        f"the file of client keys {where} cannot be used: {why}",
        "correct it, or delete it and make the keys anew: appliance key new NAME",
    )


# ---- reading it while the appliance runs


class KeyFile:
    """The keys of one file, as they are now. No file is no keys.

    ``clock`` gives monotonic seconds. The first look raises HostError for a file that cannot be
    used; a later one keeps what it had, and says so in the log: a slip of the pen must not shut
    everybody out.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._looked = clock()
        self._seen = self._told = _signature(path)
        self._keys = read_keys(path)

    def current(self) -> tuple[ClientKey, ...]:
        """Return the keys; the same object as before where nothing has changed."""
        now = self._clock()
        if now - self._looked >= LOOK_S:
            self._looked = now
            self._look()
        return self._keys

    def _look(self) -> None:
        signature = _signature(self._path)
        if signature == self._seen:
            return
        try:
            self._keys = read_keys(self._path)
        except HostError as error:
            # What could not be read is looked at again: it may hold a key's end.
            if not isinstance(error.__cause__, OSError):
                self._seen = signature
            if signature != self._told:
                log.error("keys.unusable", what=error.what, next=error.hint, kept=len(self._keys))
            self._told = signature
            return
        self._seen = signature
        log.info("keys.read", names=[key.name for key in self._keys])


def read_keys(path: Path) -> tuple[ClientKey, ...]:
    """Return the keys of a file; none where there is no file. Raises HostError."""
    try:
        return parse_keys(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as cause:
        raise _unreadable(str(path), str(cause)) from cause


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


# ---- changing it


def add_key(
    path: Path,
    name: str,
    *,
    max_running: int | None = None,
    max_waiting: int | None = None,
    replace: bool = False,
) -> str:
    """Make a key and keep its digest; return the key, which nobody can show again.

    Raises HostError for a name that is taken (unless ``replace``), or for a file that cannot be
    read or written.
    """
    secret = secrets.token_hex(32)
    made = datetime.now(UTC).date().isoformat()
    key = ClientKey(checked_name(name), digest(secret), made, max_running, max_waiting)
    with _changed(path) as keys:
        if name in keys and not replace:
            raise HostError(
                f"there is a key {name!r} already",
                f"appliance key new {name} --replace makes a new one, and the old one ends",
            )
        if len(keys) >= MOST and name not in keys:
            raise HostError(f"there are {MOST} keys already", "appliance key revoke NAME")
        keys[name] = key
    return secret


def revoke_key(path: Path, name: str) -> None:
    """Forget a key. Raises HostError where there is none of that name."""
    with _changed(path) as keys:
        if name not in keys:
            known = ", ".join(keys) or "none"
            raise HostError(f"there is no key {name!r}; there are: {known}", "appliance key list")
        del keys[name]


@contextmanager
def _changed(path: Path) -> Iterator[dict[str, ClientKey]]:
    """Give the keys by name, and write them back: as a whole, and nobody else's change is lost."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as cause:
        raise _unwritable(path, cause) from cause
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        keys = {key.name: key for key in read_keys(path)}
        yield keys
        _write(path, format_keys(keys.values()))
    finally:
        os.close(folder)


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.new")
    try:
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if os.geteuid() == 0:  # root may call; who serves must still be able to read it
                owner = (path if path.exists() else path.parent).stat()
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as cause:
        raise _unwritable(path, cause) from cause


def _unwritable(path: Path, cause: OSError) -> HostError:
    return HostError(
        f"the file of client keys {path} cannot be written: {cause.strerror}",
        "set APPLIANCE_CLIENT_KEYS to a file of yours",
    )
