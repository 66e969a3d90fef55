"""Reads the headers of safetensors files: what tensors take, by dtype. Never a tensor itself.

A file is 8 bytes of length, little-endian, then that much JSON, then the tensors. 134 GB of
weights have some 20 MB of headers.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

HEADER_LIMIT = 100_000_000  # bytes; the format's own limit
METADATA = "__metadata__"


def tensor_bytes(path: Path) -> Counter[str]:
    """Return the bytes of a file's tensors by dtype, as the file spells it ("BF16", "U8").

    Raises ValueError saying what is wrong with the file, OSError when it cannot be read.
    """
    header, data_bytes = _read_header(path)
    sizes: Counter[str] = Counter()
    end = 0
    for name, entry in header.items():
        if name == METADATA:
            continue
        start, stop, dtype = _entry(name, entry)
        sizes[dtype] += stop - start
        end = max(end, stop)
    if end != data_bytes:
        raise ValueError(f"ends after {data_bytes:,} of {end:,} bytes of tensors")
    return sizes


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header and how many bytes follow it."""
    with path.open("rb") as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(HEADER_LIMIT, size - 8):
            raise ValueError(f"is no safetensors file: a header of {length:,} bytes in {size:,}")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            raise ValueError("is no safetensors file: its header is no JSON") from None
    if not isinstance(header, dict):
        raise ValueError("is no safetensors file: its header is no JSON object")
    return header, size - 8 - length


def _entry(name: str, entry: Any) -> tuple[int, int, str]:
    match entry:
        case {"dtype": str(dtype), "data_offsets": [int(start), int(stop)]} if 0 <= start <= stop:
            return start, stop, dtype
    raise ValueError(f"has a header without a type and place of {name[:80]!r}")
