"""A hostile wire: what is odd, too large, too slow, or sent again, to the worker's door."""

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.cluster.identity import pinned
from appliance.cluster.joindesk import JoinDesk
from appliance.cluster.membership import HeadKept, Kept, digest_of
from appliance.cluster.node import Node
from appliance.cluster.nodeclient import NodeClient
from appliance.cluster.peer import Exited, Idle, OrderRefused
from appliance.cluster.wire import (
    FACTS,
    JOIN,
    MOST_BYTES,
    SPAWN,
    STATE,
    STOP,
    JoinAsk,
    Look,
    SpawnAsk,
    StateReply,
    StopAsk,
    encode,
)
from appliance.httpserver import ClientProtocol
from tests.nodes import KEY, TERMS, PlainEngine, Worker, an_order, worker

ROUTES = (FACTS, JOIN, SPAWN, STATE, STOP)
HONEST = {
    JOIN: JoinAsk("head", "00" * 32, "00" * 32),
    SPAWN: SpawnAsk(1, an_order()),
    STATE: Look(),
    STOP: StopAsk(0, 1.0),
}
ODD: tuple[Any, ...] = (None, True, -1, 0, 1.5, 2**63, 2**200, "", "é", "x" * 5000, [], {}, [[]])


def client(box: Worker, key: str = KEY) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"https://{box.address}",
        headers={"authorization": f"Bearer {key}"} if key else {},
        verify=pinned(box.certificate),
        trust_env=False,
        timeout=20,
    )


def mutations(route: str) -> list[bytes]:
    """Return an honest message with each of its values odd in turn, or gone, or more beside."""
    whole = json.loads(encode(HONEST[route]))
    made = [{**whole, "argv": ["sh"]}, *([value] for value in ODD)]
    for name in whole:
        made.append({k: v for k, v in whole.items() if k != name})
        made.extend({**whole, name: odd} for odd in ODD)
    if route == SPAWN:
        order = whole["order"]
        made.extend({"serial": 1, "order": {**order, n: o}} for n in order for o in ODD)
        for more in ("argv", "env", "command", "model_dir", "path"):
            made.append({"serial": 1, "order": {**order, more: ["sh", "-c", "true"]}})
    return [json.dumps(value).encode() for value in made]


@pytest.mark.parametrize("route", sorted(HONEST))
async def test_an_odd_value_is_refused_and_nothing_is_done(tmp_path: Path, route: str) -> None:
    honest = json.loads(encode(HONEST[route]))
    async with worker(tmp_path) as box, client(box) as http:
        for body in mutations(route):
            answer = await http.post(route, content=body)
            told = answer.json()
            if answer.status_code == 200:  # an odd value that is none: a default that was left out
                assert route in (STATE, STOP, SPAWN), body
                assert set(json.loads(body)) <= set(honest), body
            else:
                assert answer.status_code in (400, 403, 409, 429), (body, answer.text)
                assert set(told) == {"code", "what", "hint"}
        for order in box.engine.orders:  # the values left out have defaults, and no other was taken
            assert msgspec.structs.replace(
                order, max_model_len=None, max_num_seqs=None, kv_bytes=None
            ) in (an_order(), msgspec.structs.replace(an_order(), spawn=order.spawn))


@pytest.mark.parametrize("route", ROUTES)
async def test_what_is_no_json_is_refused(tmp_path: Path, route: str) -> None:
    bodies = (b"", b"{", b"\xff\xfe", b"\0" * 100, b"[" * 60_000, b'"' * 1000, b'{"a":' * 9000)
    async with worker(tmp_path) as box, client(box) as http:
        for body in bodies:
            answer = await http.post(route, content=body)
            if route == FACTS:  # which reads no body
                assert answer.status_code == 200
            else:
                assert (answer.status_code, answer.json()["code"]) == (400, "bad_message")
        assert box.engine.orders == []


@pytest.mark.parametrize("key", ["", "x", "é" * 10, KEY[:-1], f"{KEY}0", KEY.upper()])
async def test_without_the_key_nothing_but_a_join_is_heard(tmp_path: Path, key: str) -> None:
    sent = f"Bearer {key}".encode()
    async with worker(tmp_path) as box, client(box, "") as http:
        for route in (FACTS, SPAWN, STATE, STOP, "/", "/metrics", "/health", "/node/v1/other"):
            for method in ("POST", "GET", "DELETE"):
                headers = [(b"authorization", sent)] if key else []
                answer = await http.request(method, route, headers=headers, content=b"{}")
                assert (answer.status_code, answer.json()["code"]) == (401, "wrong_cluster_key")
        assert box.engine.orders == []


async def test_a_body_that_is_too_large_is_cut_short_whoever_sends_it(tmp_path: Path) -> None:
    async def endless() -> Any:
        for _ in range(64):
            yield b" " * MOST_BYTES

    large = b" " * (MOST_BYTES + 1)
    async with worker(tmp_path) as box, client(box) as http, client(box, "") as nobody:
        assert await status_of(http, SPAWN, large) in (413, CUT)
        assert await status_of(http, SPAWN, endless()) in (413, CUT)
        assert await status_of(nobody, SPAWN, large) in (401, CUT)
        assert await status_of(nobody, JOIN, large) in (413, CUT)
        assert await status_of(http, STATE, b"{}") == 200
        assert box.engine.orders == []


