"""Reads and writes the headers of safetensors files: what is where. Never a tensor itself.

A file is 8 bytes of length, little-endian, then that much JSON, then the tensors without overlap
or hole. 134 GB of weights have some 20 MB of headers. Nothing in a header is believed unseen:
it may come from a broken disk or from a stranger.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.jobs import in_order
from appliance.checkpoint.source import Source

HEADER_LIMIT = 100_000_000  # bytes; the format's own limit
METADATA = "__metadata__"
ALIGNMENT = 8  # the tensors begin at a multiple of it
# Bits of an element. A type that is not here is copied like any other, its shape unchecked.
_BITS = {
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}


class Tensor(NamedTuple):
    """One tensor's place: bytes ``start`` to ``stop`` of its file's data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Return its length in bytes."""
        return self.stop - self.start


@dataclass(frozen=True)
class Header:
    """A file's tensors in the header's order, and where in the file their data begin."""

    tensors: tuple[Tensor, ...]
    metadata: Mapping[str, str]
    data_start: int
    file_bytes: int


def read_header(source: Source, name: str) -> Header:
    """Return the header of one file. Raises CheckpointError saying what is wrong with it."""
    return _parsed(source, name, _fetch(source, name))


def read_headers(source: Source, names: Sequence[str], jobs: int) -> Iterator[Header]:
    """Yield the header of each file; ``jobs`` are fetched side by side, parsed one by one.

    Parsed they take ten times the memory. Raises CheckpointError as ``read_header`` does.
    """
    texts = in_order(lambda name: _fetch(source, name), names, jobs, source.stop)
    for name, text in zip(names, texts, strict=True):
        yield _parsed(source, name, text)


def _fetch(source: Source, name: str) -> bytes:
    size = source.size(name)
    try:
        length = _header_length(source.read(name, 0, min(8, size)), size)
    except ValueError as cause:
        raise _unfit(source, name, cause) from cause
    return source.read(name, 8, length)


def _parsed(source: Source, name: str, text: bytes) -> Header:
    try:
        return parse_header(text, source.size(name))
    except ValueError as cause:
        raise _unfit(source, name, cause) from cause


def _unfit(source: Source, name: str, cause: ValueError) -> CheckpointError:
    return CheckpointError(
        f"{source.label}/{name} {cause}", "fetch this file again", code="model_incomplete"
    )


def parse_header(text: bytes, file_bytes: int) -> Header:
    """Return what a header's JSON says of a file of ``file_bytes``. Raises ValueError."""
    try:
        content = json.loads(text, object_pairs_hook=_object)
    except _Repeated:
        raise
    except (ValueError, RecursionError):
        raise ValueError("is no safetensors file: its header is no JSON") from None
    if not isinstance(content, dict):
        raise ValueError("is no safetensors file: its header is no JSON object")
    metadata = _metadata(content.pop(METADATA, {}))
    tensors = tuple(_tensor(name, entry) for name, entry in content.items())
    data_start = 8 + len(text)
    _check_places(tensors, file_bytes - data_start)
    return Header(tensors, metadata, data_start, file_bytes)


def render_header(tensors: Iterable[Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return the bytes before the data of a file with these tensors."""
    content: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    for name, dtype, shape, start, stop in tensors:
        content[name] = {"dtype": dtype, "shape": shape, "data_offsets": (start, stop)}
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


class _Repeated(ValueError):
    """A name stands twice: readers would differ on which one counts."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        twice = next(name for name, count in Counter(k for k, _ in pairs).items() if count > 1)
        raise _Repeated(f"has {_shown(twice)} twice in its header")
    return content


def _header_length(first: bytes, size: int) -> int:
    length = int.from_bytes(first, "little")
    if size < 8 or length > min(HEADER_LIMIT, size - 8):
        raise ValueError(f"is no safetensors file: a header of {length:,} bytes in {size:,}")
    return length


def _metadata(content: Any) -> dict[str, str]:
    if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
        raise ValueError(f"has a {METADATA} that is no table of texts")
    if not all(_clean(key) and _encodable(value) for key, value in content.items()):
        raise ValueError(f"has a {METADATA} with characters that are none")
    return content


def _tensor(name: str, entry: Any) -> Tensor:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [start, stop]} if (
            _clean(name) and _clean(dtype) and all(map(_natural, (*shape, start, stop)))
        ):
            tensor = Tensor(name, dtype, tuple(shape), start, stop)
        case _:
            raise ValueError(f"has a header without a type, shape and place of {_shown(name)}")
    if start > stop:
        raise ValueError(f"has a header in which {_shown(name)} ends before it begins")
    bits = _BITS.get(dtype)
    if bits and _elements(tensor.shape) * bits != tensor.size * 8:
        raise ValueError(
            f"gives {_shown(name)} {tensor.size:,} bytes, which is not {dtype} x {shape[:8]}"
        )
    return tensor


def _check_places(tensors: tuple[Tensor, ...], data_bytes: int) -> None:
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.stop)):
        if tensor.start != end:
            what = "overlaps what is before it" if tensor.start < end else "leaves a hole before it"
            raise ValueError(
                f"has a header in which {_shown(tensor.name)} {what}: "
                f"byte {tensor.start:,} follows byte {end:,}"
            )
        end = tensor.stop
    if end != data_bytes:
        raise ValueError(f"ends after {data_bytes:,} of {end:,} bytes of tensors")


def _elements(shape: tuple[int, ...]) -> int:
    """Multiply, but never into numbers of a million digits."""
    count = 1
    for length in shape:
        count = min(count * min(length, 2**64), 2**64)
    return 0 if 0 in shape else count


def _natural(value: Any) -> bool:
    return type(value) is int and value >= 0


def _clean(text: str) -> bool:
    """Tell whether a text can be printed and written: no control character, no half a pair."""
    return 0 < len(text) <= 4096 and text.isprintable()


def _encodable(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _shown(name: str) -> str:
    return ascii(name[:80])
