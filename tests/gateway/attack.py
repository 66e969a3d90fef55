"""Plays bad HTTP clients against an address, and reads what it answers."""

import re
import select
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.gateway.rawhttp import Case

STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
STROKE_S = 0.001  # between two pieces
ANSWER_S = 20.0  # for an answer that must come
REFUSAL_S = 0.05  # for one that may not: who sent half a request waits for nothing
LINGER_NONE = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Answered:
    """What came back on one connection."""

    data: bytes

    @property
    def statuses(self) -> list[int]:
        """The statuses of all replies, in order."""
        return [int(status) for status in STATUS.findall(self.data)]


def play(base_url: str, case: Case) -> Answered:
    """Play one case; return what came back until the server, or we, closed."""
    where = urlsplit(base_url)
    with socket.create_connection((where.hostname, where.port), timeout=ANSWER_S) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        came = _send(sock, case.pieces)
        if case.leave == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
        if case.leave in ("drop", "reset"):
            return Answered(came)
        if case.leave == "half":
            with suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
        return Answered(came + _read(sock, came, case.replies))


def _send(sock: socket.socket, pieces: tuple[bytes, ...]) -> bytes:
    """Send the pieces, and take what comes meanwhile; a server that closed ends it."""
    came = b""
    for piece in pieces:
        readable, _, _ = select.select([sock], [], [], STROKE_S if len(pieces) > 1 else 0)
        try:
            if readable:
                data = sock.recv(1 << 16)
                came += data
                if not data:
                    break
            sock.sendall(piece)
        except OSError:
            break
    return came


def _read(sock: socket.socket, came: bytes, replies: int | None) -> bytes:
    """Read until the replies that must come are whole, or nothing more comes."""
    read = b""
    while replies is None or _whole(came + read) < replies:
        readable, _, _ = select.select([sock], [], [], REFUSAL_S if replies is None else ANSWER_S)
        if not readable:
            break
        try:
            data = sock.recv(1 << 16)
        except OSError:
            break
        if not data:
            break
        read += data
    return read


def _whole(data: bytes) -> int:
    """Count replies that have come to their end."""
    whole = 0
    while (head_end := data.find(b"\r\n\r\n")) >= 0:
        head, data = data[:head_end].lower(), data[head_end + 4 :]
        if (length := re.search(rb"content-length: (\d+)", head)) is not None:
            if len(data) < int(length[1]):
                break
            data = data[int(length[1]) :]
        elif b"transfer-encoding: chunked" in head:
            end = data.find(b"0\r\n\r\n")
            if end < 0:
                break
            data = data[end + 5 :]
        whole += 1
    return whole
