"""The wire: which routes pass, how an error looks, and what we change in a body. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from appliance.errors import (
    ApplianceError,
    EngineError,
    RequestError,
    UpstreamError,
    http_status,
)
from appliance.prompt import PromptPolicy
from appliance.sse import event_data, with_data


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

CONTROL_PREFIX = "/appliance/v1"
INJECTION_HEADER = "x-appliance-prompt"


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


def error_headers(
    error: ApplianceError, body: bytes, request_id: str, retry_after_s: int
) -> dict[str, str]:
    """Return the headers of an error's ``body``.

    ``retry_after_s`` is for an engine that was lost; an error that knows better says its own.
    """
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-request-id": request_id,
    }
    if isinstance(error, EngineError):
        headers["retry-after"] = str(error.retry_after_s)
    elif isinstance(error, UpstreamError):
        headers["retry-after"] = str(retry_after_s)
    elif http_status(error) == 429:
        headers["retry-after"] = "2"
    return headers


def sane_request_id(candidate: str | None) -> str | None:
    """Return the client's own request id if it is fit for a log and a header."""
    return candidate if candidate and _REQUEST_ID.fullmatch(candidate) else None


def injection_switch(headers: Mapping[str, str]) -> bool:
    """Tell whether this request wants the prompt. Raises RequestError for a word we do not know."""
    value = headers.get(INJECTION_HEADER, "on").strip().lower()
    if value not in ("on", "off"):
        raise RequestError(
            400, "bad_header", f"{INJECTION_HEADER}: {value!r} is neither on nor off", "send off"
        )
    return value == "on"


# ---- bodies

# What msgspec raises over bytes that are no JSON; RecursionError where they nest too deep.
_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def parse_body(body: bytes) -> dict[str, msgspec.Raw]:
    """Return a request's top-level fields, their values unparsed.

    Raises RequestError 400 when it is no JSON object.
    """
    try:
        body.decode()  # unparsed values would pass with whatever bytes their strings hold
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        raise RequestError(
            400, "invalid_json", "the body is JSON, but no object", 'send {"model": …, …}'
        ) from None
    except _NO_JSON as cause:
        detail = str(cause) or "it nests too deep"
        raise RequestError(
            400, "invalid_json", f"the body is no JSON: {detail}", "send one JSON object"
        ) from None


def check_model(fields: dict[str, msgspec.Raw], served: str) -> None:
    """Refuse a model that is not served here. A request that names none gets the served one.

    It is written into ``fields``: some of the engine's routes ask for it.
    """
    model = field_value(fields, "model")
    if model is None:
        fields["model"] = msgspec.Raw(msgspec.json.encode(served))
        return
    if not isinstance(model, str):
        shown = bytes(fields["model"])[:80].decode("utf-8", "replace")
        raise RequestError(400, "invalid_type", f"model is {shown}, no text", f'send "{served}"')
    if model != served:
        raise RequestError(
            404, "model_not_found", f"the model {model!r} is not served here", f'use "{served}"'
        )


def field_value(fields: Mapping[str, msgspec.Raw], name: str) -> Any:
    """Return the parsed value of one field, None when it is absent. Raises RequestError 400."""
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw)
    except _NO_JSON as cause:
        raise RequestError(
            400, "invalid_json", f"{name} is no JSON: {cause}", "send one JSON object"
        ) from None


def engine_body(fields: dict[str, msgspec.Raw], route: RelayRoute, policy: PromptPolicy) -> bytes:
    """Return the body for the engine: the policy's text in the field that this route keeps it in.

    A field of a shape that we do not know passes as it is: the engine's own error names it.
    """
    changed: dict[str, Any] = dict(fields)
    if route.prompt == "messages":
        messages = field_value(fields, "messages")
        if isinstance(messages, list):
            named = [_with_reasoning(message) for message in messages]
            changed["messages"] = policy.apply_to_messages(named)
    elif route.prompt:
        value = field_value(fields, route.prompt)
        folded = policy.fold_content(value)
        if folded is not value:
            changed[route.prompt] = folded
    return msgspec.json.encode(changed)


