"""The two keys: a client's, for the model; an operator's, for the appliance itself."""

import os
import secrets
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from appliance.errors import HostError


class Access(IntEnum):
    """What a request may do, least first."""

    NOBODY = 0
    CLIENT = 1
    OPERATOR = 2


@dataclass(frozen=True)
class Keys:
    """The keys in force."""

    client: str
    operator: str

    def access(self, presented: str) -> Access:
        """Return what ``presented`` opens, in constant time."""
        given = presented.encode()
        operator = secrets.compare_digest(given, self.operator.encode())
        client = secrets.compare_digest(given, self.client.encode())
        return Access.OPERATOR if operator else Access.CLIENT if client else Access.NOBODY


def bearer(authorization: str | None, x_api_key: str | None) -> str:
    """Return the key of a request: OpenAI's header, or Anthropic's."""
    scheme, _, key = (authorization or "").strip().partition(" ")
    presented = key.strip() if scheme.lower() == "bearer" else ""
    return presented or (x_api_key or "").strip()


def ensure_key(path: Path, given: str | None) -> str:
    """Return the given key, or the one kept in ``path``, made (mode 0600) on first use.

    Raises HostError when the file cannot be read or written.
    """
    if given:
        return given
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    except OSError as cause:
        raise _unusable(path, cause) from cause
    key = secrets.token_hex(32)  # never begins with a dash: --key KEY must take it
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(key + "\n")
    except OSError as cause:
        raise _unusable(path, cause) from cause
    return key


def _read(path: Path) -> str:
    try:
        if path.is_file():
            path.chmod(0o600)
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise _unusable(path, cause) from cause
    if not key:
        raise HostError(f"{path} is empty", "delete it: a new key is made at the next start")
    return key


def _unusable(path: Path, cause: Exception) -> HostError:
    return HostError(
        f"the key file {path} cannot be used: {cause}",
        "set APPLIANCE_STATE_DIR to a folder of yours",
    )
