"""The HTTP face: the routes behind the door that are no model's, and errors in one shape."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from appliance.browsers import Browsers, caller_of
from appliance.control import RETRY_AFTER_S, Control, is_admitting
from appliance.door import LIVE_PATHS, LOCAL_KEY, READY_PATHS, Door, not_found, wrong_method
from appliance.errors import ApplianceError, EngineNotReady, RequestError, http_status
from appliance.failedkeys import FailedKeys
from appliance.keys import Keys
from appliance.loginroutes import LoginRoutes
from appliance.metrics import CONTENT_TYPE, Metrics
from appliance.relay import Relay
from appliance.weblogin import Logins
from appliance.webpages import Guarded, page_routes, read_pages
from appliance.wireerror import error_body, issues_text


@dataclass(frozen=True)
class Parts:
    """What the HTTP face stands on."""

    control: Control
    relay: Relay
    metrics: Metrics
    keys: Keys
    logins: Logins


def build_app(parts: Parts) -> ASGIApp:
    """Return the ASGI application for the network."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    pages = read_pages()
    failures = FailedKeys(parts.metrics, parts.control.settings.failed_key_delay_s)
    browsers = Browsers(parts.control.hosts, parts.logins)
    for path in LIVE_PATHS:
        app.router.routes.append(Route(path, _live, methods=["GET"]))
    for path in READY_PATHS:
        app.router.routes.append(Route(path, _health(parts), methods=["GET"]))
    app.router.routes.append(Route("/metrics", _metrics(parts), methods=["GET"]))
    app.router.routes.append(Route("/kilo.json", _kilo(parts), methods=["GET"]))
    app.router.routes.extend(page_routes(pages))
    app.router.routes.extend(LoginRoutes(parts.logins, parts.keys, failures).routes())
    app.include_router(parts.control.router())
    app.add_exception_handler(ApplianceError, _on_appliance_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    return Door(Guarded(app), parts.relay.carry, parts.keys, failures, browsers, pages)


def local_app(app: ASGIApp) -> ASGIApp:
    """Return ``app`` for the unix socket, whose file mode is the key."""

    async def local(scope: Scope, receive: Receive, send: Send) -> None:
        scope[LOCAL_KEY] = True
        await app(scope, receive, send)

    return local


async def _live(_request: Request) -> Response:
    return _json(msgspec.json.encode({"status": "live"}))


def _health(parts: Parts) -> Callable[[Request], Awaitable[Response]]:
    async def health(request: Request) -> Response:
        snapshot = parts.control.engine.snapshot
        body = msgspec.json.encode(parts.control.health(caller_of(request.scope).access))
        if is_admitting(snapshot):
            return _json(body)
        return _json(body, 503, {"retry-after": str(RETRY_AFTER_S)})

    return health


def _metrics(parts: Parts) -> Callable[[Request], Awaitable[Response]]:
    async def metrics(_request: Request) -> Response:
        try:
            engine = await parts.control.engine.upstream.metrics()
        except EngineNotReady:
            engine = b""
        await parts.metrics.refresh()
        return Response(parts.metrics.text() + engine, headers={"content-type": CONTENT_TYPE})

    return metrics


def _kilo(parts: Parts) -> Callable[[Request], Awaitable[Response]]:
    async def kilo(request: Request) -> Response:
        config = parts.control.kilo(request.url.scheme, request.headers.get("host", ""))
        return _json(msgspec.json.format(msgspec.json.encode(config)))

    return kilo


async def _on_http_exception(request: Request, error: Any) -> Response:
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        wrong = wrong_method(request.url.path, request.method, allowed)
        return _json(error_body(wrong), 405, {"allow": allowed})
    if error.status_code == 404:
        return _refused(not_found(request.url.path))
    return _refused(RequestError(error.status_code, "refused", str(error.detail)))


async def _on_appliance_error(_request: Request, error: Any) -> Response:
    return _refused(error)


async def _on_validation_error(_request: Request, error: Any) -> Response:
    return _refused(RequestError(400, "bad_parameter", issues_text(error.errors())))


def _refused(error: ApplianceError) -> Response:
    return _json(error_body(error), http_status(error))


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, media_type="application/json")