def _with_reasoning(message: Any) -> Any:
    """Give a message's ``reasoning_content``, which Kilo sends back, its newer name too.

    The engine does that itself for a chat, but not for ``/tokenize``, whose count would be short.
    """
    if not isinstance(message, dict) or "reasoning_content" not in message:
        return message
    return {**message, "reasoning": message.get("reasoning") or message["reasoning_content"]}


# ---- replies


def alias_reasoning(body: bytes) -> bytes:
    """Return a chat reply (or one chunk's data) with the reasoning under both names.

    vLLM says ``reasoning``; older clients, and Kilo's own echo, say ``reasoning_content``.
    Bytes without the word pass untouched.
    """
    if b'"reasoning"' not in body:
        return body
    try:
        reply = msgspec.json.decode(body)
    except _NO_JSON:
        return body
    if not isinstance(reply, dict) or not isinstance(reply.get("choices"), list):
        return body
    changed = False
    for choice in reply["choices"]:
        for name in ("delta", "message"):
            part = choice.get(name) if isinstance(choice, dict) else None
            if isinstance(part, dict) and "reasoning" in part:
                part.setdefault("reasoning_content", part["reasoning"])
                changed = True
    return msgspec.json.encode(reply) if changed else body


def alias_event(event: bytes) -> bytes:
    """Apply ``alias_reasoning`` to one whole event."""
    if b'"reasoning"' not in event:
        return event
    data = event_data(event)
    aliased = alias_reasoning(data)
    return event if aliased is data else with_data(event, aliased)


def is_engine_fault(event: bytes) -> bool:
    """Tell whether an event reports that the engine failed, or was stopped, in mid-stream.

    Clients retry a broken connection; they do not retry an error event, and take a stream that
    ends with ``abort`` and ``[DONE]`` for a whole answer.
    """
    if b'"finish_reason":"abort"' in event:
        return True
    if not event.startswith(b'data: {"error"'):
        return False
    try:
        error = msgspec.json.decode(event_data(event))["error"]
    except (*_NO_JSON, KeyError, TypeError):
        return False
    code = error.get("code") if isinstance(error, dict) else None
    return isinstance(code, int) and code >= 500


# ---- errors


def error_body(error: ApplianceError, *, anthropic: bool = False) -> bytes:
    """Return an error as OpenAI's clients read it; with Anthropic's outer mark where asked."""
    message = f"{error.what}; {error.hint}" if error.hint else error.what
    kind = error.error_type
    detail = {"message": message, "type": kind, "param": None, "code": error.code}
    if anthropic:
        detail["type"] = _ANTHROPIC_TYPES.get(http_status(error), "api_error")
        return msgspec.json.encode({"type": "error", "error": detail})
    return msgspec.json.encode({"error": detail})


_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def normalise_error(status: int, body: bytes, *, anthropic: bool) -> bytes:
    """Return the engine's error reply in the one shape that clients know.

    An envelope of the right kind passes; anything else (OpenAI's envelope on an Anthropic route,
    ``{"detail": …}``, plain text, nothing) is wrapped.
    """
    try:
        reply = msgspec.json.decode(body)
    except _NO_JSON:
        reply = None
    fields = reply if isinstance(reply, dict) else {}
    error = fields.get("error")
    is_envelope = isinstance(error, dict) and "message" in error
    if is_envelope and (not anthropic or fields.get("type") == "error"):
        return body
    told = error.get("message") if isinstance(error, dict) else error
    told = told or fields.get("message") or fields.get("detail")
    text = str(told) if told else body.decode("utf-8", "replace")[:500] or "no text"
    if status >= 500:
        return error_body(
            ApplianceError(f"the engine answered {status}: {text}", code="engine_error"),
            anthropic=anthropic,
        )
    wrapped = RequestError(status, "not_found" if status == 404 else "refused_by_engine", text)
    return error_body(wrapped, anthropic=anthropic)


def is_permanent(status: int) -> bool:
    """Tell whether an error's status says that the same request will always meet it."""
    return 400 <= status < 500 and status not in (408, 429)


def error_event(body: bytes, *, anthropic: bool) -> bytes:
    """Return an error's JSON as the end of a stream that has begun, as the route's clients read it.

    They do not ask again after it: it is for what would be refused each time.
    """
    data = b"data: " + msgspec.json.format(body, indent=-1) + b"\n\n"  # on one line
    return b"event: error\n" + data if anthropic else data + b"data: [DONE]\n\n"
