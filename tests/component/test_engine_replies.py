"""An engine whose bytes are scripted: what the relay makes of replies that no sane engine gives."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from appliance.probes import WARMUP_ANSWER
from tests.appliance_tasks import Appliance, StartAppliance
from tests.appliances import CHAT, attached_to
from tests.engines import MODEL

SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
PIECE = b'data: {"choices":[{"index":0,"delta":{"reasoning":"hm"},"finish_reason":null}]}\n\n'
FAULT = b'data: {"error":{"message":"EngineCore died","type":"InternalServerError","code":500}}\n\n'
REFUSAL = b'data: {"error":{"message":"too long","type":"BadRequestError","code":400}}\n\n'
ABORT = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"abort"}]}\n\n'


def plain(status: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return SSE + body + (b"0\r\n\r\n" if end else b"")


def as_json(value: Any) -> bytes:
    return plain("200 OK", json.dumps(value).encode())


@dataclass
class Script:
    """An engine that answers what generates with ``reply``, byte for byte, and then closes."""

    url: str = ""
    reply: bytes = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            if "content-length: " in head:
                length = head.partition("content-length: ")[2].split()[0]
                await reader.readexactly(int(length))
            writer.write(self.answer(head.split()[1]))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the appliance left
        finally:
            writer.close()

    def answer(self, path: str) -> bytes:
        if path == "/health":
            return plain("200 OK", b"")
        if path == "/v1/models":
            return as_json({"data": [{"id": MODEL, "max_model_len": 8192}]})
        if path == "/metrics":
            return plain("200 OK", b"", "text/plain")
        return self.reply


@asynccontextmanager
async def scripted() -> AsyncIterator[Script]:
    script = Script(reply=as_json({"choices": [{"message": {"content": WARMUP_ANSWER}}]}))
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    async with server:
        script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield script


@pytest.fixture
async def script(start: StartAppliance) -> AsyncIterator[tuple[Script, Appliance]]:
    async with scripted() as engine:
        box = await start(**attached_to(engine.url, "key"))
        yield engine, box
        await box.end()


async def read(box: Appliance) -> tuple[bytes, bool]:
    """Return what came of a stream, and whether it ended well."""
    body = b""
    try:
        async with box.client.stream("POST", CHAT, json={"messages": [], "stream": True}) as reply:
            assert reply.status_code == 200
            async for part in reply.aiter_raw():
                body += part
    except httpx.RemoteProtocolError:
        return body, False
    return body, True


Scripted = tuple[Script, Appliance]


@pytest.mark.parametrize(
    "pieces",
    [(PIECE, FAULT, DONE), (PIECE + FAULT, DONE), (PIECE, ABORT, DONE), (FAULT,)],
    ids=["an error event", "in one chunk", "an abort", "at once"],
)
async def test_an_engine_that_reports_its_own_failure_is_broken_off(
    script: Scripted, pieces: tuple[bytes, ...]
) -> None:
    engine, box = script
    engine.reply = chunked(*pieces)
    body, ended_well = await read(box)
    assert not ended_well
    assert b"[DONE]" not in body
    assert b"EngineCore" not in body
    assert await box.metric("appliance_requests_total", outcome="broken") == 1


async def test_a_refusal_in_mid_stream_passes(script: Scripted) -> None:
    engine, box = script
    engine.reply = chunked(PIECE, REFUSAL, DONE)
    body, ended_well = await read(box)
    assert ended_well
    assert REFUSAL in body
    assert body.endswith(DONE)


@pytest.mark.parametrize("end", [True, False], ids=["ended", "torn"])
async def test_a_stream_is_whole_only_if_the_engine_ended_it(script: Scripted, end: bool) -> None:
    engine, box = script
    engine.reply = chunked(PIECE, DONE, end=end)
    body, ended_well = await read(box)
    assert ended_well is end
    assert b'"reasoning_content":"hm"' in body


@pytest.mark.parametrize("size", [1, 7, 64])
async def test_events_cut_anywhere_arrive_whole_and_aliased(script: Scripted, size: int) -> None:
    engine, box = script
    stream = PIECE + b": a comment\n\n" + PIECE.replace(b"\n\n", b"\r\n\r\n") + DONE
    engine.reply = chunked(*(stream[i : i + size] for i in range(0, len(stream), size)))
    body, ended_well = await read(box)
    assert ended_well
    assert body.count(b'"reasoning_content":"hm"') == 2
    assert b": a comment\n\n" in body
    assert body.endswith(DONE)


@pytest.mark.parametrize(
    "reply",
    [b"", b"HTTP/1.1 200", b"SSH-2.0-OpenSSH\r\n", plain("200 OK", b"{}")[:-1]],
    ids=["nothing", "half a head", "another protocol", "half a body"],
)
async def test_a_reply_that_is_none_is_a_502(script: Scripted, reply: bytes) -> None:
    engine, box = script
    engine.reply = reply
    refused = await box.ask()
    assert refused.status_code == 502
    assert refused.json()["error"]["code"] == "upstream_error"
    assert await box.metric("appliance_requests_total", outcome="failed") == 1


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (plain("500 Internal Server Error", b"Internal Server Error", "text/plain"), 500),
        (plain("404 Not Found", b'{"detail":"Not Found"}'), 404),
        (plain("503 Service Unavailable", b""), 503),
        (plain("400 Bad Request", b'{"error":{"message":"m","type":"t","code":400}}'), 400),
        (plain("422 Unprocessable Entity", b'{"detail":[{"msg":"m"}]}'), 422),
    ],
)
async def test_any_error_of_the_engine_has_the_one_shape_and_its_own_status(
    script: Scripted, reply: bytes, status: int
) -> None:
    engine, box = script
    engine.reply = reply
    for path, asked in (
        (CHAT, {"messages": []}),
        ("/v1/messages", {"messages": [], "max_tokens": 1}),
    ):
        refused = await box.client.post(path, json=asked)
        assert refused.status_code == status
        assert refused.json()["error"]["message"]
        assert (refused.json().get("type") == "error") is (path != CHAT)


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_the_engines_refusal_of_our_key_is_not_the_clients_fault(
    script: Scripted, status: str
) -> None:
    engine, box = script
    engine.reply = plain(status, b'{"error":"Unauthorized"}')
    refused = await box.ask()
    assert refused.status_code == 502
    assert "APPLIANCE_ENGINE_KEY" in refused.json()["error"]["message"]


async def test_an_engine_that_is_gone_is_a_502(start: StartAppliance) -> None:
    async with scripted() as engine:
        box = await start(**attached_to(engine.url, "key"))
    refused = await box.ask()  # before the next look at its health
    assert refused.status_code in (502, 503)
    assert refused.json()["error"]["message"]
    await box.until("unreachable")
