"""The keys: clients', for the model; the operator's, for the appliance itself."""

import os
import secrets
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from appliance.clientkeys import ClientKey, KeyFile, digest
from appliance.errors import HostError
from appliance.fairqueue import Share


class Access(IntEnum):
    """What a request may do, least first."""

    NOBODY = 0
    CLIENT = 1
    OPERATOR = 2


@dataclass(frozen=True)
class Caller:
    """Who asks: what it may do, and its key's name and limits."""

    access: Access
    share: Share


NOBODY = Caller(Access.NOBODY, Share("nobody"))
CLIENT = Caller(Access.CLIENT, Share("default"))
OPERATOR = Caller(Access.OPERATOR, Share("operator"))


class Keys:
    """The keys in force: the generated or given client key, the operator's, and the named ones.

    ``operator_file`` keeps the operator's, where that was not given: ``look`` reads it anew.
    """

    def __init__(
        self,
        client: str,
        operator: str,
        named: KeyFile | None = None,
        operator_file: Path | None = None,
    ) -> None:
        self.client = client
        self.operator = operator
        self._named = named
        self._operator_file = operator_file
        self._own = self._own_keys()
        self._known: tuple[ClientKey, ...] = ()
        self._all: tuple[tuple[bytes, Caller], ...] = self._own

    def caller(self, presented: str) -> Caller:
        """Return who presents this key, in constant time: each key is compared, whichever fits."""
        given, found = digest(presented), NOBODY
        for kept, caller in self._callers():
            if secrets.compare_digest(given, kept):
                found = caller
        return found

    def look(self) -> bool:
        """Take what the operator's file says now; tell whether that is another key.

        No file, or an empty one, is no key: whoever deletes it has revoked it. So is the client
        key there, which must not become the operator's by a slip.
        """
        if not self._operator_file:
            return False
        try:
            told = self._operator_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            told = ""
        if _is_same(told, self.client):
            told = ""
        if _is_same(told, self.operator):
            return False
        self.operator = told
        self._own = self._own_keys()
        self._all = (*self._all[: -len(self._own)], *self._own)
        return True

    def _own_keys(self) -> tuple[tuple[bytes, Caller], ...]:
        operator = digest(self.operator) if self.operator else b""  # which fits nothing
        return (digest(self.client), CLIENT), (operator, OPERATOR)

    def _callers(self) -> tuple[tuple[bytes, Caller], ...]:
        named = self._named.current() if self._named else ()
        if named is not self._known:
            self._known = named
            rows = ((key.sha256, Caller(Access.CLIENT, key.share)) for key in named)
            self._all = (*rows, *self._own)  # these two win over a name of the same key
        return self._all


def _is_same(one: str, other: str) -> bool:
    return secrets.compare_digest(digest(one), digest(other))


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