CUT = 0  # the worker hung up while we were sending


async def status_of(http: httpx.AsyncClient, path: str, body: Any) -> int:
    try:
        return (await http.post(path, content=body)).status_code
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        return CUT


class Impatient(ClientProtocol):
    """Waits for a head, and for more of a body, for a moment alone."""

    head_s = 0.2
    body_s = 0.2


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /node/v1/join HTTP/1.1\r\nhost: a\r\nx-slow: ",
        b"POST /node/v1/join HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{",
    ],
)
async def test_who_is_slow_loses_the_connection(tmp_path: Path, sent: bytes) -> None:
    async with worker(tmp_path, http=Impatient) as box:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", box.port, ssl=pinned(box.certificate)
        )
        writer.write(sent)
        async with asyncio.timeout(20):
            await reader.read()  # to its end
        writer.close()


async def test_plain_http_and_old_tls_get_no_answer(tmp_path: Path) -> None:
    async with worker(tmp_path) as box:
        async with httpx.AsyncClient(trust_env=False) as http:
            with pytest.raises(httpx.HTTPError):
                await http.get(f"http://{box.address}{STATE}")
        old = pinned(box.certificate)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(OSError):  # noqa: PT011 - an alert, or a connection that was reset
            await asyncio.open_connection("127.0.0.1", box.port, ssl=old)


# ---- sent again


async def test_a_recorded_life_sent_again_in_any_order_changes_nothing(tmp_path: Path) -> None:
    recorded: list[tuple[str, bytes]] = []

    async def record(request: httpx.Request) -> None:
        recorded.append((request.url.path, request.content))

    async with worker(tmp_path) as box:
        async with NodeClient(box.known()) as peer:
            peer._http.event_hooks["request"].append(record)
            for spawn in (1, 2):
                await peer.spawn(an_order(spawn))
                await peer.stop(spawn, grace_s=1)
            await peer.facts()
        assert {path for path, _ in recorded} == {FACTS, SPAWN, STATE, STOP}
        ended, head, orders = box.engine.state, box.node.head, list(box.engine.orders)
        assert isinstance(ended, Exited)
        async with client(box) as http:
            for path, body in (*recorded, *reversed(recorded), *sorted(recorded)):
                answer = await http.post(path, content=body)
                if path == SPAWN:
                    assert (answer.status_code, answer.json()["code"]) == (409, "old_order")
        assert (box.engine.state, box.node.head, box.engine.orders) == (ended, head, orders)


async def test_an_order_is_old_after_the_worker_was_started_anew_too(tmp_path: Path) -> None:
    first = encode(SpawnAsk(1, an_order()))
    async with worker(tmp_path) as box, client(box) as http:
        assert (await http.post(SPAWN, content=first)).status_code == 200
    async with worker(tmp_path) as box, client(box) as http:
        answer = await http.post(SPAWN, content=first)
        assert (answer.status_code, answer.json()["code"]) == (409, "old_order")
        assert box.engine.state == Idle()
        await http.post(SPAWN, content=encode(SpawnAsk(2, an_order(2))))
        assert [order.spawn for order in box.engine.orders] == [2]


ASKS = st.one_of(
    st.builds(SpawnAsk, st.integers(0, 6), st.integers(1, 4).map(an_order)),
    st.builds(StopAsk, st.integers(0, 6), st.just(0.0)),
)


class Unmoved(PlainEngine):
    """An engine part without a process."""

    async def spawn(self, order: Any) -> None:
        self.orders.append(order)

    async def stop(self, *, grace_s: float) -> None:
        """Nothing runs."""


class Unkept(Kept):
    """A state folder that is a variable."""

    def __init__(self) -> None:
        super().__init__(Path("unused"))
        self.now = HeadKept("head", digest_of(KEY))

    def head(self) -> HeadKept | None:
        return self.now

    def keep_head(self, head: HeadKept) -> None:
        self.now = head


@given(st.lists(ASKS, max_size=30))
def test_in_any_history_each_serial_is_obeyed_once_and_they_ascend(
    asks: list[SpawnAsk | StopAsk],
) -> None:
    async def obeyed() -> list[int]:
        engine, serials = Unmoved(), []
        node = Node(engine, Unkept(), JoinDesk(b"", bytes), TERMS)
        for ask in asks:
            before = len(engine.orders)
            try:
                reply = await (node.spawn(ask) if isinstance(ask, SpawnAsk) else node.stop(ask))
            except OrderRefused:
                assert len(engine.orders) == before
            else:
                assert isinstance(reply, StateReply)
                if isinstance(ask, SpawnAsk):
                    serials.append(ask.serial)
        return serials

    serials = asyncio.run(obeyed())
    assert serials == list(range(1, len(serials) + 1))
