"""Log in and out of the console.

``POST /appliance/v1/login`` ``{"key": OPERATOR_KEY}`` -> 200 ``{"csrf", "expires_at"}`` and a
cookie; 401 for a wrong key, after the time that any wrong key waits; 403 for a client's.
``GET /appliance/v1/login`` -> the same answer while logged in, else 401. ``POST
/appliance/v1/logout`` -> 204, and the cookie is gone.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.browsers import LOGIN_KEY, LOGIN_PATH, TOKEN_KEY, cookie_name, host_of
from appliance.errors import RequestError
from appliance.failedkeys import FailedKeys
from appliance.keys import Access, Keys
from appliance.openai import CONTROL_PREFIX
from appliance.weblogin import Login, Logins, csrf_of
from appliance.webpages import over_tls

LOGOUT_PATH = f"{CONTROL_PREFIX}/logout"
MOST_BYTES = 4096
READ_S = 10.0


class _Shown(msgspec.Struct):
    key: str


@dataclass(frozen=True)
class LoginRoutes:
    """The routes over the log-ins; ``clock`` gives monotonic seconds."""

    logins: Logins
    keys: Keys
    failures: FailedKeys
    clock: Callable[[], float] = time.monotonic

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route(LOGIN_PATH, self._look, methods=["GET"]),
            Route(LOGIN_PATH, self._log_in, methods=["POST"]),
            Route(LOGOUT_PATH, self._log_out, methods=["POST"]),
        ]

    async def _look(self, request: Request) -> Response:
        login: Login | None = request.scope.get(LOGIN_KEY)
        if login is None:
            raise RequestError(
                401, "not_logged_in", "nobody is logged in here", f"POST {LOGIN_PATH}"
            )
        return self._told(request.scope[TOKEN_KEY], login)

    async def _log_in(self, request: Request) -> Response:
        key = await _shown_key(request)
        access = self.keys.caller(key).access
        if access is Access.NOBODY:
            await self.failures.hold(is_guess=bool(key))
            what = "the operator key is wrong" if key else "the operator key is missing"
            raise RequestError(401, "invalid_api_key", what, "appliance key operator prints it")
        if access is not Access.OPERATOR:
            raise RequestError(
                403,
                "operator_key_needed",
                "operator key needed: this is a client's",
                "appliance key operator prints it",
            )
        if old := request.scope.get(TOKEN_KEY):
            self.logins.end(old)
        now = self.clock()
        token, login = self.logins.begin(now)
        answer = self._told(token, login)
        self._set_cookie(request, answer, token, round(login.left_s(now)))
        return answer

    async def _log_out(self, request: Request) -> Response:
        if token := request.scope.get(TOKEN_KEY):
            self.logins.end(token)
        answer = Response(status_code=204)
        self._set_cookie(request, answer, "", 0)
        return answer

    def _told(self, token: str, login: Login) -> Response:
        ends = time.time() + login.left_s(self.clock())
        told = {
            "csrf": csrf_of(token),
            "expires_at": datetime.fromtimestamp(ends, UTC).isoformat(timespec="seconds"),
        }
        return Response(msgspec.json.encode(told), media_type="application/json")

    def _set_cookie(self, request: Request, answer: Response, token: str, age_s: int) -> None:
        answer.set_cookie(
            cookie_name(request.scope, host_of(request.scope)),
            token,
            max_age=age_s,
            path="/",
            httponly=True,
            samesite="strict",
            secure=over_tls(request.scope),
        )


async def _shown_key(request: Request) -> str:
    """Return the key in the body. Raises RequestError for another body; anybody may send one."""
    body = b""
    try:
        async with asyncio.timeout(READ_S):
            async for piece in request.stream():
                body += piece
                if len(body) > MOST_BYTES:
                    raise RequestError(413, "body_too_large", f"more than {MOST_BYTES} bytes")
        return msgspec.json.decode(body, type=_Shown).key.strip()
    except TimeoutError:
        raise RequestError(408, "body_too_slow", f"no whole body within {READ_S:.0f} s") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ClientDisconnect):
        raise RequestError(
            400, "invalid_body", "the body is no log-in", 'send {"key": "the operator key"}'
        ) from None
