"""A proxy as companies have it: it tunnels where CONNECT says, for who has the password."""

import socket
import socketserver
import threading
from contextlib import suppress
from typing import Any


class ConnectProxy:
    """Tunnels to any port of this machine; ``asked`` are the heads of the requests, ``seen`` all
    bytes that went through towards the server.
    """

    def __init__(self, wants: str = "") -> None:
        self.asked: list[str] = []
        self.seen = bytearray()
        self.wants = wants
        self._tcp = _Tcp(("127.0.0.1", 0), _Handler)
        self._tcp.proxy = self
        self.port = int(self._tcp.server_address[1])
        self._thread = threading.Thread(target=self._tcp.serve_forever, args=(0.02,))

    def __enter__(self) -> "ConnectProxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._tcp.shutdown()
        self._tcp.server_close()
        self._thread.join()


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    proxy: ConnectProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who hangs up is no concern of the tests."""


class _Handler(socketserver.StreamRequestHandler):
    server: _Tcp

    def handle(self) -> None:
        proxy = self.server.proxy
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return
            head += line
        proxy.asked.append(head.decode())
        if proxy.wants not in head.decode():
            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        port = int(head.split(b" ")[1].rpartition(b":")[2])
        with socket.create_connection(("127.0.0.1", port)) as server:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(server, self.connection, bytearray()))
            back.start()
            _pump(self.connection, server, proxy.seen)
            back.join()


def _pump(source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
    with suppress(OSError):
        while part := source.recv(2**16):
            seen += part
            sink.sendall(part)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
