"""Errors on the wire: in one shape, as each route's clients read them. Pure."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from appliance.errors import (
    ApplianceError,
    EngineError,
    RequestError,
    UpstreamError,
    http_status,
)
from appliance.openai import NO_JSON


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
    403: "permission_error",
    405: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


# The engine's words for a prompt that is too long, of this version and of others.
_TOO_LONG = re.compile(r"maximum context length (?:is|of) \d|maximum context length \(\d")
TOO_LONG = "context_length_exceeded"
MOST_ISSUES = 5  # of FastAPI's findings: a union's kinds have one each


def normalise_error(status: int, body: bytes, *, anthropic: bool) -> bytes:
    """Return the engine's error reply in the one shape that clients know.

    An envelope of the right kind passes; anything else (OpenAI's envelope on an Anthropic route,
    ``{"detail": …}``, plain text, nothing) is wrapped. That a prompt is too long is said with the
    code by which clients know it.
    """
    try:
        reply = msgspec.json.decode(body)
    except NO_JSON:
        reply = None
    fields = reply if isinstance(reply, dict) else {}
    error = fields.get("error")
    is_envelope = isinstance(error, dict) and "message" in error
    is_too_long = status == 400 and _TOO_LONG.search(_message(error)) is not None
    if is_too_long and isinstance(error, dict):
        return _too_long({**error, "code": TOO_LONG}, anthropic=anthropic)
    if is_envelope and (not anthropic or fields.get("type") == "error"):
        return body
    told = error.get("message") if isinstance(error, dict) else error
    told = told or fields.get("message") or fields.get("detail")
    text = _readable(told) or body.decode("utf-8", "replace")[:500] or "no text"
    if status >= 500:
        return error_body(
            ApplianceError(f"the engine answered {status}: {text}", code="engine_error"),
            anthropic=anthropic,
        )
    wrapped = RequestError(status, "not_found" if status == 404 else "refused_by_engine", text)
    return error_body(wrapped, anthropic=anthropic)


def issues_text(issues: Iterable[Any]) -> str:
    """Return what FastAPI found wrong, as ``field: what``; the first few of it, and how many more.

    Each of ``issues`` is an object with ``loc``, the way to the field, and ``msg``. What a client
    sent is not repeated.
    """
    found = [issue for issue in issues if isinstance(issue, dict) and issue.get("msg")]
    texts = []
    for issue in found[:MOST_ISSUES]:
        loc = issue.get("loc")
        way = [str(step) for step in loc] if isinstance(loc, list | tuple) else []
        field = ".".join(way[1:] if way[:1] in (["body"], ["query"], ["path"]) else way)
        texts.append(f"{field or 'the body'}: {issue['msg']}")
    more = len(found) - len(texts)
    return "; ".join(texts) + (f"; and {more} more" if more else "")


def _readable(told: Any) -> str:
    if isinstance(told, str) or not told:
        return told or ""
    text = issues_text(told) if isinstance(told, list) else ""
    return text or msgspec.json.encode(told)[:500].decode("utf-8", "replace")


def _message(error: Any) -> str:
    told = error.get("message") if isinstance(error, dict) else None
    return told if isinstance(told, str) else ""


def _too_long(error: dict[str, Any], *, anthropic: bool) -> bytes:
    if not anthropic:
        return msgspec.json.encode({"error": error})
    # these words are what Anthropic's clients compact at
    message = f"prompt is too long: {error['message']}"
    named = {**error, "type": "invalid_request_error", "message": message}
    return msgspec.json.encode({"type": "error", "error": named})
