"""Requests on the wire: what is read of a body, and what we change in it. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec

from appliance.errors import (
    RequestError,
)
from appliance.openai import NO_JSON, RelayRoute
from appliance.prompt import PromptPolicy


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
    except NO_JSON as cause:
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
    except NO_JSON as cause:
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
