"""The wire: which routes pass, and which headers. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from appliance.errors import (
    RequestError,
)


@dataclass(frozen=True)
class RelayRoute:
    """One route that passes to the engine.

    ``prompt`` names the field that takes the system prompt; ``gated`` routes make the engine
    generate, and take a place at the gate.
    """

    method: str
    path: str
    prompt: str = ""
    gated: bool = False

    @property
    def is_anthropic(self) -> bool:
        """Whether clients of this route expect Anthropic's error shape."""
        return self.path.startswith("/v1/messages")

    @property
    def may_stream(self) -> bool:
        """Whether a request of this route may ask for a stream."""
        return self.gated and self.path != "/v1/embeddings"


ROUTES = (
    RelayRoute("POST", "/v1/chat/completions", prompt="messages", gated=True),
    RelayRoute("POST", "/v1/completions", gated=True),
    RelayRoute("POST", "/v1/responses", prompt="instructions", gated=True),
    RelayRoute("POST", "/v1/messages", prompt="system", gated=True),
    # counted and tokenized with the prompt, so that the numbers are those of the real request
    RelayRoute("POST", "/v1/messages/count_tokens", prompt="system"),
    RelayRoute("POST", "/tokenize", prompt="messages"),
    RelayRoute("POST", "/v1/embeddings", gated=True),
    RelayRoute("GET", "/v1/models"),
)

# What passes upstream of a client's headers. A list of what passes: its key, its cookies and
# whatever concerns one hop only stay here.
_FORWARDED = ("accept", "anthropic-version", "anthropic-beta", "traceparent", "tracestate")
_RETURNED = ("content-type", "cache-control", "retry-after")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

# What msgspec raises over bytes that are no JSON; RecursionError where they nest too deep.
NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

CONTROL_PREFIX = "/appliance/v1"
INJECTION_HEADER = "x-appliance-prompt"
GUARD_HEADER = "x-appliance-path-guard"


def forward_headers(headers: Mapping[str, str], request_id: str) -> dict[str, str]:
    """Return the headers that go to the engine."""
    passed = {name: headers[name] for name in _FORWARDED if name in headers}
    return {**passed, "content-type": "application/json", "x-request-id": request_id}


def return_headers(headers: Mapping[str, str], request_id: str) -> dict[str, str]:
    """Return the engine's headers that go to the client."""
    passed = {name: headers[name] for name in _RETURNED if name in headers}
    return {**passed, "x-request-id": request_id}


def stream_headers(headers: Mapping[str, str], request_id: str) -> dict[str, str]:
    """Return a stream's headers, from the engine's own or, before they are there, without."""
    kind = {"content-type": "text/event-stream; charset=utf-8"}
    # a proxy in front must not hold the stream back
    return {**kind, **return_headers(headers, request_id), "x-accel-buffering": "no"}


def sane_request_id(candidate: str | None) -> str | None:
    """Return the client's own request id if it is fit for a log and a header."""
    return candidate if candidate and _REQUEST_ID.fullmatch(candidate) else None


def injection_switch(headers: Mapping[str, str]) -> bool:
    """Tell whether this request wants the prompt. Raises RequestError for a word we do not know."""
    return header_choice(headers, INJECTION_HEADER, ("on", "off"), "on") == "on"


def header_choice(headers: Mapping[str, str], name: str, words: Sequence[str], default: str) -> str:
    """Return which of ``words`` a header says. Raises RequestError 400 for another one."""
    value = headers.get(name, default).strip().lower()
    if value not in words:
        shown = f"{name}: {value[:40]!r} is none of {', '.join(words)}"
        raise RequestError(400, "bad_header", shown, f"send {name}: {words[-1]}, or leave it out")
    return value
