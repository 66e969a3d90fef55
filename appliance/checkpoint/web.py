"""Asks servers over HTTP: one answer at a time, redirects followed by hand, connections kept.

The token is sent to one origin alone. A redirect to another host (that is how a hub hands out
large files) is followed without it. Standard library alone, and safe to use from many threads.
"""

import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Self

from appliance.checkpoint.faults import (
    FileChanged,
    NotAllowed,
    NotThere,
    Passing,
    RemoteError,
    Unreachable,
)
from appliance.checkpoint.patience import Patience, rate_limit_s, retry_after_s
from appliance.checkpoint.proxies import proxy_for
from appliance.checkpoint.weburl import WebUrl, redirected

HOPS = 5
TIMEOUT_S = 30.0  # of silence
SAID_S = 2.0  # a longer pause is told
JSON_LIMIT = 64 * 2**20  # bytes; a listing of 10,000 files has 3 MB
AGENT = "unglitched-appliance"
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SIGNED_OUT = frozenset({400, 401, 403, 404, 410})  # of a storage: the signature is too old
_ACCEPT = "accept its licence on the hub's page, and set HF_TOKEN to a token that may read it"
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")  # of http.client
# What a hub says in X-Error-Code, in our words: a server's own may quote what we sent.
_CODES = {
    "GatedRepo": (NotAllowed, "is gated", _ACCEPT),
    "RepoNotFound": (
        NotThere,
        "is no repository, or a private one",
        "check its name, or set HF_TOKEN",
    ),
    "RevisionNotFound": (NotThere, "has no such revision", "name a branch, a tag or a commit"),
    "EntryNotFound": (NotThere, "is no file of this revision", "list the files on the hub's page"),
}


class Token:
    """A secret for one origin. It has no text form, so that no message can show it."""

    def __init__(self, secret: str, origin: tuple[str, str, int]) -> None:
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            raise NotAllowed("the token has blanks or letters that no token has", "set HF_TOKEN")
        self._secret = secret
        self._origin = origin

    def header_for(self, url: WebUrl) -> dict[str, str]:
        """Return what to send to ``url``: nothing where it is not the token's own origin."""
        if url.origin != self._origin:
            return {}
        return {"Authorization": f"Bearer {self._secret}"}


