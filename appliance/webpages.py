"""The console's files, as they are served: read once, at the start, under a table of paths.

``/`` is ``console/index.html``, ``/console/NAME`` each file beside it. What is not in the table
is not found, so there is no path to climb out by. An ETag spares the browser what it has; it asks
each time all the same, so that an upgrade is seen at once.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONSOLE = Path(__file__).parent / "console"
INDEX = "index.html"
# What we do not name we do not serve: a stray file in the folder stays at home.
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# On every answer that is not the model's.
GUARDS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
# Browsers ignore it over plain HTTP, and write that into the console as an error.
_OPENER = (b"cross-origin-opener-policy", b"same-origin")
_CACHE = b"cache-control"


@dataclass(frozen=True)
class Page:
    """One file, ready to be sent."""

    body: bytes
    kind: str
    etag: str


def read_pages(folder: Path = CONSOLE) -> Mapping[str, Page]:
    """Return the files of a folder by the path that they are served under."""
    pages = {}
    for path in sorted(folder.iterdir()):
        kind = KINDS.get(path.suffix)
        if kind is None or not path.is_file() or path.name.startswith("."):
            continue
        body = path.read_bytes()
        page = Page(body, kind, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
        pages["/" if path.name == INDEX else f"/console/{path.name}"] = page
    return pages


def page_routes(pages: Mapping[str, Page]) -> list[Route]:
    """Return a route for each page."""
    return [Route(path, _served(page), methods=["GET"]) for path, page in pages.items()]


def _served(page: Page) -> Callable[[Request], Awaitable[Response]]:
    headers = {"etag": page.etag, "cache-control": "no-cache"}

    async def served(request: Request) -> Response:
        if page.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(page.body, headers=headers, media_type=page.kind)

    return served


def over_tls(scope: Scope) -> bool:
    """Tell whether the browser's connection is encrypted: here, or up to a proxy in front.

    Anybody may send the proxy's header; it makes what we answer stricter, and nothing looser.
    """
    if scope.get("scheme") == "https":
        return True
    told = next((value for name, value in scope["headers"] if name == b"x-forwarded-proto"), b"")
    return bytes(told).partition(b",")[0].strip().lower() == b"https"


class Guarded:
    """``app`` with the guards on its answers, none of which a cache may keep unasked."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let ``app`` answer."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), *GUARDS]
                if over_tls(scope):
                    headers.append(_OPENER)
                if not any(name.lower() == _CACHE for name, _ in headers):
                    headers.append((_CACHE, b"no-store"))
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, guarded)
