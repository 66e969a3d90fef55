"""A client that leaves frees the engine within a second, in whichever window it leaves."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.appliances import ASKED, CHAT, LONG, ApplianceProcess, RunAppliance, metric
from tests.engines import wait_until

CLIENTS = 20
WINDOWS = pytest.mark.parametrize(
    ("window", "faults", "streaming"),
    [
        ("head", {"slow_head": 60}, True),
        ("head", {"slow_head": 60}, False),
        ("prefill", {"silent_prefill": 60}, True),
        ("stream", {"chunk_delay": 0.05}, True),
    ],
    ids=["before the head", "before a whole reply", "silent prefill", "mid-stream"],
)


def connect(box: ApplianceProcess, body: dict[str, object]) -> socket.socket:
    """Send one chat request on a bare socket."""
    data = json.dumps(body).encode()
    host, _, port = box.base_url.removeprefix("http://").partition(":")
    sock = socket.create_connection((host, int(port)), timeout=10)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {box.key('client')}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    sock.sendall(head.encode() + data)
    return sock


@contextmanager
def crowd(box: ApplianceProcess, **more: object) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(connect(box, LONG | more)) for _ in range(CLIENTS)]


def read_until(sock: socket.socket, mark: bytes) -> bytes:
    read = b""
    while mark not in read:
        data = sock.recv(65536)
        assert data, f"the appliance closed after {read!r}"
        read += data
    return read


def has_more(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return bool(sock.recv(1))
    except BlockingIOError:
        return False


def in_the_window(sock: socket.socket, window: str) -> bool:
    """Tell whether this client has what it can have in its window, and no more."""
    if window == "head":
        return not has_more(sock)
    if window == "prefill":
        return read_until(sock, b"\r\n\r\n").endswith(b"\r\n\r\n") and not has_more(sock)
    return b"[DONE]" not in read_until(sock, b"data: ")


def sample(box: ApplianceProcess, name: str, **labels: str) -> float:
    with box.http() as client:
        return metric(client.get("/metrics").text, name, **labels)


def hang_ups(box: ApplianceProcess, window: str) -> float:
    return sample(box, "appliance_hang_ups_total", window=window)


def outcomes(box: ApplianceProcess) -> float:
    return sample(box, "appliance_requests_total", route=CHAT, outcome="hang_up")


@WINDOWS
def test_clients_that_leave_are_gone_from_the_engine_within_a_second(
    box: ApplianceProcess, window: str, faults: dict[str, object], streaming: bool
) -> None:
    fake = box.fake
    fake.be(**faults)
    before = (hang_ups(box, window), outcomes(box))
    with crowd(box, stream=streaming) as clients:
        wait_until(lambda: len(fake.requests(CHAT)) == CLIENTS, 20, "the crowd at the engine")
        assert all(in_the_window(client, window) for client in clients)
        assert sample(box, "appliance_requests_running") == CLIENTS
        assert fake.seen()["aborted"] == []
        left = time.monotonic()
    wait_until(lambda: len(fake.seen()["aborted"]) == CLIENTS, 10, "the engine to see them leave")
    assert max(abort["at"] for abort in fake.seen()["aborted"]) - left < 1.0
    wait_until(lambda: sample(box, "appliance_requests_running") == 0, 5, "the gate to be free")
    assert (hang_ups(box, window), outcomes(box)) == (before[0] + CLIENTS, before[1] + CLIENTS)


def test_clients_that_leave_the_queue_never_reach_the_engine(run: RunAppliance) -> None:
    box = run("--chunk-delay", "0.05", max_num_seqs=1, queue_timeout_s=60)
    box.until("ready")
    fake = box.fake
    fake.forget()
    with connect(box, LONG | {"stream": True}) as first:
        read_until(first, b"data: ")
        with crowd(box, stream=True) as clients:
            waiting = "appliance_requests_waiting"
            wait_until(lambda: sample(box, waiting) == CLIENTS, 20, "the crowd in the queue")
            assert not any(has_more(client) for client in clients)
            left = time.monotonic()
        wait_until(lambda: sample(box, waiting) == 0, 10, "the queue to be empty")
        assert time.monotonic() - left < 1.0
        assert hang_ups(box, "queue") == CLIENTS
        assert sample(box, "appliance_requests_running") == 1
    wait_until(lambda: len(fake.seen()["aborted"]) == 1, 10, "the first one's end")
    assert len(fake.requests(CHAT)) == 1
    with box.http() as client:
        assert client.post(CHAT, json=ASKED | {"max_tokens": 3}).status_code == 200


def test_a_client_that_leaves_within_its_body_is_a_hang_up_too(box: ApplianceProcess) -> None:
    before = hang_ups(box, "body")
    host, _, port = box.base_url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as sock:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {box.key('client')}\r\n"
        sock.sendall(f'{head}Content-Length: 1000\r\n\r\n{{"model":'.encode())
    wait_until(lambda: hang_ups(box, "body") == before + 1, 5, "the hang-up to be counted")
    assert box.fake.requests(CHAT) == []
