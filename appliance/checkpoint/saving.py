"""Small files that a command was asked for: a report, a mask, a chart."""

import os
from contextlib import suppress
from pathlib import Path

from appliance.checkpoint.failures import DestinationError


def refuse_unwritable(path: Path) -> None:
    """Raise DestinationError when a file that is asked for surely cannot be written."""
    if not path.parent.is_dir():
        raise DestinationError(f"there is no folder for {path}", "make it, or name another")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise DestinationError(f"{path} cannot be written", "name a file in a folder of yours")


def save(path: Path, text: str, hint: str) -> None:
    """Write a small file that was asked for: whole, or what was there stays.

    Raises DestinationError with ``hint`` when it cannot be.
    """
    path = path.resolve()
    is_plain = path.is_file() or not path.exists()  # and no /dev/stdout
    part = path.with_name(f"{path.name}.part") if is_plain else path
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as cause:
        if is_plain:
            with suppress(OSError):
                part.unlink()
        raise DestinationError(f"{path} cannot be written: {cause.strerror}", hint) from cause
