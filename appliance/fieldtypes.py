"""How the settings' values are read: sizes, lists, tables and paths, from text or as they are."""

import contextlib
import ipaddress
import json
import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.fields import FieldInfo

from appliance.sizes import parse_size


def _words(value: Any) -> Any:
    """Split a string as a shell would (a path with a space, or JSON, is quoted); a list passes."""
    return tuple(shlex.split(value)) if isinstance(value, str) else value


def _numbers(value: Any) -> Any:
    """Split a comma- or space-separated string; a list passes."""
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _table(value: Any) -> Any:
    """Read a string as a JSON object; a table passes."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise ValueError('write a JSON object, for example {"temperature": 1.0}') from None


def _home(value: Path) -> Path:
    # an .env file or a unit file has no shell that would do it
    return Path(os.path.expanduser(value))


def _engine_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must start with http:// or https://, for example http://127.0.0.1:8000")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or password: set APPLIANCE_ENGINE_KEY instead")
    return value


Size = Annotated[int, BeforeValidator(parse_size)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Numbers = Annotated[tuple[int, ...], BeforeValidator(_numbers)]
Table = Annotated[dict[str, int | float], BeforeValidator(_table)]
HomePath = Annotated[Path, AfterValidator(_home)]
Address = Annotated[str, AfterValidator(_engine_address)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]  # more is a slip of the key
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Positive


def is_size(field: FieldInfo) -> bool:
    """Whether the setting is a number of bytes, and reads best with a unit."""
    kinds = get_args(field.annotation)  # of "Size | None" it is the first
    inner = [entry for kind in kinds for entry in getattr(kind, "__metadata__", ())]
    return any(getattr(entry, "func", None) is parse_size for entry in (*field.metadata, *inner))


def is_loopback(host: str) -> bool:
    """Whether an address to listen on, or a name, is this machine's alone."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


# ---- vLLM's flags

_OURS = "the appliance decides that"
# --trust-remote-code would run a checkpoint's own Python, --config could smuggle it in; the last
# ones are the memory plan's, which would not know of them; the rest is the supervisor's.
OWNED_FLAGS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("--trust-remote-code", "--config", "--host", "--port"), _OURS),
        **dict.fromkeys(("--api-key", "--uds", "--model"), _OURS),
        "--gpu-memory-utilization": "set APPLIANCE_GPU_MEMORY_UTILIZATION instead",
        "--max-model-len": "set APPLIANCE_MAX_MODEL_LEN instead",
        "--max-num-seqs": "set APPLIANCE_MAX_NUM_SEQS instead",
        "--kv-cache-memory-bytes": (
            "set APPLIANCE_MAX_MODEL_LEN or APPLIANCE_MEMORY_PROFILE instead"
        ),
    }
)


def named_flag(argument: str, flags: Iterable[str]) -> str | None:
    """Return which of ``flags`` a word of vLLM's command line names; None for none of them."""
    # vLLM's parser takes underscores for dashes, argparse unique prefixes, JSON flags a key
    flag = argument.partition("=")[0].partition(".")[0].replace("_", "-")
    if not flag.startswith("--"):
        return None
    return next((known for known in flags if known.startswith(flag)), None)


def refused_flag(arguments: Iterable[str]) -> str:
    """Return the first word that names an owned flag, and what to do instead; "" for none."""
    for argument in arguments:
        if owned := named_flag(argument, OWNED_FLAGS):
            flag = argument.partition("=")[0]  # without its value, which may be a key
            return f"{flag}: {OWNED_FLAGS[owned]}"
    return ""
