"""Which names in a Host header are ours: the one rule, for browsers and for /kilo.json. Pure.

A page of a foreign name can be made to reach this machine: its name server answers with our
address ("DNS rebinding"), and the browser takes both for one origin. It needs a name of the
public DNS for that. So an address, a name of one label and a name under ``.local`` (which the
machine's own network gives out) are ours without being known; any other name is only when this
machine has it, its certificate, or ``APPLIANCE_ALLOWED_HOSTS``. In a container, where the
machine's own name cannot be found out, that lets people in by it all the same.
"""

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from appliance.errors import RequestError

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NEAR = re.compile(rf"{_LABEL}(\.local)?\.?")
_SANE = re.compile(r"[a-z0-9_.-]{1,253}")


class HostPort(NamedTuple):
    """What a Host header names; ``port`` is None where it says none."""

    host: str
    port: int | None

    def __str__(self) -> str:
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return shown if self.port is None else f"{shown}:{self.port}"


class Hosts:
    """The names that are ours."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = frozenset(name.lower().rstrip(".") for name in names)

    def own(self, header: str) -> HostPort | None:
        """Return what a Host header names; None where that is nobody we know, or crooked."""
        named = parse_host(header)
        return named if named and self._is_own(named.host) else None

    def base_url(self, scheme: str, header: str) -> str | None:
        """Return the address by which a client has come, before ``/v1``; None as in ``own``."""
        named = self.own(header)
        return None if named is None else f"{scheme}://{named}"

    def _is_own(self, host: str) -> bool:
        if _is_address(host) or host.rstrip(".") in self._names:
            return True
        return _NEAR.fullmatch(host) is not None


def misdirected(header: str) -> RequestError:
    """Return the answer to who asks by a name that is not ours."""
    named = parse_host(header)
    name = named.host if named and _SANE.fullmatch(named.host) else "that.name"
    return RequestError(
        421,
        "misdirected_host",
        "the Host header names none of this appliance's hosts",
        f"ask by its address, or set APPLIANCE_ALLOWED_HOSTS={name}",
    )


@lru_cache(maxsize=64)  # clients are few, and who guesses keys sends the same name each time
def parse_host(header: str) -> HostPort | None:
    """Return the parts of a Host header in lower case; None where it is no such thing."""
    try:
        parts = urlsplit(f"//{header}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or "%" in host or parts.netloc != header or parts.username is not None:
        return None
    return HostPort(host, port)


@lru_cache(maxsize=64)
def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
