"""A Docker engine that answers from recorded files, over a unix socket, to the real SDK."""

import io
import json
import re
import socketserver
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "golden" / "docker"
_LISTED = ("Id", "Image", "State")


def recorded(name: str) -> Any:
    """Return one recorded answer."""
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


@dataclass
class FakeDocker:
    """What it answers: names of recorded files, and what goes wrong.

    ``silent``, ``garbage`` and ``broken`` are routes that hang, answer no JSON, or answer 500.
    """

    version: str = "version-28-arm64"
    info: str = "info-nvidia"
    image: str = ""
    containers: tuple[str, ...] = ()
    engine_json: str = ""
    silent: tuple[str, ...] = ()
    garbage: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def answer(self, route: str) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers for a route without its version."""
        self.asked.append(route)
        if route in self.silent:
            self.over.wait(30)
        if route in self.broken:
            return 500, b'{"message":"layer does not exist"}', {}
        if route in self.garbage:
            return 200, b"<html>no engine</html>", {}
        if route.endswith("/archive"):
            return self._archive()
        value = self._value(route)
        if value is None:
            return 404, json.dumps({"message": f"No such thing: {route}"}).encode(), {}
        return 200, json.dumps(value).encode(), {}

    def _value(self, route: str) -> Any:
        if route == "/version":
            return recorded(self.version)
        if route == "/info":
            return recorded(self.info)
        if route == "/containers/json":
            return [_listed(str(n), recorded(name)) for n, name in enumerate(self.containers)]
        if match := re.fullmatch(r"/images/unglitched:\w+/json", route):
            return recorded(self.image) if self.image and match else None
        if match := re.fullmatch(r"/containers/(\d+)/json", route):
            return recorded(self.containers[int(match[1])])
        return None

    def _archive(self) -> tuple[int, bytes, dict[str, str]]:
        if not self.engine_json:
            return 404, b'{"message":"Could not find the file"}', {}
        content = self.engine_json.encode()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            entry = tarfile.TarInfo("ENGINE.json")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        # base64 of {"name": "ENGINE.json", "size": 1}
        about = {"X-Docker-Container-Path-Stat": "eyJuYW1lIjogIkVOR0lORS5qc29uIiwgInNpemUiOiAxfQ=="}
        return 200, packed.getvalue(), about


def _listed(number: str, inspected: Any) -> dict[str, Any]:
    config, state = inspected["Config"], inspected["State"]
    values = (number, config["Image"], state["Status"])
    return {
        **dict(zip(_LISTED, values, strict=True)),
        "Names": [inspected["Name"]],
        "Labels": config["Labels"],
    }


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def do_GET(self) -> None:
        route = re.sub(r"^/v[\d.]+(?=/)", "", self.path.partition("?")[0])
        status, body, headers = self.server.fake.answer(route)
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "local"  # a unix socket's client has no address

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = False  # so that its end waits for all of them
    fake: FakeDocker

    def handle_error(self, *_words: object) -> None:
        """A client that left while it was made to wait is what was to happen."""


@contextmanager
def docker_engine(folder: Path, fake: FakeDocker) -> Iterator[str]:
    """Serve ``fake`` on a socket in ``folder``; yield its address."""
    path = folder / "docker.sock"
    with _Server(str(path), _Handler) as server:
        server.fake = fake
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            fake.over.set()
            server.shutdown()
            thread.join()
