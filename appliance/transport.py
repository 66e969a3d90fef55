"""Connections to the engine, kept for the next request, and httpx's way to them.

httpx's own pool looks through all of its connections for each request, and its wire costs more
per chunk than all the rest of a relay: facts that were measured. Here the last connection that
came back goes out first, and what is idle for too long goes from the other end.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator
from typing import cast

import httpx

from appliance.connection import Connection, Reply

# vLLM's server closes a connection after 5 idle seconds: let go of ours before, or a request
# meets the close.
IDLE_S = 4.0
# A kept connection that ends this soon under a request was being closed as we wrote; one that
# ends later had an engine that took the request, and may have died of it.
CROSSED_S = 0.1


class Pool:
    """Connections to one address; one that is idle for ``idle_s`` is shut."""

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext | None = None, idle_s: float = IDLE_S
    ) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._idle_s = idle_s
        self._idle: deque[Connection] = deque()
        self._all: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return sum(connection.is_usable for connection in self._idle)

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._all)

    async def ask(
        self,
        head: bytes,
        body: bytes = b"",
        *,
        within_s: float | None = None,
        connect_s: float | None = None,
        is_head: bool = False,
    ) -> Reply:
        """Send a request and return its reply, once the reply's head is here; close it after.

        ``within_s`` is the longest wait for the head, ``connect_s`` for a connection, None for
        one without an end. Raises httpx.TransportError.
        """
        kept = self._kept()
        if kept is not None:
            loop = asyncio.get_running_loop()
            began = loop.time()
            reply = kept.begin(head, body, is_head=is_head)
            try:
                await reply.wait_for_head(within_s)
            except (httpx.ReadError, httpx.RemoteProtocolError):
                if reply.received or loop.time() - began > CROSSED_S:
                    raise
            else:
                return reply
        connection = await self._connect(connect_s)
        reply = connection.begin(head, body, is_head=is_head)
        await reply.wait_for_head(within_s)
        return reply

    def close(self) -> None:
        """Drop every connection, those in use too. There will be no others."""
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        self._idle.clear()
        for connection in tuple(self._all):
            connection.abort()

    def _kept(self) -> Connection | None:
        """Return the connection that came back last, if there is one that can be used."""
        oldest = asyncio.get_running_loop().time() - self._idle_s
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable and connection.idle_since > oldest:
                return connection
            connection.abort()
        return None

    async def _connect(self, within_s: float | None) -> Connection:
        if self._is_closed:
            raise httpx.ConnectError("the connections were closed")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(within_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._keep, self._all.discard),
                    self._host,
                    self._port,
                    ssl=self._tls,
                )
        except TimeoutError as cause:
            raise httpx.ConnectTimeout(f"no connection within {within_s:g} s") from cause
        except OSError as cause:  # ssl.SSLError is one
            raise httpx.ConnectError(str(cause)) from cause
        if self._is_closed:
            connection.abort()
            raise httpx.ConnectError("the connections were closed")
        self._all.add(connection)
        return connection

    def _keep(self, connection: Connection) -> None:
        """Take a connection back."""
        if self._is_closed:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(self._idle_s, self._drop_old)

    def _drop_old(self) -> None:
        """Close what has been idle for too long; it stands first."""
        loop = asyncio.get_running_loop()
        self._sweep = None
        now = loop.time()
        while self._idle:
            first = self._idle[0]
            left = first.idle_since + self._idle_s - now
            if first.is_usable and left > 0:
                self._sweep = loop.call_later(left, self._drop_old)
                return
            self._idle.popleft().abort()


class FastTransport(httpx.AsyncBaseTransport):
    """httpx's transport over ``Pool``: HTTP/1.1 alone, no proxies, no redirects."""

    def __init__(self, verify: ssl.SSLContext | bool = True) -> None:
        self._verify = verify
        self._pools: dict[tuple[bytes, bytes, int | None], Pool] = {}

    def pool(self, url: httpx.URL) -> Pool:
        """Return the connections to the address of ``url``."""
        key = (url.raw_scheme, url.raw_host, url.port)
        found = self._pools.get(key)
        if found is None:
            port = url.port or (443 if url.scheme == "https" else 80)
            found = self._pools[key] = Pool(url.host, port, self._tls(url))
        return found

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``; its timeouts are those of its extensions. Raises TransportError."""
        limits = request.extensions.get("timeout", {})
        read_s, connect_s = limits.get("read"), limits.get("connect")
        pool = self.pool(request.url)
        if "transfer-encoding" in request.headers:
            raise httpx.LocalProtocolError("a body in parts is not sent here: give it whole")
        stream = cast(httpx.AsyncByteStream, request.stream)
        body = b"".join([part async for part in stream])
        reply = await pool.ask(
            _head(request),
            body,
            within_s=read_s,
            connect_s=connect_s,
            is_head=request.method == "HEAD",
        )
        return httpx.Response(
            reply.status_code,
            headers=reply.raw_headers,
            stream=_Body(reply, read_s),
            extensions={"http_version": b"HTTP/1.1"},
        )

    async def aclose(self) -> None:
        """Drop every connection."""
        for pool in self._pools.values():
            pool.close()

    def _tls(self, url: httpx.URL) -> ssl.SSLContext | None:
        if url.scheme != "https":
            return None
        if isinstance(self._verify, bool):
            self._verify = httpx.create_ssl_context(verify=self._verify)  # 60 ms: once
        return self._verify


class _Body(httpx.AsyncByteStream):
    """A reply's body, pulled."""

    def __init__(self, reply: Reply, read_s: float | None) -> None:
        self._reply = reply
        self._read_s = read_s

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._reply.parts(self._read_s)

    async def aclose(self) -> None:
        self._reply.close()


def _head(request: httpx.Request) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b" % pair for pair in request.headers.raw]
    return b"\r\n".join(lines) + b"\r\n\r\n"
