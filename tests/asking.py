"""How tests ask an engine, and how they read what it says. Real sockets, greedy requests."""

import json
import socket
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from appliance import probes
from tests.engines import MODEL, EngineHandle, wait_until

Json = dict[str, Any]
GREETING = [probes.user(probes.GREETING)]
# The least body of each route that generates, without the model.
GREETING_BODIES: dict[str, Json] = {
    "/v1/chat/completions": {"messages": GREETING},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/responses": {"input": probes.GREETING},
    "/v1/messages": {"messages": GREETING, "max_tokens": 100},
}
LONG = {"max_tokens": 1500, "ignore_eos": True}


def body(route: str, **more: Any) -> Json:
    """Return a greedy greeting for this route, with these fields on top."""
    return {"model": MODEL, "temperature": 0, **GREETING_BODIES[route], **more}


def ask(client: httpx.Client, route: str, **more: Any) -> Any:
    """Return the whole answer."""
    response = client.post(route, json=body(route, **more))
    assert response.status_code == 200, response.text
    return response.json()


def chat(client: httpx.Client, **more: Any) -> Any:
    """Return a whole chat completion."""
    return ask(client, "/v1/chat/completions", **more)


def stream(client: httpx.Client, route: str, **more: Any) -> list[tuple[str, str]]:
    """Return the events of a stream as (event, data)."""
    with client.stream("POST", route, json=body(route, stream=True, **more)) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert "content-length" not in response.headers
        text = "".join(response.iter_text())
    assert text.endswith("\n\n")
    return [parse_event(block) for block in text.removesuffix("\n\n").split("\n\n")]


def parse_event(block: str) -> tuple[str, str]:
    """Split one event into its name and its data."""
    fields = dict(line.split(": ", 1) for line in block.split("\n"))
    return fields.get("event", ""), fields["data"]


def chat_chunks(client: httpx.Client, **more: Any) -> list[Json]:
    """Return the chunks of a chat stream; it must end with DONE."""
    events = stream(client, "/v1/chat/completions", **more)
    assert events[-1] == ("", "[DONE]")
    assert {name for name, _ in events} == {""}
    return [json.loads(data) for _, data in events[:-1]]


def typed_events(client: httpx.Client, route: str, **more: Any) -> list[Json]:
    """Return the events of a stream whose event names repeat the type in the data."""
    events = [(name, json.loads(data)) for name, data in stream(client, route, **more)]
    assert [name for name, _ in events] == [data["type"] for _, data in events]
    return [data for _, data in events]


def deltas(chunks: list[Json]) -> list[Json]:
    """Return the deltas of a chat stream."""
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


def load(engine: EngineHandle) -> tuple[float, float]:
    """Return how many requests run and wait."""
    return metric(engine, "vllm:num_requests_running"), metric(engine, "vllm:num_requests_waiting")


def metric(engine: EngineHandle, name: str) -> float:
    """Return the sum over a metric's samples."""
    text = httpx.get(f"{engine.base_url}/metrics", timeout=30, trust_env=False).text
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    values = [sample.value for sample in samples if sample.name == name]
    assert values, f"no {name} in /metrics"
    return sum(values)


def wait_idle(engine: EngineHandle) -> None:
    """Wait until nothing runs and nothing waits."""
    wait_until(lambda: load(engine) == (0, 0), 20, "nothing to run and nothing to wait")


def open_request(
    engine: EngineHandle, route: str, *, timeout_s: float = 60.0, **more: Any
) -> socket.socket:
    """Send a request on a socket of its own, which the test closes when it likes."""
    content = json.dumps(body(route, **more)).encode()
    host, _, port = engine.base_url.removeprefix("http://").partition(":")
    sock = socket.create_connection((host, int(port)), timeout=timeout_s)
    head = [f"POST {route} HTTP/1.1", f"Host: {host}:{port}", "Content-Type: application/json"]
    head += [f"Authorization: Bearer {engine.key}", f"Content-Length: {len(content)}"]
    sock.sendall("\r\n".join([*head, "", ""]).encode() + content)
    return sock


def read_until(sock: socket.socket, mark: bytes) -> bytes:
    """Read until ``mark`` has come, or the end."""
    read = b""
    while mark not in read and (data := sock.recv(65536)):
        read += data
    return read


def read_all(sock: socket.socket) -> bytes:
    """Read until the peer closes."""
    read = b""
    while data := sock.recv(65536):
        read += data
    return read


def read_head(sock: socket.socket) -> bytes:
    """Read the head of an answer, and no further."""
    read = b""
    while not read.endswith(b"\r\n\r\n"):
        read += sock.recv(1)
    return read


def read_until_quiet(sock: socket.socket) -> tuple[bytes, bool]:
    """Read until nothing comes for the socket's timeout; say whether the peer closed instead."""
    read = b""
    try:
        while data := sock.recv(65536):
            read += data
    except TimeoutError:
        return read, False
    return read, True
