"""The engine seen through HTTP: health, one completion, its metrics, and streamed exchanges."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from enum import Enum, auto
from typing import Any

import httpx
import msgspec

from appliance.errors import UpstreamError, UpstreamTimeout

CONNECT_S = 5.0
PROBE_S = 5.0

# What of a request decides how many tokens its prompt makes, as /tokenize names it too.
_TOKENIZED = (
    "model",
    "messages",
    "prompt",
    "tools",
    "chat_template",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "mm_processor_kwargs",
)


class Health(Enum):
    """What an engine's ``/health`` says: 200; refused, reset or another status; nothing."""

    WELL = auto()
    ILL = auto()
    SILENT = auto()


class Upstream:
    """One engine at one address. Close it when that engine is gone."""

    def __init__(self, base_url: str, api_key: str | None) -> None:
        self.base_url = base_url.rstrip("/")
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        # No read timeout: a cold prefill of a long prompt is silent for many minutes, and the
        # client's hang-up, not a clock, ends it. Idle connections are few on purpose: looking
        # through httpx's pool costs more the more of them it holds.
        self._client = httpx.AsyncClient(
            base_url=self.base_url,
            headers={**headers, "accept-encoding": "identity", "user-agent": "unglitched"},
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            # vLLM's server closes a connection after 5 idle seconds: let go of ours before, or
            # a request meets the close and fails.
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=8, keepalive_expiry=2.0
            ),
            verify=self.base_url.startswith("https:"),  # 60 ms to load what http never reads
            trust_env=False,  # a proxy variable must not carry loopback traffic off the box
        )

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

    async def count_tokens(self, body: bytes, timeout_s: float) -> int:
        """Return how many tokens the prompt of a chat's or a completion's body makes.

        ``body`` is what the engine would get to generate from. Raises UpstreamError.
        """
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        asked = {name: fields[name] for name in _TOKENIZED if name in fields}
        answer = await self._json("POST", "/tokenize", asked, timeout_s)
        count = answer.get("count")
        if not isinstance(count, int):
            raise UpstreamError(f"the engine's /tokenize told no count: {str(answer)[:200]}")
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

    @asynccontextmanager
    async def exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> AsyncIterator[httpx.Response]:
        """Send a request and yield its response once the head is there, the body unread.

        Leaving early, by an error or a cancellation, closes the connection, which is how the
        engine learns that nobody waits for the answer. Raises UpstreamError or UpstreamTimeout.
        """
        self._must_be_open(path)
        request = self._client.build_request(method, path, headers=dict(headers), content=body)
        try:
            response = await self._client.send(request, stream=True)
        except httpx.HTTPError as cause:
            raise _translate(cause, path) from cause
        try:
            yield response
        finally:
            await response.aclose()

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


def _translate(cause: httpx.HTTPError, path: str) -> UpstreamError:
    what = f"the engine did not answer {path}: {type(cause).__name__}"
    hint = "retry; appliance status tells what the engine is doing"
    if isinstance(cause, httpx.TimeoutException):
        return UpstreamTimeout(what, hint)
    return UpstreamError(what, hint)
