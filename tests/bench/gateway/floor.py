"""The least that a relay of this make can cost: uvicorn, our connections, and nothing else.

    python tests/bench/gateway/floor.py PORT ENGINE_URL

No key, no look into a body, no prompt, no metrics, no log, no watch for a client that leaves.
What the appliance costs above it is its own doing; what this costs above nginx is Python's.
"""

import sys

import uvicorn
from starlette.types import Message, Receive, Scope, Send

from appliance.allocator import keep_large_blocks
from appliance.httpserver import ClientProtocol
from appliance.upstream import Upstream

HEAD: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream")],
}


class Floor:
    """An ASGI app; the engine is met in the server's own loop."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._upstream: Upstream | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, and its reply."""
        if scope["path"] == "/health":
            await send(HEAD)
            await send({"type": "http.response.body", "body": b"ok"})
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self._upstream = self._upstream or Upstream(self._engine, "key")
        headers = {"content-type": "application/json"}
        reply = await self._upstream.ask("POST", scope["path"], headers, body)
        await send(HEAD)
        async for part in reply.parts():
            await send({"type": "http.response.body", "body": part, "more_body": True})
        reply.close()
        await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    keep_large_blocks()
    uvicorn.run(
        Floor(sys.argv[2]),
        port=int(sys.argv[1]),
        http=ClientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
