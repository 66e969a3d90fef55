"""The door: who may go where, before anything else looks at a request. Pure ASGI.

The model routes go from here straight to the relay: each layer of a framework between the two
would cost every request more than the relay itself.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from appliance.browsers import LOGIN_PATH, Browsers
from appliance.errors import ApplianceError, RequestError, http_status
from appliance.exchange import CALLER_KEY
from appliance.failedkeys import FailedKeys
from appliance.keys import OPERATOR, Access, Keys, bearer
from appliance.openai import CONTROL_PREFIX, ROUTES, RelayRoute, sane_request_id
from appliance.webpages import GUARDS
from appliance.wireerror import error_body

log = structlog.get_logger()

LIVE_PATHS = ("/health/live", "/v1/health/live")
READY_PATHS = ("/health", "/health/ready", "/v1/health/ready")
RELAYED: Mapping[str, RelayRoute] = {route.path: route for route in ROUTES}

# Every path that exists, and the least access it asks for. What is not here is not found, so a
# route that somebody forgets to add stays shut.
ACCESS = {
    **dict.fromkeys((*LIVE_PATHS, *READY_PATHS), Access.NOBODY),
    **dict.fromkeys(("/metrics", "/kilo.json", *RELAYED), Access.CLIENT),
}
LOCAL_KEY = "appliance.local"

Carry = Callable[[RelayRoute, Scope, Receive, Send], Awaitable[None]]


class Door:
    """Lets requests through to the relay (``carry``) or to ``app``, or answers 401, 403, 404, 405.

    ``pages`` are the paths that anybody may see. Who shows no valid key is looked at by
    ``browsers``; a wrong key is told so after the time that ``failures`` takes.
    """

    def __init__(
        self,
        app: ASGIApp,
        carry: Carry,
        keys: Keys,
        failures: FailedKeys,
        browsers: Browsers,
        pages: Iterable[str] = (),
    ) -> None:
        self.app = app
        self._carry = carry
        self._keys = keys
        self._failures = failures
        self._browsers = browsers
        self._access = {**ACCESS, **dict.fromkeys(pages, Access.NOBODY)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        is_control = path.startswith(CONTROL_PREFIX + "/")
        needed = Access.OPERATOR if is_control else self._access.get(path)
        if needed is None:
            await _answer(not_found(path), scope, send)
            return
        key = _presented(scope)
        caller = OPERATOR if scope.get(LOCAL_KEY) else self._keys.caller(key)
        scope[CALLER_KEY] = caller
        if caller.access is Access.NOBODY:
            await self._without_key(key, needed, scope, receive, send)
        elif caller.access >= needed:
            await self._pass(scope, receive, send)
        else:
            await _answer(_not_for(path), scope, send)

    async def _without_key(
        self, key: str, needed: Access, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            caller = self._browsers.caller(scope, has_key=bool(key))
        except RequestError as refused:
            await _answer(refused, scope, send)
            return
        scope[CALLER_KEY] = caller
        if caller.access >= needed or scope["path"] == LOGIN_PATH:
            await self._pass(scope, receive, send)
        else:
            await self._fail(key, needed, scope, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = RELAYED.get(scope["path"])
        if route is not None:
            if scope["method"] in methods_of(route):
                await self._carry(route, scope, receive, send)
            else:
                await _answer(_wrong_method(route, scope["method"]), scope, send)
            return
        try:
            await self.app(scope, receive, send)
        except asyncio.CancelledError:
            # Only a server that ends cancels its requests, and nothing awaits them: to raise on
            # would print a traceback for each.
            log.warning("request.cut", path=scope["path"], why="the appliance ends")

    async def _fail(self, key: str, needed: Access, scope: Scope, send: Send) -> None:
        try:
            await self._failures.hold(is_guess=bool(key))
        except asyncio.CancelledError:
            return  # the server ends
        wrong = "the API key is wrong" if key else "an API key is missing"
        name = "operator" if needed is Access.OPERATOR else "client"
        hint = f"send Authorization: Bearer KEY; appliance key {name} prints it"
        await _answer(RequestError(401, "invalid_api_key", wrong, hint), scope, send)


def methods_of(route: RelayRoute) -> tuple[str, ...]:
    """Return the methods that a route takes."""
    return (route.method, "HEAD") if route.method == "GET" else (route.method,)


def not_found(path: str) -> RequestError:
    """Return the error for a path that is not here."""
    return RequestError(
        404, "not_found", f"there is no {path!r} here", f"routes: {', '.join(RELAYED)}"
    )


def wrong_method(path: str, method: str, allowed: str) -> RequestError:
    """Return the error for a method that a path does not take."""
    what = f"{path} does not take {method}"
    return RequestError(405, "method_not_allowed", what, f"use {allowed}")


def _wrong_method(route: RelayRoute, method: str) -> RequestError:
    return wrong_method(route.path, method, ", ".join(methods_of(route)))


def _not_for(path: str) -> RequestError:
    return RequestError(
        403,
        "operator_key_needed",
        f"{path} is for the operator key",
        "appliance key operator prints it",
    )


def _presented(scope: Scope) -> str:
    authorization = x_api_key = None
    for name, value in scope["headers"]:  # the first of each counts, and they are in lower case
        if name == b"authorization" and authorization is None:
            authorization = value.decode("latin-1")
        elif name == b"x-api-key" and x_api_key is None:
            x_api_key = value.decode("latin-1")
    return bearer(authorization, x_api_key)


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return sane_request_id(given.decode("latin-1")) or f"req-{uuid.uuid4().hex}"


async def _answer(error: ApplianceError, scope: Scope, send: Send) -> None:
    status, path = http_status(error), scope["path"]
    body = error_body(error, anthropic=path.startswith("/v1/messages"))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", _request_id(scope).encode()),
        (b"cache-control", b"no-store"),
        *GUARDS,
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 405:
        headers.append((b"allow", ", ".join(methods_of(RELAYED[path])).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
