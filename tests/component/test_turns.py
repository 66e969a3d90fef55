"""Large bodies pass in pieces, and the loop has a turn for others between two of them."""

import asyncio
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from appliance.connection import JOIN_LIMIT, WRITE_BYTES, Connection
from appliance.httpserver import TURN_BYTES, ClientProtocol

HEAD = b"POST / HTTP/1.1\r\n\r\n"


class Told(asyncio.Transport):
    """A transport that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_paused = self.is_over = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def is_closing(self) -> bool:
        return self.is_over

    def close(self) -> None:
        self.is_over = True

    def abort(self) -> None:
        self.is_over = True


def connected() -> tuple[Connection, Told, list[Connection]]:
    idle: list[Connection] = []
    told, connection = Told(), Connection(idle.append, lambda _: None)
    connection.connection_made(told)
    return connection, told, idle


async def test_a_long_body_is_written_a_piece_a_turn() -> None:
    connection, told, _ = connected()
    body = bytes(range(256)) * (3 * WRITE_BYTES // 256) + b"end"
    connection.begin(HEAD, body)
    for turn in range(1, 5):
        assert sum(map(len, told.written)) == len(HEAD) + min(turn * WRITE_BYTES, len(body))
        await asyncio.sleep(0)
    assert b"".join(told.written) == HEAD + body
    assert max(map(len, told.written)) <= WRITE_BYTES


async def test_a_short_body_leaves_with_its_head() -> None:
    connection, told, _ = connected()
    connection.begin(HEAD, b"x" * JOIN_LIMIT)
    assert told.written == [HEAD + b"x" * JOIN_LIMIT]


async def test_a_connection_is_kept_only_if_the_whole_body_was_written() -> None:
    for turns, is_kept in ((0, False), (2, True)):
        connection, told, idle = connected()
        reply = connection.begin(HEAD, bytes(2 * WRITE_BYTES))
        for _ in range(turns):
            await asyncio.sleep(0)
        connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        reply.close()
        assert (bool(idle), told.is_over) == (is_kept, not is_kept)
        await asyncio.sleep(0)
        assert is_kept or sum(map(len, told.written)) == len(HEAD) + WRITE_BYTES


async def test_of_a_large_body_no_more_than_one_read_is_taken_in_a_turn() -> None:
    got: list[int] = []

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            got.append(len(message["body"]))

    protocol = ClientProtocol(uvicorn.Config(app, log_config=None), ServerState(), {})
    told = Told()
    protocol.connection_made(told)
    length = 3 * TURN_BYTES + 1
    protocol.data_received(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % length)
    for _ in range(3):
        await asyncio.sleep(0)
        assert not told.is_paused
        protocol.data_received(b"x" * TURN_BYTES)
        assert told.is_paused
        await asyncio.sleep(0)
        assert not told.is_paused
    protocol.data_received(b"x")
    assert not told.is_paused
    await asyncio.sleep(0)
    assert got == [length]
    protocol.connection_lost(None)
    await asyncio.sleep(0)
