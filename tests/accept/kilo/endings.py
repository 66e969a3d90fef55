"""An endpoint that breaks its first answer off, and gives the second and third whole."""

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
PATH, TEXT = "a file.txt", "hello there\n"
GAP_S = 0.15  # Bun forgets what Kilo has not read yet when the connection breaks
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunk(finish: str | None = None, **delta: Any) -> bytes:
    """Return one chunk."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    told = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "Nikola"}
    return b"data: " + json.dumps({**told, "choices": [choice]}).encode() + b"\n\n"


def thought(text: str) -> bytes:
    """Return a piece of a thought under both names, as the appliance sends it."""
    return chunk(reasoning=text, reasoning_content=text)


def call(number: int) -> list[bytes]:
    """Return a call in its first chunk and six pieces."""
    function = {"name": "write", "arguments": ""}
    whole = json.dumps({"filePath": PATH, "content": TEXT})
    size = -(-len(whole) // 6)
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    first = {"index": 0, "id": f"call-{number}", "type": "function", "function": function}
    rest = [{"index": 0, "function": {"arguments": piece}} for piece in pieces]
    return [chunk(tool_calls=[part]) for part in (first, *rest)]


THOUGHT = [thought("I have "), thought("begun "), thought("to think.")]
WORDS = [chunk(content="I have "), chunk(content="begun "), chunk(content="to talk.")]
WINDOWS = {
    "before a word": [],
    "in thought": THOUGHT,
    "in text": THOUGHT + WORDS,
    "in a call": THOUGHT + call(1)[:4],
}
WHOLE = [thought("I will write."), *call(2), chunk("tool_calls"), DONE]
LAST = [chunk(content="Done: the file is there."), chunk("stop"), DONE]
ERROR = {"message": "the engine failed; say: go on", "code": 503}
# what follows the window; None: the connection is broken off, as told by the ending's name
ENDINGS: dict[str, list[bytes] | None] = {
    "broken off": None,
    "reset": None,
    "an end without a reason": [],
    "length": [chunk("length"), DONE],
    "tool_calls": [chunk("tool_calls"), DONE],
    "an error event": [b"data: " + json.dumps({"error": ERROR}).encode() + b"\n\n"],
    "the answer anew": [piece.replace(b"chatcmpl-1", b"chatcmpl-2") for piece in WHOLE],
}


@dataclass
class Endpoint:
    """What is played to the next session, and the messages of each request that came of it."""

    port: int = 0
    window: str = ""
    ending: str = ""
    asked: list[list[Json]] = field(default_factory=list)

    def play(self, window: str, ending: str) -> None:
        """Break the next answer off in this window, with this ending."""
        self.window, self.ending, self.asked = window, ending, []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client, until it or we end the connection."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        body = json.loads(await reader.readexactly(size))
        writer.write(HEAD)
        if not body.get("tools"):  # the title
            return await _send(writer, LAST)
        self.asked.append(body["messages"])
        if len(self.asked) > 1:
            wrote = any(message["role"] == "tool" for message in body["messages"][-1:])
            failed = wrote and "Invalid" in str(body["messages"][-1]["content"])
            return await _send(writer, LAST if wrote and not failed else WHOLE)
        for piece in (chunk(role="assistant", content=""), *WINDOWS[self.window]):
            writer.write(_framed(piece))
            await asyncio.sleep(GAP_S)
        if (rest := ENDINGS[self.ending]) is not None:
            return await _send(writer, rest)
        if self.ending == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        return False


async def _send(writer: asyncio.StreamWriter, pieces: list[bytes]) -> bool:
    for piece in pieces:
        writer.write(_framed(piece))
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


def _framed(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """Run an endpoint in a thread of its own."""
    told = Endpoint()
    loop = asyncio.new_event_loop()
    start = asyncio.start_server(told.serve, "127.0.0.1", 0, limit=1 << 22)
    server = loop.run_until_complete(start)
    told.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield told
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)
        server.close()
        for task in (tasks := asyncio.all_tasks(loop)):
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks))
        loop.run_until_complete(server.wait_closed())
        loop.close()