class Answer:
    """One answer: its status and headers are there, its body is read in pieces."""

    linked_etag = ""  # what the origin, that redirected here, calls the content

    def __init__(self, web: "Web", connection: HTTPConnection, url: WebUrl) -> None:
        self.url = url
        self._web = web
        self._connection = connection
        self._response: HTTPResponse = connection.getresponse()
        self.status = self._response.status

    def header(self, name: str) -> str:
        """Return a header's value; "" where there is none."""
        return self._response.getheader(name) or ""

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes of the body, b"" at its end. Raises Passing."""
        try:
            # not read(): when the server falls silent, that would lose what had come before
            return self._response.read1(size)
        except (OSError, HTTPException) as cause:
            raise Passing(f"{self.url} broke off: {_words(cause)}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        is_read = self._response.isclosed() or self._response.length == 0
        is_whole = is_read and not self._response.will_close
        self._response.close()
        self._web.give_back(self._connection, self.url, is_whole=is_whole)


class Web:
    """Keeps connections, knows the token, and says when to ask again."""

    def __init__(
        self,
        token: Token | None = None,
        patience: Patience | None = None,
        timeout_s: float = TIMEOUT_S,
        proxies: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._say = say
        self._token = token
        self._patience = patience or Patience()
        self._timeout_s = timeout_s
        self._proxies = proxies or {}
        self._tls: ssl.SSLContext | None = None
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str, int], list[HTTPConnection]] = {}
        self._busy: dict[HTTPConnection, socket.socket] = {}
        self._closed = threading.Event()

    def get(
        self, url: WebUrl, headers: Mapping[str, str] | None = None, origin: WebUrl | None = None
    ) -> Answer:
        """Return the answer to one GET, after redirects: a 200 or a 206.

        ``origin`` is the address that once redirected to ``url``, for messages; default: itself.
        Raises Passing for what may pass by itself, RemoteError for all else.
        """
        asked, linked = origin or url, ""
        is_kept = url != asked
        for _ in range(HOPS + 1):
            answer = self._ask(url, headers or {})
            if answer.status not in _REDIRECTS:
                break
            with answer:
                linked = linked or answer.header("X-Linked-ETag").strip('"')
                url = redirected(url, answer.header("Location"))
        else:
            raise RemoteError(f"{asked} redirects more than {HOPS} times")
        if answer.status in (200, 206):
            answer.linked_etag = linked
            return answer
        with answer:
            raise _refusal(asked, answer, is_kept=is_kept)

    def json_text(self, url: WebUrl) -> tuple[bytes, str]:
        """Return a whole small answer and its Link header, asking again if that may help."""
        failures = 0
        while True:
            try:
                with self.get(url) as answer:
                    return _whole(answer), answer.header("Link")
            except Passing as cause:
                failures += 1
                self.wait(failures, cause)

    def wait(self, failures: int, cause: Passing) -> None:
        """Wait before the next try. Raises Unreachable once patience is over."""
        chance = random.random()  # noqa: S311 - spreads tries, hides nothing
        pause = self._patience.pause_s(failures, cause.retry_after_s, chance)
        if pause is None:
            raise Unreachable(
                f"{cause.what} ({failures} times in a row)", "type the same again later: it goes on"
            )
        if pause > SAID_S:
            self._say(f"{cause.what}; asked again in {pause:.0f} s")
        self._closed.wait(pause)
        self.go_on()

    def go_on(self) -> None:
        """Raise Unreachable once the web is closed: for work between answers."""
        if self._closed.is_set():
            raise Unreachable("stopped", "type the same again: it goes on")

    def close(self) -> None:
        """End all connections, also those that are in use: whoever reads gets an error."""
        with self._lock:
            self._closed.set()
            for end in self._busy.values():
                with suppress(OSError):  # the plain socket's: TLS would first say good-bye
                    socket.socket.shutdown(end, socket.SHUT_RDWR)
            idle = [connection for kept in self._idle.values() for connection in kept]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def give_back(self, connection: HTTPConnection, url: WebUrl, *, is_whole: bool) -> None:
        """Keep a connection whose answer was read to its end; close it if not."""
        with self._lock:
            self._busy.pop(connection, None)
            if is_whole and not self._closed.is_set():
                self._idle.setdefault(url.origin, []).append(connection)
                return
        connection.close()

    # ---- one request

    def _ask(self, url: WebUrl, headers: Mapping[str, str]) -> Answer:
        own = self._token.header_for(url) if self._token else {}
        plain = {"User-Agent": AGENT, "Accept-Encoding": "identity", **headers, **own}
        while True:
            connection, is_fresh = self._connection(url)
            try:
                connection.request("GET", url.target, headers=plain)
                with self._lock:
                    self._busy[connection] = connection.sock
                    if self._closed.is_set():
                        raise OSError("stopped")
                return Answer(self, connection, url)
            except ssl.SSLCertVerificationError as cause:
                self.give_back(connection, url, is_whole=False)
                why = f"{url} shows a certificate that is not trusted: {cause.verify_message}"
                raise RemoteError(
                    why, "SSL_CERT_FILE names the CA of a company's network"
                ) from None
            except (OSError, HTTPException) as cause:
                self.give_back(connection, url, is_whole=False)
                if is_fresh or self._closed.is_set():
                    raise Passing(f"{url} does not answer: {_words(cause)}") from None
                # a kept connection may have been closed by the other side meanwhile

    def _connection(self, url: WebUrl) -> tuple[HTTPConnection, bool]:
        with self._lock:
            idle = self._idle.get(url.origin)
            connection = idle.pop() if idle else None
            is_fresh = connection is None
            return connection or self._connect(url), is_fresh

    def _connect(self, url: WebUrl) -> HTTPConnection:
        if url.scheme == "http":  # this machine, so no proxy is asked
            return HTTPConnection(url.host, url.port, timeout=self._timeout_s)
        if self._tls is None:
            self._tls = ssl.create_default_context()
        proxy = proxy_for(url.host, self._proxies)
        host, port = (proxy.host, proxy.port) if proxy else (url.host, url.port)
        connection = HTTPSConnection(host, port, timeout=self._timeout_s, context=self._tls)
        if proxy:
            connection.set_tunnel(url.host, url.port, proxy.headers)
        return connection


def _whole(answer: Answer) -> bytes:
    refuse_encoded(answer)
    parts, size = [], 0
    while part := answer.read(2**20):
        parts.append(part)
        size += len(part)
        if size > JSON_LIMIT:
            raise RemoteError(f"{answer.url} sends more than {JSON_LIMIT:,} bytes of a listing")
    announced = answer.header("Content-Length")
    if announced.isdecimal() and int(announced) != size:
        raise Passing(f"{answer.url} broke off after {size:,} of {announced} bytes")
    return b"".join(parts)


def refuse_encoded(answer: Answer) -> None:
    """Raise RemoteError for a body that is not as it is: a byte of it is no byte of the file."""
    if answer.header("Content-Encoding").lower() not in ("", "identity"):
        raise RemoteError(
            f"{answer.url} sends a compressed body, and was asked for none",
            "a proxy between may do this: ask its owner to leave the file alone",
        )


def _refusal(asked: WebUrl, answer: Answer, *, is_kept: bool) -> Exception:
    """Return what an answer without content means.

    ``asked`` is the address before redirects; ``is_kept``: where they once led was asked at once.
    """
    status = answer.status
    wait_s = retry_after_s(answer.header("Retry-After"), time.time())
    if wait_s is None and status == 429:
        wait_s = rate_limit_s(answer.header("RateLimit"))
    if status in _PASSING or status >= 500:
        return Passing(f"{answer.url} answers {status}", wait_s)
    if is_kept and status in _SIGNED_OUT:
        return Passing(f"{answer.url} answers {status}: its signature is too old", 0.0)
    if status == 416:
        return FileChanged(f"{asked} is shorter than it was", "type the same again, from the start")
    kind, what, hint = _CODES.get(answer.header("X-Error-Code"), (None, "", ""))
    if kind is not None:
        return kind(f"{asked} {what} ({status})", hint)
    if status in (401, 403):
        return NotAllowed(f"{asked} is not for everybody ({status})", _ACCEPT)
    if status in (404, 410):
        return NotThere(f"{asked} is not there ({status})", "check the address")
    return RemoteError(f"{asked} answers {status}")


def _words(cause: Exception) -> str:
    if isinstance(cause, TimeoutError):
        return "it is silent"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    if refused := _TUNNEL.match(str(cause)):
        return f"the proxy answers {refused[1]}"
    return type(cause).__name__
