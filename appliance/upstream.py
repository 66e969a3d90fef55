"""The engine seen through HTTP: health, one completion, its metrics, and streamed exchanges."""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

import httpx
import msgspec

from appliance.connection import Reply
from appliance.context import Counter
from appliance.errors import UpstreamError, UpstreamTimeout
from appliance.transport import FastTransport

CONNECT_S = 5.0
PROBE_S = 5.0


class Health(Enum):
    """What an engine's ``/health`` says: 200; refused, reset or another status; nothing."""

    WELL = auto()
    ILL = auto()
    SILENT = auto()


class Upstream:
    """One engine at one address. Close it when that engine is gone."""

    def __init__(self, base_url: str, api_key: str | None) -> None:
        self.base_url = base_url.rstrip("/")
        headers = {"accept-encoding": "identity", "user-agent": "unglitched"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        transport = FastTransport()
        # Its own transport takes no proxy from the environment: loopback traffic stays on the box.
        self._client = httpx.AsyncClient(
            base_url=self.base_url,
            headers=headers,
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            transport=transport,
            trust_env=False,
        )
        # What a client asks for goes past httpx, whose request costs more than all the rest.
        url = httpx.URL(self.base_url)
        self._pool = transport.pool(url)
        self._path = url.raw_path.rstrip(b"/")
        fixed = {"host": url.netloc.decode("ascii"), **headers}
        self._fixed = _lines(fixed)

    async def close(self) -> None:
        """Drop every connection."""
        await self._client.aclose()

    async def health(self, within_s: float = PROBE_S) -> Health:
        """Return what ``/health`` says of the engine."""
        if self._client.is_closed:
            return Health.ILL
        try:
            response = await self._client.get("/health", timeout=within_s)
        except httpx.TimeoutException:
            return Health.SILENT
        except httpx.HTTPError:
            return Health.ILL
        return Health.WELL if response.status_code == 200 else Health.ILL

    async def is_healthy(self) -> bool:
        """Tell whether ``/health`` answers 200; refused or silent is False too."""
        return await self.health() is Health.WELL

    async def models(self) -> list[dict[str, Any]]:
        """Return the engine's list of models. Raises UpstreamError."""
        answer = await self._json("GET", "/v1/models", None, PROBE_S)
        data = answer.get("data")
        models = data if isinstance(data, list) else []
        return [model for model in models if isinstance(model, dict)]

    async def complete(self, body: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Return the answer of one chat completion that is not streamed. Raises UpstreamError."""
        return await self._json("POST", "/v1/chat/completions", body, timeout_s)

    async def count_tokens(self, counter: Counter, body: bytes, timeout_s: float) -> int:
        """Return how many tokens the prompt of ``body`` makes, as ``counter`` asks for it.

        ``body`` is what the engine would get to generate from. Raises UpstreamError.
        """
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        asked = {name: fields[name] for name in counter.names if name in fields}
        answer = await self._json("POST", counter.path, asked, timeout_s)
        count = answer.get(counter.answer)
        if not isinstance(count, int):
            raise UpstreamError(f"the engine's {counter.path} told no count: {str(answer)[:200]}")
        return count

    async def metrics(self) -> bytes:
        """Return the engine's own metrics text, or nothing if it does not answer."""
        if self._client.is_closed:
            return b""
        try:
            response = await self._client.get("/metrics", timeout=PROBE_S)
        except httpx.HTTPError:
            return b""
        return response.content if response.status_code == 200 else b""

    async def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        within_s: float | None = None,
    ) -> Reply:
        """Send a request and return its reply once the head is there, the body unread.

        ``within_s`` is the longest wait for the head. There is no other: a cold prefill of a
        long prompt is silent for many minutes. The caller closes the reply, in any case: early,
        that closes the connection, which is how the engine learns that nobody waits for the
        rest. Raises UpstreamError or UpstreamTimeout.
        """
        self._must_be_open(path)
        head = b"%b %b%b HTTP/1.1\r\n%b%bcontent-length: %d\r\n\r\n" % (
            method.encode("ascii"),
            self._path,
            path.encode("ascii"),
            self._fixed,
            _lines(headers),
            len(body),
        )
        try:
            reply = await self._pool.ask(head, body, within_s=within_s, connect_s=CONNECT_S)
        except httpx.HTTPError as cause:
            raise _translate(cause, path) from cause
        if 300 <= reply.status_code < 400:
            reply.close()
            where = reply.headers.get("location", "nowhere")
            raise UpstreamError(
                f"the engine sent {path} elsewhere ({reply.status_code} to {where})",
                "a redirect is not followed: name the engine itself in APPLIANCE_ENGINE_URL",
            )
        return reply

    def _must_be_open(self, path: str) -> None:
        """Raise what a refused connection would: that engine is gone, and its client with it."""
        if self._client.is_closed:
            gone = httpx.ConnectError("the engine is gone")
            raise _translate(gone, path) from gone

    async def _json(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float
    ) -> dict[str, Any]:
        self._must_be_open(path)
        try:
            response = await self._client.request(
                method,
                path,
                content=msgspec.json.encode(body) if body is not None else None,
                headers={"content-type": "application/json"} if body is not None else None,
                timeout=httpx.Timeout(timeout_s, connect=CONNECT_S),
            )
        except httpx.HTTPError as cause:
            raise _translate(cause, path) from cause
        try:
            answer = msgspec.json.decode(response.content)
        except msgspec.DecodeError:
            answer = None
        if response.status_code != 200 or not isinstance(answer, dict):
            raise UpstreamError(
                f"the engine answered {path} with status {response.status_code}: "
                f"{response.text[:200]}",
                "appliance status --lines 50 shows its last lines",
            )
        return answer


def _lines(headers: Mapping[str, str]) -> bytes:
    text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return text.encode("latin-1")


def _translate(cause: httpx.HTTPError, path: str) -> UpstreamError:
    what = f"the engine did not answer {path}: {type(cause).__name__}"
    hint = "retry; appliance status tells what the engine is doing"
    if isinstance(cause, httpx.TimeoutException):
        return UpstreamTimeout(what, hint)
    return UpstreamError(what, hint)
