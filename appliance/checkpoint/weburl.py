"""Addresses of files: which are asked at all, and where a redirect may lead. Pure.

A query may hold a signature that stands for the right to read, and is never shown.
"""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from appliance.checkpoint.faults import Hostile, RemoteError

_PORTS = {"https": 443, "http": 80}
_PLAIN = re.compile(r"[!-~]+")
SHOWN = 200  # characters of an address in a message


@dataclass(frozen=True)
class WebUrl:
    """One address. ``target`` is what follows the host: path and query, never empty."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """Who answers for it: the token of one origin is never sent to another."""
        return self.scheme, self.host, self.port

    @property
    def is_local(self) -> bool:
        """Whether it is this machine: there alone may HTTP be plain."""
        return _is_loopback(self.host)

    def full(self) -> str:
        """Return the address as it is asked for. Not for a message: it may hold a signature."""
        return f"{self._base()}{self.target}"

    def __str__(self) -> str:
        return f"{self._base()}{self.target.partition('?')[0]}"[:SHOWN]

    __repr__ = __str__  # the one that dataclass makes would show the query

    def _base(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"

    def below(self, *parts: str) -> "WebUrl":
        """Return the address of ``parts``, one after the other, each quoted whole."""
        path = self.target.partition("?")[0].rstrip("/")
        for part in parts:
            path += "/" + quote(part, safe="")
        return WebUrl(self.scheme, self.host, self.port, path)

    def asking(self, query: str) -> "WebUrl":
        """Return the same address with a query."""
        return WebUrl(self.scheme, self.host, self.port, f"{self.target}?{query}")


def parse_url(text: str) -> WebUrl:
    """Return the address that somebody typed or a server named.

    Raises RemoteError for one that is not asked: no https, a name and password in it, no host.
    """
    shown = text.partition("?")[0][:SHOWN]
    if "@" in shown:
        shown = "the address"  # what stands before the @ may be a password
    if not _PLAIN.fullmatch(text):
        raise RemoteError(f"{shown!r} is no address: it has blanks or letters beyond ASCII")
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise RemoteError(f"{shown!r} is no address") from None
    if parts.username is not None or parts.password is not None:
        raise RemoteError("an address holds a name or a password", "take it out: use HF_TOKEN")
    if parts.scheme not in _PORTS or not host:
        raise RemoteError(f"{shown!r} is no https:// address", "write https://host/path")
    if parts.scheme == "http" and not _is_loopback(host):
        raise RemoteError(
            f"{shown!r} would be read in the clear", "write https://; http is for this machine only"
        )
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return WebUrl(parts.scheme, host, port or _PORTS[parts.scheme], target)


def redirected(asked: WebUrl, location: str) -> WebUrl:
    """Return where a redirect leads. Raises Hostile where it may not lead.

    From https only to https, and from the network never to this machine.
    """
    try:
        url = parse_url(urljoin(asked.full(), location))
    except RemoteError as cause:
        raise Hostile(f"{asked} redirects to what is not followed: {cause.what}") from None
    if url.scheme != "https" and asked.scheme == "https":
        raise Hostile(f"{asked} redirects from https to {url}", "ask who runs it")
    if url.is_local and not asked.is_local:
        raise Hostile(f"{asked} redirects to this machine: {url}", "ask who runs it")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
