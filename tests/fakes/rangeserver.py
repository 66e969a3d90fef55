"""Servers of files on this machine: byte ranges, a hub's listings and redirects, and faults.

A fault is for the next request of a path, and is used up by it; ``always`` is not. The storage
that a hub redirects to is a server of its own: another origin, as it is in the world.
"""

import gzip
import hashlib
import json
import socket
import socketserver
import ssl
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import quote, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
SMALL = 1000  # bytes; a hub keeps what is smaller in git, and the rest in its storage


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer; what is not set is as it should be."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)  # a value of "" leaves the header out
    drop_after: int | None = None  # bytes of the body
    whole: bool = False  # a 200 with all of it, as of a server without ranges
    at_most: int | None = None  # a 206 with fewer bytes than asked, and it says so
    shift: int = 0  # a 206 of bytes further on
    zipped: bool = False
    endless: bool = False  # chunks without end
    noise: bytes = b""  # no HTTP at all
    dribble: int = 2**16  # bytes in one write
    body: bytes | None = None
    hold: threading.Event | None = None  # nothing of the body comes before it is set
    hold_after: int = 0  # bytes, and then it holds


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]


class RangeServer:
    """Files by path. ``asked`` and ``sent`` (bytes of bodies by path) say what was fetched."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.extra: dict[str, dict[str, str]] = {}  # headers of a path
        self.moved: dict[str, str] = {}  # path -> where it redirects to
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.always: dict[str, Fault] = {}
        self.asked: list[Asked] = []
        self.sent: Counter[str] = Counter()
        self.connections = 0
        self.lock = threading.Lock()
        self._tcp = _Tcp(("127.0.0.1", 0), _Handler)
        self._tcp.site, self._tcp.open = self, []
        if tls:
            self._tcp.socket = tls.wrap_socket(self._tcp.socket, server_side=True)
        self.port = int(self._tcp.server_address[1])
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._tcp.serve_forever, args=(0.02,))

    def put(self, path: str, content: bytes) -> None:
        """Put a file there, or another one in its place: its ETag is its hash."""
        self.files[path] = content
        self.etags[path] = f'"{hashlib.md5(content).hexdigest()}"'  # noqa: S324 - an ETag

    def fail(self, path: str, *faults: Fault) -> None:
        """Let the next requests of ``path`` go wrong, one fault each."""
        self.faults[path].extend(faults)

    def requests(self, path: str) -> list[Asked]:
        """Return what was asked of a path."""
        return [one for one in self.asked if one.path == path]

    @property
    def sent_bytes(self) -> int:
        """How much of bodies was sent."""
        with self.lock:
            return sum(self.sent.values())

    def hang_up(self) -> None:
        """End every connection that is open."""
        with self.lock:
            for connection in self._tcp.open:
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> "RangeServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._tcp.shutdown()
        self._tcp.server_close()
        self._thread.join()


class _Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    site: RangeServer
    open: list[socket.socket]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.site.lock:
            self.site.connections += 1
            self.open.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Tcp

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        site = self.server.site
        path = unquote(urlsplit(self.path).path)
        with site.lock:
            site.asked.append(Asked(self.command, path, dict(self.headers.items())))
            waiting = site.faults[path]
            fault = waiting.popleft() if waiting else site.always.get(path, Fault())
            target = site.moved.get(path)
        if fault.noise:
            self.wfile.write(fault.noise)
            self.close_connection = True
        elif fault.status:
            self._send(fault.status, fault.body or b"", fault.headers, fault, path)
        elif target:
            status = 307 if target.startswith("/") else 302
            self._send(status, b"", {"Location": target, **site.extra.get(path, {})}, fault, path)
        elif path not in site.files:
            self._send(404, b"", {"X-Error-Code": _missing(path, site.files)}, fault, path)
        else:
            self._file(site.files[path], fault, path)

    def _file(self, content: bytes, fault: Fault, path: str) -> None:
        site = self.server.site
        headers = {"ETag": site.etags[path], **site.extra.get(path, {})}
        asked = self.headers.get("Range", "")
        if not asked or fault.whole:
            self._send(200, content, {**headers, **fault.headers}, fault, path)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, size = int(first) + fault.shift, len(content)
        stop = min(int(last) + 1 if last else size, size)
        if fault.at_most is not None:
            stop = min(stop, start + fault.at_most)
        if start >= size:
            self._send(416, b"", {"Content-Range": f"bytes */{size}"}, fault, path)
            return
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        self._send(206, content[start:stop], {**headers, **fault.headers}, fault, path)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], fault: Fault, path: str
    ) -> None:
        if fault.zipped:
            body, headers = gzip.compress(body), {**headers, "Content-Encoding": "gzip"}
        length = {"Transfer-Encoding": "chunked"} if fault.endless else {}
        length = length or {"Content-Length": str(len(body))}
        self.send_response(status)
        for name, value in {**length, **headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault.endless:
            while True:  # until the client has enough
                self._write(b"%x\r\n%s\r\n" % (len(body), body), path, fault)
        cut = len(body) if fault.drop_after is None else fault.drop_after
        if fault.hold:
            self._write(body[: fault.hold_after], path, fault)
            fault.hold.wait(60)
        self._write(body[fault.hold_after if fault.hold else 0 : cut], path, fault)
        if cut < len(body):
            self.close_connection = True

    def _write(self, content: bytes, path: str, fault: Fault) -> None:
        for at in range(0, len(content), fault.dribble):
            part = content[at : at + fault.dribble]
            with self.server.site.lock:  # before: whoever has read it all may look at once
                self.server.site.sent[path] += len(part)
            self.wfile.write(part)


def _missing(path: str, files: dict[str, bytes]) -> str:
    """Return what a hub calls that which is not there."""
    if not path.startswith("/api/models/"):
        return "EntryNotFound"
    repository = "/".join(path.split("/")[:5])
    is_known = any(known.startswith(f"{repository}/") for known in files)
    return "RevisionNotFound" if is_known else "RepoNotFound"


class Hub:
    """A model hub: ``api`` answers as a hub does, ``storage`` holds its large files."""

    def __init__(self, api: RangeServer, storage: RangeServer) -> None:
        self.api = api
        self.storage = storage

    def add(
        self, repository: str, files: dict[str, bytes], commit: str = COMMIT, branch: str = "main"
    ) -> None:
        """Publish a commit of a repository, with the branch at it."""
        entries = [self._add(repository, commit, branch, *file) for file in files.items()]
        self.list_as(repository, entries, commit)
        for revision in (branch, commit):
            info = {"id": repository, "sha": commit, "private": False, "siblings": []}
            self._json(f"/api/models/{repository}/revision/{revision}", info)

    def list_as(self, repository: str, entries: list[Any], commit: str = COMMIT) -> None:
        """Say that these are the files of a commit."""
        self._json(f"/api/models/{repository}/tree/{commit}", entries)

    def large(self, repository: str, name: str, commit: str = COMMIT) -> str:
        """Return the path of a large file in the storage."""
        return f"/{repository}/{commit}/{name}"

    def small(self, repository: str, name: str, commit: str = COMMIT) -> str:
        """Return the path of a small file, to which the hub redirects within itself."""
        return f"/api/resolve-cache/models/{repository}/{commit}/{name}"

    def _add(
        self, repository: str, commit: str, branch: str, name: str, content: bytes
    ) -> dict[str, Any]:
        blob = git_hash(content)
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": blob}
        for revision in (commit, branch):
            path = f"/{repository}/resolve/{revision}/{name}"
            self.api.extra[path] = {"X-Repo-Commit": commit}
            if len(content) < SMALL:
                kept = self.small(repository, name, commit)
                self.api.put(kept, content)
                self.api.etags[kept] = f'"{blob}"'
                self.api.extra[kept] = {"X-Repo-Commit": commit}
                self.api.moved[path] = f"{quote(kept)}?{quote(path, safe='')}=&etag=%22{blob}%22"
                linked = {"X-Linked-ETag": f'"{blob}"', "X-Linked-Size": str(len(content))}
                self.api.extra[path] |= linked
                continue
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
            kept = self.large(repository, name, commit)
            self.storage.put(kept, content)
            self.api.moved[path] = f"{self.storage.url}{quote(kept)}?signature=secret"
            self.api.extra[path] |= {
                "X-Linked-ETag": f'"{sha256}"',
                "X-Linked-Size": str(len(content)),
            }
        return entry

    def _json(self, path: str, content: Any) -> None:
        self.api.put(path, json.dumps(content).encode())


def git_hash(content: bytes) -> str:
    """Return the name that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324 - git's


@contextmanager
def hub() -> Iterator[Hub]:
    """Run a hub and its storage."""
    with ExitStack() as stack:
        yield Hub(stack.enter_context(RangeServer()), stack.enter_context(RangeServer()))
