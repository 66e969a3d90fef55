"""Requests without a valid key: the name they ask by, and the log-in that may stand for a key.

Who shows a valid key never comes here: no page of another site can make a browser send one.
Everybody else must ask by a name that is ours (421 ``misdirected_host``); a request without a
Host header is let through, as no browser sends one.

A log-in's cookie stands for the operator key on the control API, and for a client key on the
three routes that the console's chat needs; elsewhere it is worth nothing. What is no GET or HEAD
must also be JSON (415 ``json_needed``), come from a page of ours (403 ``cross_origin``) and, with
a cookie, bear its token (403 ``csrf_token_missing``). There are no CORS headers, so no page of
another origin can read an answer, or send JSON at all.
"""

import time
from collections.abc import Callable
from http import HTTPStatus

from starlette.types import Scope

from appliance.errors import RequestError
from appliance.exchange import CALLER_KEY
from appliance.hostcheck import HostPort, Hosts, misdirected, parse_host
from appliance.keys import NOBODY, OPERATOR, Caller
from appliance.openai import CONTROL_PREFIX
from appliance.weblogin import Login, Logins, is_csrf
from appliance.webpages import over_tls

LOGIN_PATH = f"{CONTROL_PREFIX}/login"
LOGIN_KEY = "appliance.login"  # where the log-in, and
TOKEN_KEY = "appliance.token"  # noqa: S105 - its token are left, in the ASGI scope
CSRF_HEADER = b"x-csrf-token"
CHAT_PATHS = frozenset(("/v1/chat/completions", "/v1/models", "/kilo.json"))
_SAFE = ("GET", "HEAD")


class Browsers:
    """Finds out who a request without a valid key is. ``clock`` gives monotonic seconds."""

    def __init__(
        self, hosts: Hosts, logins: Logins, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._hosts = hosts
        self._logins = logins
        self._clock = clock

    def caller(self, scope: Scope, *, has_key: bool) -> Caller:
        """Return who asks: the operator with a log-in, or nobody; the scope is told of it too.

        ``has_key``: a wrong one was shown, and a cookie beside it does not help. Raises
        RequestError for a foreign Host, and for what a page of another site could have sent.
        """
        headers = _first_of_each(scope)
        named = self._own_host(headers)
        path = scope["path"]
        login = None if has_key or named is None else self._login(scope, headers, named)
        if scope["method"] not in _SAFE and (login is not None or path == LOGIN_PATH):
            _check_origin(scope, headers, named)
            if path != LOGIN_PATH:
                _check_csrf(scope, headers)
        if login is None:
            return NOBODY
        scope[LOGIN_KEY] = login
        return OPERATOR

    def _own_host(self, headers: dict[bytes, str]) -> HostPort | None:
        header = headers.get(b"host", "")
        if not header:
            return None
        named = self._hosts.own(header)
        if named is None:
            raise misdirected(header)
        return named

    def _login(self, scope: Scope, headers: dict[bytes, str], named: HostPort) -> Login | None:
        path = scope["path"]
        if path not in CHAT_PATHS and not path.startswith(CONTROL_PREFIX + "/"):
            return None
        token = _cookie(headers.get(b"cookie", ""), cookie_name(scope, named))
        if not token:
            return None
        scope[TOKEN_KEY] = token
        return self._logins.find(token, self._clock())


def caller_of(scope: Scope) -> Caller:
    """Return who asks, as the door has found it."""
    caller: Caller = scope.get(CALLER_KEY, NOBODY)
    return caller


def may_go_on(scope: Scope, now: float) -> bool:
    """Tell whether who asked this may still listen: by key, or by a log-in that holds."""
    login: Login | None = scope.get(LOGIN_KEY)
    return login is None or login.is_good(now)


def cookie_name(scope: Scope, named: HostPort | None) -> str:
    """Return the cookie of this address: browsers keep one box for all ports of a host."""
    port = named.port if named else None
    name = "unglitched-login" + (f"-{port}" if port is not None else "")
    return f"__Host-{name}" if over_tls(scope) else name


def host_of(scope: Scope) -> HostPort | None:
    """Return the name that a request asks by; None where it names none."""
    return parse_host(_first_of_each(scope).get(b"host", ""))


def _check_origin(scope: Scope, headers: dict[bytes, str], named: HostPort | None) -> None:
    kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "json_needed",
            f"the content type is {kind[:60] or 'missing'}",
            "send content-type: application/json",
        )
    origin = headers.get(b"origin")
    if origin is None:
        is_ours = headers.get(b"sec-fetch-site") == "same-origin"
    else:
        # a proxy in front of plain HTTP may end TLS; in front of TLS nothing can take it away
        schemes = ("https",) if scope.get("scheme") == "https" else ("http", "https")
        is_ours = named is not None and origin.lower() in {f"{kind}://{named}" for kind in schemes}
    if not is_ours:
        raise RequestError(
            HTTPStatus.FORBIDDEN,
            "cross_origin",
            "the request comes from a page of another origin",
            "send it from the console itself, or use a key: Authorization: Bearer KEY",
        )


def _check_csrf(scope: Scope, headers: dict[bytes, str]) -> None:
    if not is_csrf(scope[TOKEN_KEY], headers.get(CSRF_HEADER, "")):
        raise RequestError(
            HTTPStatus.FORBIDDEN,
            "csrf_token_missing",
            "x-csrf-token is missing, or of another log-in",
            f"send what GET {LOGIN_PATH} tells as csrf",
        )


def _first_of_each(scope: Scope) -> dict[bytes, str]:
    """Return the headers by name; the first of each, as for keys, but no two hosts."""
    found: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name == b"host" and name in found:
            raise RequestError(HTTPStatus.BAD_REQUEST, "two_hosts", "there are two Host headers")
        found.setdefault(name, value.decode("latin-1"))
    return found


def _cookie(header: str, wanted: str) -> str:
    for pair in header.split(";"):
        name, _, value = pair.strip().partition("=")
        if name == wanted:
            return value
    return ""
