"""What the fake engine refuses, in the envelopes and mostly in the words of vLLM 0.32."""

import json
from typing import Any

from tests.fakes.engine_http import Reply, Request, json_reply

Json = dict[str, Any]

TYPES: dict[str, tuple[type, ...]] = {
    "model": (str, type(None)),
    "messages": (list,),
    "max_tokens": (int, type(None)),
    "stream": (bool, type(None)),
    "temperature": (int, float, type(None)),
    "tools": (list, type(None)),
    "tokens": (list,),
}


class Refusal(Exception):
    """A request that vLLM answers with an error envelope."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": kind, "param": param, "code": status}

    def reply(self, path: str) -> Reply:
        """Return the answer. Validation comes before the Anthropic route, so it is OpenAI's."""
        if path.startswith("/v1/messages") and self.error["type"] != "Bad Request":
            said = {"type": self.error["type"], "message": self.error["message"]}
            return json_reply({"type": "error", "error": said}, self.status)
        return json_reply({"error": self.error}, self.status)


def invalid(kind: str, where: str, message: str) -> Refusal:
    """Return the refusal of a body that does not validate."""
    detail = {"type": kind, "loc": where, "msg": message}
    return Refusal(400, f"1 validation error:\n  {detail}", "Bad Request", where)


def out_of_range(param: str, value: int, text: str) -> Refusal:
    """Return the refusal of a number that the model cannot serve."""
    told = f"{text} (parameter={param}, value={value})"
    return Refusal(400, told, "BadRequestError", param)


def checked_body(request: Request, required: set[str], names: list[str]) -> Json:
    """Return the body of a request for one of the models ``names``.

    Raises:
        Refusal: not JSON, a required field is missing, a wrong type, an unknown model.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].lower()
    if media_type != "application/json":
        only = "Unsupported Media Type: Only 'application/json' is allowed"
        raise Refusal(400, f"1 validation error:\n  {only}", "Bad Request")
    try:
        body = json.loads(request.body)
    except json.JSONDecodeError as error:
        raise invalid("json_invalid", f"body.{error.pos}", "JSON decode error") from error
    if not isinstance(body, dict):
        raise invalid("model_attributes_type", "body", "Input should be a valid dictionary")
    for name in sorted(required - body.keys()):
        raise invalid("missing", f"body.{name}", "Field required")
    for name, types in TYPES.items():
        if name in body and not isinstance(body[name], types):
            raise invalid("wrong_type", f"body.{name}", f"Input should be {types}")
    if body.get("model") and body["model"] not in names:
        told = f"The model `{body['model']}` does not exist. Valid aliases: {', '.join(names)}."
        raise Refusal(404, told, "NotFoundError", "model")
    return body


def check_prompt(body: Json) -> None:
    """Refuse a completion without a prompt and a chat without a message."""
    if "messages" in body and not body["messages"]:
        told = "Cannot apply chat template to an empty conversation. Provide at least one message."
        raise Refusal(400, told, "BadRequestError")
    if not any(body.get(name) for name in ("messages", "prompt", "input")):
        told = "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"
        raise Refusal(400, told, "BadRequestError", "prompt")


def check_lengths(max_tokens: int | None, prompt_tokens: int, limit: int) -> None:
    """Refuse what does not fit into the model's context."""
    if max_tokens is not None and max_tokens < 1:
        text = f"max_tokens must be at least 1, got {max_tokens}."
        raise out_of_range("max_tokens", max_tokens, text)
    if max_tokens is not None and max_tokens > limit:
        text = f"max_tokens={max_tokens} cannot be greater than max_model_len={limit}."
        raise out_of_range("max_tokens", max_tokens, f"{text} Please request fewer output tokens.")
    if prompt_tokens >= limit:
        text = f"This model's maximum context length is {limit} tokens. However, your prompt"
        text += f" contains at least {limit + 1} input tokens, which exceeds this limit even"
        text += " without any output tokens. Please reduce the length of the input prompt."
        raise out_of_range("input_tokens", limit + 1, text)


DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


def dead_engine() -> Refusal:
    """Return the refusal of a request whose EngineCore has died."""
    return Refusal(500, DEAD, "InternalServerError")


def dead_engine_events(path: str) -> list[bytes] | None:
    """Return how vLLM ends a stream whose EngineCore has died; None: it closes the connection."""
    if path == "/v1/responses":
        return None
    if path == "/v1/messages":
        said = {"type": "internal_error", "message": "2 validation errors for ChatCompletion…"}
        event = json.dumps({"type": "error", "error": said})
        return [f"event: error\ndata: {event}\n\n".encode()]
    event = json.dumps({"error": dead_engine().error})
    return [f"data: {event}\n\n".encode(), b"data: [DONE]\n\n"]
