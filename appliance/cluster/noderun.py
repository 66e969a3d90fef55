"""A node that listens: TLS around its door, the lease beside it, and an end in order."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator

import uvicorn

from appliance.cluster.identity import Identity
from appliance.cluster.node import Node
from appliance.cluster.nodeserver import NodeServer
from appliance.httpserver import ClientProtocol

CLOSE_S = 3


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


@contextlib.asynccontextmanager
async def listening(
    node: Node,
    door: NodeServer,
    identity: Identity,
    listener: socket.socket,
    http: type[ClientProtocol] = ClientProtocol,
) -> AsyncIterator[None]:
    """Answer on ``listener`` within the block; at its end the node's child ends first."""
    config = uvicorn.Config(
        door,
        http=http,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=CLOSE_S,
        ssl_certfile=identity.file,
        ssl_keyfile=str(identity.file),
    )
    config.load()
    assert config.ssl is not None  # noqa: S101 - it was just given a certificate
    config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3  # both ends are ours
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    lease = asyncio.create_task(node.keep_lease())
    try:
        yield
    finally:
        lease.cancel()
        await node.end()
        server.should_exit = True
        await asyncio.wait([serving, lease])
        serving.result()
