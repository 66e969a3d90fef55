"""The log-in's own routes behind a door: who guesses waits, and over TLS the cookie is bound."""

import asyncio
from http.cookies import SimpleCookie
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Scope

from appliance.browsers import LOGIN_PATH, Browsers
from appliance.door import Door
from appliance.errors import RequestError
from appliance.failedkeys import MOST_DELAYED, FailedKeys
from appliance.hostcheck import Hosts
from appliance.keys import Keys
from appliance.loginroutes import LoginRoutes
from appliance.metrics import Metrics
from appliance.weblogin import Logins
from tests.appliance_tasks import eventually
from tests.appliances import metric

LONG_S = 600.0


def _refused(_request: Request, error: Any) -> Response:
    return Response(status_code=error.http_status)


class House:
    """A door with the log-in behind it."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.metrics, self.logins = Metrics(), Logins(60, 600)
        keys, failures = Keys("client-key", "operator-key"), FailedKeys(self.metrics, delay_s)
        routes = LoginRoutes(self.logins, keys, failures).routes()
        app = Starlette(routes=routes, exception_handlers={RequestError: _refused})
        self.door = Door(app, app, keys, failures, Browsers(Hosts(), self.logins))  # type: ignore[arg-type]

    async def show(
        self, key: str, scheme: str = "http", cookie: str = "", proxied: str = ""
    ) -> tuple[int, Any]:
        """Show a key from a page of ours; return the status and the headers.

        ``proxied`` is the scheme that a proxy in front was asked by.
        """
        sent: list[Message] = []
        seen = (proxied or scheme).partition(",")[0].lower()  # by the browser
        scope: Scope = {
            "type": "http",
            "path": LOGIN_PATH,
            "raw_path": LOGIN_PATH.encode(),
            "query_string": b"",
            "root_path": "",
            "method": "POST",
            "scheme": scheme,
            "headers": [
                (b"host", b"spark:9000"),
                (b"origin", f"{seen}://spark:9000".encode()),
                (b"x-forwarded-proto", proxied.encode()),
                (b"content-type", b"application/json"),
                (b"cookie", cookie.encode()),
            ],
        }

        async def receive() -> Message:
            return {"type": "http.request", "body": msgspec.json.encode({"key": key})}

        async def send(message: Message) -> None:
            sent.append(message)

        await self.door(scope, receive, send)
        return int(sent[0]["status"]) if sent else 0, dict(sent[0]["headers"]) if sent else {}

    async def until_guesses(self, count: int) -> None:
        """Wait until so many wrong keys were counted."""

        async def there() -> bool:
            text = self.metrics.text().decode()
            return metric(text, "appliance_key_failures_total") >= count

        await eventually(there, f"{count} guesses")


async def test_who_guesses_waits_and_the_right_key_beside_it_does_not() -> None:
    house = House(LONG_S)
    guess = asyncio.ensure_future(house.show("wrong"))
    await house.until_guesses(1)
    status, _ = await asyncio.wait_for(house.show("operator-key"), 5)
    assert status == 200
    assert not guess.done()
    guess.cancel()
    await asyncio.wait([guess])


async def test_only_so_many_guesses_wait_at_once() -> None:
    house = House(LONG_S)
    waiting = [asyncio.ensure_future(house.show("wrong")) for _ in range(MOST_DELAYED)]
    await house.until_guesses(MOST_DELAYED)
    status, _ = await asyncio.wait_for(house.show("wrong"), 5)
    assert status == 401
    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


@pytest.mark.parametrize(
    "asked", [{"scheme": "https"}, {"proxied": "https"}, {"proxied": "HTTPS, http"}]
)
async def test_over_tls_the_cookie_is_bound_to_the_host_and_to_tls(asked: dict[str, str]) -> None:
    _, headers = await House().show("operator-key", **asked)
    ((name, cookie),) = SimpleCookie(headers[b"set-cookie"].decode()).items()
    assert name == "__Host-unglitched-login-9000"
    assert cookie["secure"]
    assert cookie["httponly"]
    assert (cookie["samesite"], cookie["path"], cookie["domain"]) == ("strict", "/", "")


async def test_a_second_log_in_of_the_same_browser_ends_the_first() -> None:
    house = House()
    _, headers = await house.show("operator-key")
    cookie = headers[b"set-cookie"].decode().partition(";")[0]
    await house.show("operator-key", cookie=cookie)
    assert len(house.logins) == 1
