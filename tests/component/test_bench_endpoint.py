"""The path benchmark's endpoint: when it asks again, and what it says when it gives up."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from appliance.bench.endpoint import Endpoint
from appliance.bench.score import Said
from appliance.errors import HostError

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ANSWER = json.dumps({"choices": [{"message": {"content": "/a"}}], "usage": {"prompt_tokens": 7}})
TORN = b""


def reply(status: int, body: str = "{}", **headers: str) -> bytes:
    data = body.encode()
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(data)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + data


GOOD = reply(200, ANSWER)


class Box:
    """An endpoint that plays its replies, the last one for ever, and its client.

    ``slept`` holds how long the client waited between two tries; it does not really wait.
    """

    def __init__(self, replies: Iterator[bytes]) -> None:
        self.replies = replies
        self.requests = 0
        self.slept: list[float] = []
        self.endpoint: Endpoint

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length or 0))
        self.requests += 1
        writer.write(next(self.replies))
        await writer.drain()
        writer.close()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def ask(self) -> tuple[Said | None, int | None]:
        told = await self.endpoint.ask({"model": "m"}, {"x-appliance-prompt": "on"})
        return told.said, told.prompt_tokens


def play(*replies: bytes) -> Iterator[bytes]:
    yield from replies
    while True:
        yield replies[-1]


@asynccontextmanager
async def box(*replies: bytes, patience_s: float = 900.0) -> AsyncIterator[Box]:
    here = Box(play(*replies))
    server = await asyncio.start_server(here.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with (
        server,
        Endpoint(url, "key", NO_TLS, patience_s=patience_s, sleep=here.sleep) as endpoint,
    ):
        here.endpoint = endpoint
        yield here


async def failing(work: Callable[[], Awaitable[object]]) -> HostError:
    with pytest.raises(HostError) as raised:
        await work()
    return raised.value


async def test_an_answer_is_taken_at_once() -> None:
    async with box(GOOD) as here:
        assert await here.ask() == (Said("/a"), 7)
        assert (here.requests, here.slept) == (1, [])


@pytest.mark.parametrize("status", [429, 503])
async def test_who_says_when_to_come_back_is_asked_again_then(status: int) -> None:
    async with box(reply(status, retry_after="7"), reply(status, retry_after="0"), GOOD) as here:
        assert await here.ask() == (Said("/a"), 7)
        assert here.slept == [7.0, 0.0]


async def test_a_wish_for_hours_is_cut_to_a_minute() -> None:
    async with box(reply(429, retry_after="86400"), GOOD) as here:
        await here.ask()
        assert here.slept == [60.0]


@pytest.mark.parametrize("trouble", [TORN, reply(500), reply(502), reply(503), reply(504)])
async def test_trouble_that_may_pass_is_waited_out_longer_each_time(trouble: bytes) -> None:
    async with box(trouble, trouble, trouble, GOOD) as here:
        assert await here.ask() == (Said("/a"), 7)
        assert here.slept == [1.0, 2.0, 4.0]


async def test_trouble_that_does_not_pass_ends_with_the_way_to_go_on() -> None:
    busy = reply(503, '{"error": {"message": "loading", "code": "engine_not_ready"}}')
    async with box(busy, patience_s=0.5) as here:
        error = await failing(here.ask)
        assert "status 503: loading (engine_not_ready)" in error.what
        assert "--resume" in error.hint
        assert here.slept == []  # the next try would have come too late


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply(401, '{"error": "Unauthorized"}'), "refuses the key (401): Unauthorized"),
        (reply(403), "refuses the key (403)"),
        (reply(404, '{"error": {"message": "no m", "code": "model_not_found"}}'), "does not know"),
        (reply(400, '{"error": {"message": "no tools", "code": "x"}}'), "refused a question with"),
        (reply(200, "<html>"), "not as OpenAI's API does"),
        (reply(200, '{"choices": []}'), "not as OpenAI's API does"),
        (reply(200, "[]"), "not as OpenAI's API does"),
        (reply(302, "", location="http://elsewhere"), "refused a question with 302"),
    ],
)
async def test_what_will_not_get_better_is_told_at_once(answer: bytes, words: str) -> None:
    async with box(answer) as here:
        error = await failing(here.ask)
        assert words in error.what
        assert "--" in error.hint
        assert here.requests == 1


async def test_a_prompt_that_does_not_fit_is_an_answer() -> None:
    long = '{"error": {"message": "longer than the context length", "code": "x"}}'
    async with box(reply(400, long)) as here:
        assert await here.ask() == (None, None)


# ---- the list of models


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (reply(200, '{"data": [{"id": "a"}, {"id": "b"}]}'), ["a", "b"]),
        (reply(404), []),
        (reply(405), []),
    ],
)
async def test_the_models_are_listed_where_there_is_a_list(answer: bytes, names: list[str]) -> None:
    async with box(answer) as here:
        assert await here.endpoint.models() == names


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (TORN, "nobody answers at"),
        (reply(401), "refuses the key"),
        (reply(200, "<html>"), "not as OpenAI's API does"),
        (reply(503, '{"error": "x"}'), "is not ready (503): x"),
    ],
)
async def test_an_address_that_is_no_api_is_told_before_anything_is_asked(
    answer: bytes, words: str
) -> None:
    async with box(answer) as here:
        assert words in (await failing(here.endpoint.models)).what


def test_a_key_that_cannot_travel_is_refused() -> None:
    with pytest.raises(HostError, match="not plain ASCII"):
        Endpoint("http://box", "schlüssel", NO_TLS)
