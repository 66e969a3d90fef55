"""Byte sizes as people write them: ``"64MiB"``, ``"96 GiB"``, ``"1.5GB"``."""

import re
import reprlib

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
LARGEST = 2**60  # bytes, an EiB: more is no machine's, and far from what a float cannot hold
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxlong = 60
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_size(text: str | int) -> int:
    """Return the bytes that ``text`` names; an int is bytes already.

    Raises ValueError naming the text, cut if it is long, and the accepted form.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        size: float = text
    else:
        match = _SIZE.fullmatch(text) if isinstance(text, str) else None
        unit = _UNITS.get(match[2].upper()) if match else None
        if match is None or unit is None:
            shown = _SHOWN.repr(text)
            raise ValueError(f"{shown} is no size: write for example 64MiB, 1.5GB or 4096")
        size = float(match[1]) * unit
    if size > LARGEST:
        raise ValueError(f"{_SHOWN.repr(text)} is too large: no machine has more than an EiB")
    return round(size)


def format_size(size_bytes: int) -> str:
    """Return ``size_bytes`` in the largest binary unit that keeps it at 1 or more."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
