"""Requests on the wire: what is read of a body, and what we change in it. Pure.

A body is checked to be one JSON object before anything else, each of its bytes once: ``parse_body``
checks a whole one, ``conversation.go_on`` what is new in one whose beginning is known. One that
holds very many values is refused before any of them is read.
"""

import re
from collections.abc import Iterator

import msgspec

from appliance.draft import Draft
from appliance.errors import (
    RequestError,
)
from appliance.openai import NO_JSON, RelayRoute
from appliance.prompt import PromptPolicy

PIECE_BYTES = 256 * 1024
_LATER_BYTES = 3  # of a character in UTF-8, after its first: more in a row are none
# What is read of a body costs some hundred bytes a value, here and in the engine: one that is
# made of nothing else than "{}," costs fifty times its size. A shorter body holds few enough.
LARGE_BYTES = 5 * 2**18
MOST_VALUES = 250_000
_MARKS = b",[{"  # one of them is before each value, but for the first of all and those of members
_WHOLE_ESCAPE = re.compile(rb"\\*[^\\]?")


def parse_body(body: bytes) -> dict[str, msgspec.Raw]:
    """Return a request's top-level fields, their values unparsed.

    Raises RequestError 400 when it is no JSON object.
    """
    for _ in check_text(body):
        pass
    return parse_fields(body)


def check_text(body: bytes) -> Iterator[None]:
    """Check that ``body`` is UTF-8 and holds no more than MOST_VALUES values, a piece at each step.

    Unparsed values would pass with whatever bytes their strings hold. Raises RequestError 400.
    """
    if len(body) > LARGE_BYTES:
        yield from check_values(body)
    if body.isascii():
        return
    start = 0
    while start < len(body):
        end = min(start + PIECE_BYTES, len(body))
        for _ in range(_LATER_BYTES):  # not within a character
            if end < len(body) and body[end] & 0xC0 == 0x80:
                end -= 1
        try:
            body[start:end].decode()
        except UnicodeDecodeError as cause:
            raise _no_json(str(cause)) from None
        start = end
        yield


def check_values(
    body: bytes, most: int = MOST_VALUES, piece_bytes: int = PIECE_BYTES
) -> Iterator[None]:
    """Check that a body holds no more than ``most`` values, a piece at each step.

    Raises RequestError 400.
    """
    marks = 0
    for start in range(0, len(body), piece_bytes):
        marks += count_marks(body[start : start + piece_bytes])
        yield
    if marks <= most:
        return  # those in strings among them
    marks = start = 0
    is_string = False
    while start < len(body):
        last = min(start + piece_bytes, len(body)) - 1
        found = _WHOLE_ESCAPE.match(body, last)
        end = found.end() if found else last + 1
        parts = body[start:end].replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        marks += count_marks(b"".join(parts[is_string::2]))
        if marks > most:
            raise RequestError(
                400,
                "too_many_values",
                f"the body holds more than {most:,} values (messages, parts and fields)",
                "send fewer and longer ones",
            )
        is_string ^= len(parts) % 2 == 0
        start = end
        yield


def count_marks(text: bytes) -> int:
    """Return how many values ``text`` may hold, those within its strings among them."""
    return len(text) - len(text.translate(None, _MARKS))


def parse_fields(body: bytes) -> dict[str, msgspec.Raw]:
    """Return the top-level fields of a body that is UTF-8. Raises RequestError 400."""
    try:
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        raise RequestError(
            400, "invalid_json", "the body is JSON, but no object", 'send {"model": …, …}'
        ) from None
    except NO_JSON as cause:
        raise _no_json(str(cause) or "it nests too deep") from None


def _no_json(detail: str) -> RequestError:
    return RequestError(
        400, "invalid_json", f"the body is no JSON: {detail}", "send one JSON object"
    )


def check_model(draft: Draft, served: str) -> None:
    """Refuse a model that is not served here. A request that names none gets the served one.

    It is written into ``draft``: some of the engine's routes ask for it.
    """
    model = draft.value("model")
    if model is None:
        draft.put_value("model", served)
        return
    if not isinstance(model, str):
        shown = (draft.raw("model") or b"")[:80].decode("utf-8", "replace")
        raise RequestError(400, "invalid_type", f"model is {shown}, no text", f'send "{served}"')
    if model != served:
        what = f"the model {model[:80]!r} is not served here"
        raise RequestError(404, "model_not_found", what, f'use "{served}"')


def fold_field(draft: Draft, route: RelayRoute, policy: PromptPolicy) -> None:
    """Put the policy's text in the one field that this route keeps it in, where it is a field.

    A value of a shape that we do not know passes as it is: the engine's own error names it.
    """
    if not policy.text or route.prompt in ("", "messages"):
        return
    value = draft.value(route.prompt)
    folded = policy.fold_content(value)
    if folded is not value:
        draft.put_value(route.prompt, folded)
