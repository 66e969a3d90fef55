"""The worker's door: HTTP messages to a ``Node``. Pure ASGI.

Without the head's key nothing but a join is heard, and of a body no more than it may be.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from starlette.types import Receive, Scope, Send

from appliance.cluster.node import Node
from appliance.cluster.peer import PeerError, Value
from appliance.cluster.wire import (
    FACTS,
    JOIN,
    MOST_BYTES,
    SPAWN,
    STATE,
    STOP,
    FactsReply,
    JoinAsk,
    Look,
    SpawnAsk,
    StopAsk,
    decode,
    encode,
    refusal_of,
)
from appliance.errors import ApplianceError
from appliance.keys import bearer

log = structlog.get_logger()

WRONG_KEY_S: Final = 1.0  # by which an answer to a wrong key is late
MOST_LATE = 16
_NO_KEY = "this node takes orders from its head alone, by the key of their join"


class _Answer(PeerError):
    """An answer of HTTP's own: no such path, too large a body, no key."""

    def __init__(self, status: int, code: str, what: str, hint: str) -> None:
        super().__init__(what, hint, code=code)
        self.http_status = status


class NodeServer:
    """The ASGI application over one node."""

    def __init__(self, node: Node, wrong_key_s: float = WRONG_KEY_S) -> None:
        self._node = node
        self._wrong_key_s = wrong_key_s
        self._late = 0
        self._routes: dict[str, Callable[[bytes], Awaitable[Value]]] = {
            JOIN: self._join,
            FACTS: self._facts,
            STATE: self._state,
            SPAWN: self._spawn,
            STOP: self._stop,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        try:
            status, reply = 200, await self._answer(scope, receive)
        except _Answer as error:
            status, reply = error.http_status, refusal_of(error)
        except ApplianceError as error:
            status, reply = error.status, refusal_of(error)
        except _HungUp:
            return
        body = encode(reply)
        size = str(len(body)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", size)]
        if status in (401, 413):  # what is left of the body is not read
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Value:
        path = scope["path"]
        if path != JOIN:
            await self._check(scope)
        route = self._routes.get(path)
        if route is None:
            raise _Answer(404, "not_found", "there is no such order", "look at the versions")
        if scope["method"] != "POST":
            raise _Answer(405, "method_not_allowed", "orders are POSTed", "use POST")
        return await route(await _body(receive))

    async def _check(self, scope: Scope) -> None:
        given = next((v for k, v in scope["headers"] if k == b"authorization"), b"")
        if self._node.knows(bearer(given.decode("latin-1"), None)):
            return
        if given and self._late < MOST_LATE:
            self._late += 1
            try:
                await asyncio.sleep(self._wrong_key_s)
            finally:
                self._late -= 1
        hint = "on the head: appliance cluster join"
        raise _Answer(401, "wrong_cluster_key", _NO_KEY, hint)

    async def _join(self, body: bytes) -> Value:
        return self._node.join(decode(body, JoinAsk))

    async def _facts(self, _body: bytes) -> Value:
        return FactsReply(await self._node.facts(), time.time())

    async def _state(self, body: bytes) -> Value:
        return await self._node.look(decode(body, Look))

    async def _spawn(self, body: bytes) -> Value:
        return await self._node.spawn(decode(body, SpawnAsk))

    async def _stop(self, body: bytes) -> Value:
        return await self._node.stop(decode(body, StopAsk))


class _HungUp(Exception):
    """The client left in the middle of its body."""


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _HungUp
        body += message.get("body", b"")
        if len(body) > MOST_BYTES:
            what = f"a message has at most {MOST_BYTES} bytes"
            raise _Answer(413, "too_large", what, "look at the versions")
        if not message.get("more_body"):
            return bytes(body)
