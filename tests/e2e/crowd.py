"""A crowd of clients on raw sockets: they send, look whether a byte has come, and leave."""

import json
import os
import select
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.appliances import CHAT, metric
from tests.engines import EngineHandle, group_members, wait_until


class Crowd:
    """Clients that have each sent one chat request and wait for its answer."""

    def __init__(self, base_url: str, key: str, body: Mapping[str, object], count: int) -> None:
        where = urlsplit(base_url)
        payload = json.dumps(body).encode()
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        self.sockets = []
        for _ in range(count):
            client = socket.create_connection((where.hostname, where.port), timeout=10)
            client.sendall(head.encode() + payload)
            self.sockets.append(client)
        self.received = {client.fileno(): b"" for client in self.sockets}

    def look(self) -> None:
        """Read what has come, without waiting."""
        ready, _, _ = select.select(self.sockets, [], [], 0)
        for client in ready:
            self.received[client.fileno()] += client.recv(1 << 20)

    def replies(self) -> list[bytes]:
        """Return what each client has received."""
        self.look()
        return list(self.received.values())

    def leave(self) -> None:
        """Close every socket at once."""
        for client in self.sockets:
            client.close()

    def until(self, each: bytes, within_s: float = 60.0) -> None:
        """Wait until every client has received ``each``."""
        wait_until(
            lambda: all(each in reply for reply in self.replies()), within_s, f"{each!r} for each"
        )


def body_of(reply: bytes) -> bytes:
    """Return what came after a reply's head."""
    return reply.partition(b"\r\n\r\n")[2]


@contextmanager
def core_stopped(engine: EngineHandle) -> Iterator[None]:
    """Hold the engine's core with SIGSTOP: it computes nothing, its API server still listens."""
    core = engine_core(engine)
    os.kill(core, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(core, signal.SIGCONT)


def engine_core(engine: EngineHandle) -> int:
    """Return the process id of vLLM's EngineCore."""
    for pid in group_members(engine.pgid):
        if b"EngineCore" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError("the engine has no EngineCore process")


def engine_load(engine: EngineHandle) -> float:
    """Return how many requests the engine runs and holds waiting."""
    text = httpx.get(f"{engine.base_url}/metrics", trust_env=False, timeout=10).text
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    return sum(metric(text, name) for name in names)


def generated(engine: EngineHandle) -> float:
    """Return how many tokens the engine has generated in its life."""
    text = httpx.get(f"{engine.base_url}/metrics", trust_env=False, timeout=10).text
    return metric(text, "vllm:generation_tokens_total")
