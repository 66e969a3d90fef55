"""Facts from a file: to plan for a machine, or a checkpoint, that is not here. Pure.

The file is one JSON object with the fields of HostFacts or of ModelFacts. A size is a number of
bytes or a text like "121.69 GiB"; "about" may say where the facts are from.
"""

import json
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from appliance.errors import SettingsError
from appliance.facts import HostFacts, ModelFacts
from appliance.sizes import LARGEST, parse_size

Facts = TypeVar("Facts")
ABOUT = "about"
SWAP_KINDS = ("disk", "file", "zram")  # whatever is not zram would count as room


def read_host(text: str, name: str) -> HostFacts:
    """Return the machine that a file describes; ``name`` is the file's. Raises SettingsError."""
    host = _read(HostFacts, text, name)
    if host.memory_available_bytes > host.memory_total_bytes:
        raise _wrong(name, "memory_available_bytes is more than memory_total_bytes")
    if host.memory_total_bytes == 0:
        raise _wrong(name, "memory_total_bytes is 0")
    for n, device in enumerate(host.swap):
        if device.kind not in SWAP_KINDS:
            kinds = ", ".join(SWAP_KINDS)
            raise _wrong(name, f"swap[{n}].kind={device.kind!r} is none of {kinds}")
    return host


def read_model(text: str, name: str) -> ModelFacts:
    """Return the checkpoint that a file describes; ``name`` is the file's. Raises SettingsError."""
    return _read(ModelFacts, text, name)


def _read(kind: type[Facts], text: str, name: str) -> Facts:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as cause:
        raise _wrong(name, f"is no JSON: {cause}") from None
    if isinstance(value, dict):
        value.pop(ABOUT, None)
    try:
        found: Facts = _facts(kind, value, "")
    except ValueError as cause:
        raise _wrong(name, str(cause)) from None
    return found


def _wrong(name: str, what: str) -> SettingsError:
    return SettingsError(f"{name}: {what}", "appliance plan --json shows the facts of this machine")


def _facts(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'it'} is no JSON object")
    known: dict[str, Field[Any]] = {field.name: field for field in fields(kind)}
    if unknown := sorted(value.keys() - known.keys()):
        raise ValueError(f"{_inside(where, unknown[0])} is not known; known: {', '.join(known)}")
    hints = get_type_hints(kind)
    given = {
        name: _value(hints[name], entry, _inside(where, name)) for name, entry in value.items()
    }
    missing = [
        name
        for name, field in known.items()
        if name not in given and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{_inside(where, missing[0])} is missing")
    return kind(**given)


def _inside(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _value(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) is UnionType:
        if value is None:
            return None
        (hint,) = (kind for kind in get_args(hint) if kind is not NoneType)
    if is_dataclass(hint):
        return _facts(hint, value, where)
    if get_origin(hint) is tuple:
        return _tuple(get_args(hint), value, where)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{where}={value!r} is none of {', '.join(get_args(hint))}")
        return value
    if hint is int:
        return _number(value, where)
    if not isinstance(value, str):
        raise ValueError(f"{where}={value!r} is no text")
    return Path(value) if hint is Path else value


def _number(value: Any, where: str) -> int:
    if isinstance(value, str) and where.endswith("_bytes"):
        try:
            value = parse_size(value)
        except ValueError as cause:
            raise ValueError(f"{where}: {cause}") from None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{where}={value!r} is no number of 0 or more")
    if value > LARGEST:
        raise ValueError(f"{where} is too large")
    return value


def _tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{where}={value!r} is no list")
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise ValueError(f"{where} has {len(value)} entries instead of {len(kinds)}")
    pairs = enumerate(zip(kinds, value, strict=True))
    return tuple(_value(kind, entry, f"{where}[{n}]") for n, (kind, entry) in pairs)
