"""A body on its way to the engine: its top-level fields, most of them bytes as they came. Pure."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
from pydantic import TypeAdapter, ValidationError

from appliance.errors import RequestError
from appliance.openai import NO_JSON

Piece: TypeAlias = bytes | memoryview | msgspec.Raw
# The engine's own rule: 1e9, 32000.0 and "32000" are numbers to it, and true is 1.
_WHOLE = TypeAdapter(int | None)


class Draft:
    """Fields by name, each a JSON text in one or more pieces; joined once, at the end.

    ``repairs`` names the kinds of change that its messages took.
    """

    def __init__(
        self, fields: Mapping[str, msgspec.Raw], repairs: frozenset[str] = frozenset()
    ) -> None:
        self._fields: dict[str, tuple[Piece, ...]] = {n: (raw,) for n, raw in fields.items()}
        self.repairs = repairs

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    @property
    def size(self) -> int:
        """The bytes of all values."""
        return sum(_length(piece) for value in self._fields.values() for piece in value)

    def raw(self, name: str) -> bytes | None:
        """Return a field's JSON text, None when there is none."""
        value = self._fields.get(name)
        return None if value is None else b"".join(value)

    def value(self, name: str) -> Any:
        """Return the parsed value of a field, None when it is absent. Raises RequestError 400."""
        text = self.raw(name)
        return None if text is None else parsed(text, name)

    def whole(self, name: str) -> int | None:
        """Return a field as the engine reads a whole number.

        None where it is absent, null, or what the engine refuses. Raises RequestError 400.
        """
        return as_whole(self.value(name))

    def put(self, name: str, *pieces: Piece) -> None:
        """Set a field's JSON text."""
        self._fields[name] = pieces

    def put_value(self, name: str, value: Any) -> None:
        """Set a field's value."""
        self._fields[name] = (msgspec.json.encode(value),)

    def drop(self, name: str) -> None:
        """Leave a field out."""
        self._fields.pop(name, None)

    def let_go(self) -> None:
        """Forget all fields: they hold what the client sent, and the engine gets another copy."""
        self._fields.clear()

    def encode(self) -> bytes:
        """Return the body."""
        pieces: list[Piece] = []
        before = b"{"
        for name, value in self._fields.items():
            pieces += (before, msgspec.json.encode(name), b":", *value)
            before = b","
        return b"".join((*pieces, b"}")) if pieces else b"{}"


def parsed(text: bytes | msgspec.Raw, name: str) -> Any:
    """Return the value of the JSON ``text`` of a field. Raises RequestError 400."""
    try:
        return msgspec.json.decode(text)
    except NO_JSON as cause:
        raise RequestError(
            400, "invalid_json", f"{name} is no JSON: {cause}", "send one JSON object"
        ) from None


def as_whole(value: Any) -> int | None:
    """Return a value as the engine reads a whole number, None where it refuses it (or is null)."""
    try:
        return _WHOLE.validate_python(value)
    except ValidationError:
        return None


def _length(piece: Piece) -> int:
    return memoryview(piece).nbytes
