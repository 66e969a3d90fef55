"""An OpenAI endpoint, whosever it is: one question, one answer, and patience where it is asked."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from appliance.bench.score import Said
from appliance.errors import HostError

REPLY_S = 1800.0  # a long prompt on a small box, behind a queue
CONNECT_S = 10.0
PATIENCE_S = 900.0  # of one question, over all its retries: an engine may load meanwhile
_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
_LATER = frozenset({408, 429, 500, 502, 503, 504})
_TOO_LONG = ("context_length", "context length", "maximum context", "max_model_len", "too long")


@dataclass(frozen=True)
class Reply:
    """What came: None for ``said`` where the question does not fit the model's context."""

    said: Said | None
    prompt_tokens: int | None = None


class Endpoint:
    """A client of one endpoint. ``sleep`` is how it waits between two tries."""

    def __init__(
        self,
        base_url: str,
        key: str,
        trust: ssl.SSLContext,
        *,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.base_url = api_url(base_url)
        self._patience_s = patience_s
        self._sleep = sleep
        headers = {"authorization": f"Bearer {key}"} if key else {}
        try:
            self._http = httpx.AsyncClient(
                headers=headers,
                timeout=httpx.Timeout(REPLY_S, connect=CONNECT_S),
                limits=httpx.Limits(max_connections=None),
                trust_env=False,
                verify=trust,
            )
        except UnicodeEncodeError as cause:
            raise HostError(
                "the key cannot be sent: it is not plain ASCII", "--key-file FILE"
            ) from (cause)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._http.aclose()

    async def models(self) -> list[str]:
        """Return the names of the models; none where the endpoint has no list.

        Raises HostError for an address where nobody answers, or not as OpenAI does, and for a
        key that is refused.
        """
        return list(await self.contexts())

    async def contexts(self) -> dict[str, int | None]:
        """Return the context of each model in tokens, where it is told. Raises as ``models``."""
        try:
            response = await self._http.get(f"{self.base_url}/models", timeout=CONNECT_S * 3)
        except (httpx.HTTPError, httpx.InvalidURL) as cause:
            raise self._nobody(cause) from cause
        self._check_key(response)
        if response.status_code in (404, 405, 501):
            return {}
        if response.status_code in _LATER:
            raise HostError(
                f"{self.base_url} is not ready ({response.status_code}): {message_of(response)}",
                "type the same again in a while; appliance status tells how far ours is",
            )
        try:
            rows = response.json()["data"]
            return {str(row["id"]): _context(row.get("max_model_len")) for row in rows}
        except (ValueError, KeyError, TypeError, AttributeError) as cause:
            raise HostError(
                f"{self.base_url}/models answers {response.status_code}, and not as OpenAI's API "
                f"does: {response.text[:100]!r}",
                "name the address that ends in /v1: --base-url http://HOST:9000/v1",
            ) from cause

    async def ask(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Reply:
        """Return the answer to one chat request.

        Waits and asks again while the endpoint is busy, loading, or gone for a moment. Raises
        HostError for what will not get better.
        """
        give_up_at = time.monotonic() + self._patience_s
        wait_s = _WAIT_S
        while True:
            trouble, asked_for_s = "", None
            try:
                response = await self._http.post(
                    f"{self.base_url}/chat/completions", json=dict(body), headers=dict(headers)
                )
            except httpx.TransportError as cause:
                trouble = f"{type(cause).__name__}: {cause}"
            else:
                if response.status_code not in _LATER:
                    return self._read(response)
                trouble = f"status {response.status_code}: {message_of(response)}"
                asked_for_s = retry_after_s(response.headers.get("retry-after"), _now())
            pause_s = min(wait_s if asked_for_s is None else asked_for_s, _LONGEST_WAIT_S)
            if time.monotonic() + pause_s > give_up_at:
                raise HostError(
                    f"{self.base_url} did not answer within {self._patience_s:g} s: {trouble}",
                    "what has been answered is kept: the same command with --resume goes on",
                )
            await self._sleep(pause_s)
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    def _read(self, response: httpx.Response) -> Reply:
        self._check_key(response)
        if response.status_code in (400, 413, 422) and is_too_long(message_of(response)):
            return Reply(None)
        if response.status_code == 404:
            raise HostError(
                f"{self.base_url} does not know that model or route: {message_of(response)}",
                "name a model that it serves: --model NAME",
            )
        if not response.is_success:
            raise HostError(
                f"{self.base_url} refused a question with {response.status_code}: "
                f"{message_of(response)}",
                "leave those questions out, for example --tasks echo,recall-1k asks for no tool",
            )
        try:
            return read_reply(response.json())
        except (ValueError, KeyError, TypeError, LookupError, AttributeError) as cause:
            raise HostError(
                f"{self.base_url} answers, and not as OpenAI's API does: {response.text[:100]!r}",
                "name the address that ends in /v1: --base-url http://HOST:9000/v1",
            ) from cause

    def _check_key(self, response: httpx.Response) -> None:
        if response.status_code in (401, 403):
            raise HostError(
                f"{self.base_url} refuses the key ({response.status_code}): {message_of(response)}",
                "--key-file FILE, or APPLIANCE_API_KEY; appliance key prints this machine's",
            )

    def _nobody(self, cause: Exception) -> HostError:
        if "CERTIFICATE_VERIFY_FAILED" in str(cause):
            return HostError(
                f"the certificate of {self.base_url} is not trusted here: {cause}",
                "copy its cert.pem to this machine, and: export SSL_CERT_FILE=/path/to/cert.pem",
            )
        return HostError(
            f"nobody answers at {self.base_url}: {type(cause).__name__}: {cause}",
            "--base-url http://HOST:9000, with the port that appliance status names",
        )


def _context(told: object) -> int | None:
    return told if isinstance(told, int) and told > 0 else None


def api_url(text: str) -> str:
    """Return the API's address for what was typed: without a path it is under /v1.

    Raises HostError for what is no http address.
    """
    try:
        parts = urlsplit(text)
        named = parts.scheme in ("http", "https") and parts.hostname
        _ = parts.port
    except ValueError:
        named = None
    if not named:
        raise HostError(
            f"{text!r} is no http address", "write it like --base-url http://spark.local:9000"
        )
    bare = text.rstrip("/")
    return bare if parts.path.strip("/") else f"{bare}/v1"


def read_reply(told: dict[str, Any]) -> Reply:
    """Return a chat completion's answer. Raises KeyError, LookupError or TypeError for no such."""
    message = told["choices"][0]["message"]
    calls = tuple(
        (str(call["function"]["name"]), str(call["function"]["arguments"]))
        for call in message.get("tool_calls") or ()
    )
    tokens = (told.get("usage") or {}).get("prompt_tokens")
    prompt_tokens = tokens if isinstance(tokens, int) else None
    return Reply(Said(message.get("content") or "", calls), prompt_tokens)


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After asks for, as a number or a date; None for neither."""
    if value is None:
        return None
    try:
        return max(0.0, float(value)) if value.strip()[:1].isdigit() else _until(value, now)
    except (ValueError, TypeError):
        return None


def _until(value: str, now: datetime) -> float:
    return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())


def _now() -> datetime:
    return datetime.now(UTC)


def message_of(response: httpx.Response) -> str:
    """Return the words of a refusal, in whatever shape it comes."""
    try:
        told = response.json()
    except ValueError:
        told = None
    error = told.get("error") if isinstance(told, dict) else None
    if isinstance(error, dict):
        return f"{error.get('message')} ({error.get('code')})"
    return str(error or response.text[:200])


def is_too_long(message: str) -> bool:
    """Tell whether a refusal is for a prompt that does not fit the context."""
    return any(words in message.lower() for words in _TOO_LONG)
