"""The HTTP face: the door (who may go where), the routes, and errors in one shape."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from appliance.control import RETRY_AFTER_S, Control, is_admitting
from appliance.errors import ApplianceError, EngineNotReady, RequestError, http_status
from appliance.keys import Access, Keys, bearer
from appliance.kilo import kilo_config
from appliance.metrics import CONTENT_TYPE, Metrics
from appliance.openai import CONTROL_PREFIX, ROUTES, RelayRoute
from appliance.relay import Relay
from appliance.wireerror import error_body

log = structlog.get_logger()

LIVE_PATHS = ("/health/live", "/v1/health/live")
READY_PATHS = ("/health", "/health/ready", "/v1/health/ready")
CLIENT_PATHS = ("/metrics", "/kilo.json", *(route.path for route in ROUTES))

# Every path that exists, and the least access it asks for. What is not here is not found, so a
# route that somebody forgets to add stays shut.
ACCESS = {
    **dict.fromkeys((*LIVE_PATHS, *READY_PATHS), Access.NOBODY),
    **dict.fromkeys(CLIENT_PATHS, Access.CLIENT),
}
ACCESS_KEY = "appliance.access"
LOCAL_KEY = "appliance.local"


@dataclass(frozen=True)
class Parts:
    """What the HTTP face stands on."""

    control: Control
    relay: Relay
    metrics: Metrics
    keys: Keys


def build_app(parts: Parts) -> ASGIApp:
    """Return the ASGI application for the network."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    for path in LIVE_PATHS:
        app.router.routes.append(Route(path, _live, methods=["GET"]))
    for path in READY_PATHS:
        app.router.routes.append(Route(path, _health(parts), methods=["GET"]))
    app.router.routes.append(Route("/metrics", _metrics(parts), methods=["GET"]))
    app.router.routes.append(Route("/kilo.json", _kilo(parts), methods=["GET"]))
    for route in ROUTES:
        app.router.routes.append(_relay_route(route, parts.relay))
    app.include_router(parts.control.router())
    app.add_exception_handler(ApplianceError, _on_appliance_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    return Door(app, parts.keys)


def local_app(app: ASGIApp) -> ASGIApp:
    """Return ``app`` for the unix socket, whose file mode is the key."""

    async def local(scope: Scope, receive: Receive, send: Send) -> None:
        scope[LOCAL_KEY] = True
        await app(scope, receive, send)

    return local


class Door:
    """Decides who may go where, before anything else looks at the request. Pure ASGI."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self.app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401, 403 or 404."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        error = self._refusal(scope)
        if error is None:
            await self._pass(scope, receive, send)
            return
        anthropic = str(scope["path"]).startswith("/v1/messages")
        response = _json(error_body(error, anthropic=anthropic), http_status(error))
        if http_status(error) == 401:
            response.headers["www-authenticate"] = "Bearer"
        await response(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except asyncio.CancelledError:
            # Only a server that ends cancels its requests, and nothing awaits them: to raise on
            # would print a traceback for each.
            log.warning("request.cut", path=scope["path"], why="the appliance ends")

    def _refusal(self, scope: Scope) -> RequestError | None:
        path = scope["path"]
        needed = Access.OPERATOR if path.startswith(CONTROL_PREFIX + "/") else ACCESS.get(path)
        if needed is None:
            return _not_found(path)
        headers = Headers(scope=scope)
        key = bearer(headers.get("authorization"), headers.get("x-api-key"))
        access = Access.OPERATOR if scope.get(LOCAL_KEY) else self._keys.access(key)
        scope[ACCESS_KEY] = access
        if access >= needed:
            return None
        if access is Access.NOBODY:
            wrong = "the API key is wrong" if key else "an API key is missing"
            name = "operator" if needed is Access.OPERATOR else "client"
            hint = f"send Authorization: Bearer KEY; appliance key {name} prints it"
            return RequestError(401, "invalid_api_key", wrong, hint)
        return RequestError(
            403,
            "operator_key_needed",
            f"{path} is for the operator key",
            "appliance key operator prints it",
        )


def _not_found(path: str) -> RequestError:
    known = ", ".join(route.path for route in ROUTES)
    return RequestError(404, "not_found", f"there is no {path!r} here", f"routes: {known}")


def _relay_route(route: RelayRoute, relay: Relay) -> Route:
    class Endpoint:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await relay.carry(route, scope, receive, send)

    return Route(route.path, Endpoint(), methods=[route.method])


async def _live(_request: Request) -> Response:
    return _json(msgspec.json.encode({"status": "live"}))


def _health(parts: Parts) -> Callable[[Request], Awaitable[Response]]:
    async def health(request: Request) -> Response:
        snapshot = parts.control.engine.snapshot
        body = msgspec.json.encode(parts.control.health(request.scope[ACCESS_KEY]))
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
        settings = parts.control.settings
        config = kilo_config(
            str(request.base_url).rstrip("/"),
            settings.served_model_name,
            parts.control.engine.snapshot.max_model_len,
            parts.keys.client,
        )
        return _json(msgspec.json.format(msgspec.json.encode(config)))

    return kilo


async def _on_http_exception(request: Request, error: Any) -> Response:
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        what = f"{request.url.path} does not take {request.method}"
        wrong = RequestError(405, "method_not_allowed", what, f"use {allowed}")
        anthropic = request.url.path.startswith("/v1/messages")
        return _json(error_body(wrong, anthropic=anthropic), 405, {"allow": allowed})
    if error.status_code == 404:
        return _refused(_not_found(request.url.path))
    return _refused(RequestError(error.status_code, "refused", str(error.detail)))


async def _on_appliance_error(_request: Request, error: Any) -> Response:
    return _refused(error)


async def _on_validation_error(_request: Request, error: Any) -> Response:
    issues = "; ".join(
        f"the parameter {issue['loc'][-1]}={issue.get('input')!r} does not pass: {issue['msg']}"
        for issue in error.errors()
    )
    return _refused(RequestError(400, "bad_parameter", issues))


def _refused(error: ApplianceError) -> Response:
    return _json(error_body(error), http_status(error))


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, media_type="application/json")
