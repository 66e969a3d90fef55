"""The door alone: who passes where, who waits for it, and who never does."""

import asyncio
from typing import Any

import msgspec
import pytest
from starlette.types import Message, Receive, Scope, Send

from appliance.browsers import Browsers, caller_of
from appliance.door import ACCESS, LOCAL_KEY, RELAYED, Door, methods_of
from appliance.failedkeys import MOST_DELAYED, FailedKeys
from appliance.hostcheck import Hosts
from appliance.keys import OPERATOR, Keys
from appliance.metrics import Metrics
from appliance.openai import RelayRoute
from appliance.weblogin import Logins
from tests.appliances import metric

CHAT = "/v1/chat/completions"
LONG_S = 600.0


class Visit:
    """One request at a door, and what it met."""

    def __init__(self, path: str, key: str = "", method: str = "POST", **more: Any) -> None:
        headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
        self.scope: Scope = {
            "type": "http",
            "path": path,
            "method": method,
            "headers": [*headers, *more.pop("headers", [])],
            **more,
        }
        self.sent: list[Message] = []

    async def at(self, door: Door) -> "Visit":
        await door(self.scope, self._receive, self._send)
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"]) if self.sent else 0

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def code(self) -> str:
        return str(msgspec.json.decode(self.sent[1]["body"])["error"]["code"])

    async def _receive(self) -> Message:
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)


class House:
    """A door, and what is behind it: it notes who came in, and where."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.came: list[tuple[str, str]] = []
        self.metrics = Metrics()
        keys = Keys("client-key", "operator-key")
        self.logins = Logins(60, 600)
        failures = FailedKeys(self.metrics, delay_s)
        browsers = Browsers(Hosts(), self.logins)
        self.door = Door(self.app, self.carry, keys, failures, browsers, ("/",))

    async def app(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        self.came.append(("app", scope["path"]))

    async def carry(self, route: RelayRoute, scope: Scope, _receive: Receive, _send: Send) -> None:
        self.came.append(("relay", route.path))


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("path", RELAYED)
async def test_a_model_route_goes_to_the_relay_and_all_else_to_the_application(path: str) -> None:
    house = House()
    await Visit(path, "client-key", RELAYED[path].method).at(house.door)
    await Visit("/metrics", "client-key", "GET").at(house.door)
    assert house.came == [("relay", path), ("app", "/metrics")]


@pytest.mark.parametrize("path", RELAYED)
async def test_no_model_route_is_reached_without_a_key(path: str) -> None:
    house = House()
    for key in ("", "wrong"):
        visit = await Visit(path, key, RELAYED[path].method).at(house.door)
        assert (visit.status, visit.code) == (401, "invalid_api_key")
    assert house.came == []


def test_every_path_of_the_relay_has_its_row_at_the_door() -> None:
    assert set(RELAYED) <= set(ACCESS)


@pytest.mark.parametrize("path", RELAYED)
async def test_a_wrong_method_is_told_the_right_one_and_goes_nowhere(path: str) -> None:
    house = House()
    visit = await Visit(path, "client-key", "DELETE").at(house.door)
    assert (visit.status, visit.code) == (405, "method_not_allowed")
    assert visit.headers[b"allow"].decode().split(", ") == list(methods_of(RELAYED[path]))
    assert house.came == []


async def test_a_refusal_keeps_a_sane_request_id_and_makes_one_for_another() -> None:
    house = House()
    mine = await Visit(CHAT, headers=[(b"x-request-id", b"mine-1")]).at(house.door)
    odd = await Visit(CHAT, headers=[(b"x-request-id", b"two words")]).at(house.door)
    assert mine.headers[b"x-request-id"] == b"mine-1"
    assert odd.headers[b"x-request-id"].startswith(b"req-")


async def test_the_socket_is_the_operators_and_the_first_of_two_keys_counts() -> None:
    house = House()
    local = Visit(CHAT)
    local.scope[LOCAL_KEY] = True
    await local.at(house.door)
    assert caller_of(local.scope) == OPERATOR
    second = [(b"authorization", b"Bearer operator-key")]
    visit = await Visit("/appliance/v1/status", "client-key", "GET", headers=second).at(house.door)
    assert visit.status == 403


# ---- wrong keys


async def test_a_wrong_key_waits_and_a_right_one_beside_it_does_not() -> None:
    house = House(LONG_S)
    bad = asyncio.ensure_future(Visit(CHAT, "wrong").at(house.door))
    await turns()
    await asyncio.wait_for(Visit(CHAT, "client-key").at(house.door), 5)
    assert house.came == [("relay", CHAT)]
    assert not bad.done()
    bad.cancel()
    assert (await bad).sent == []


async def test_a_missing_key_is_no_guess_and_told_at_once() -> None:
    house = House(LONG_S)
    visit = await asyncio.wait_for(Visit(CHAT).at(house.door), 5)
    assert visit.status == 401


async def test_only_so_many_wrong_keys_wait_the_next_is_told_at_once() -> None:
    house = House(LONG_S)
    waiting = [
        asyncio.ensure_future(Visit(CHAT, "wrong").at(house.door)) for _ in range(MOST_DELAYED)
    ]
    await turns()
    visit = await asyncio.wait_for(Visit(CHAT, "wrong").at(house.door), 5)
    assert visit.status == 401
    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting)
    again = asyncio.ensure_future(Visit(CHAT, "wrong").at(house.door))
    await turns()
    assert not again.done()  # the seats are free again
    again.cancel()
    await again


async def test_wrong_and_missing_keys_are_counted_and_right_ones_are_not() -> None:
    house = House()
    for key in ("", "wrong", "client-key"):
        await Visit(CHAT, key).at(house.door)
    assert metric(house.metrics.text().decode(), "appliance_key_failures_total") == 2
