"""Which proxy stands before a host, by the variables that every command obeys. Pure."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # not in typeshed

from appliance.checkpoint.faults import RemoteError

DEFAULT_PORT = 3128


@dataclass(frozen=True)
class Proxy:
    """A proxy that tunnels https. ``headers`` may hold its password, so they are not shown."""

    host: str
    port: int
    headers: dict[str, str] = field(repr=False)


def proxy_for(host: str, proxies: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for https to ``host``; None where there is none.

    ``proxies`` are by scheme, with the exceptions under "no". Raises RemoteError for an address
    that is none, without showing it: it may hold a password.
    """
    text = proxies.get("https")
    if not text or proxy_bypass_environment(host, dict(proxies)):
        return None
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port or DEFAULT_PORT
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme != "http" or not parts.hostname:
        raise RemoteError("HTTPS_PROXY is no http://host:port", "set it right, or unset it")
    return Proxy(parts.hostname, port, _login(parts.username, parts.password))


def _login(name: str | None, password: str | None) -> dict[str, str]:
    if name is None:
        return {}
    pair = f"{unquote(name)}:{unquote(password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}
