"""Headers of safetensors files: sizes by dtype, and never a surprise from a broken file."""

import json
import re
import struct
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.checkpoint.failures import CheckpointError, SourceError
from appliance.checkpoint.headers import (
    HEADER_LIMIT,
    METADATA,
    Tensor,
    parse_header,
    read_header,
    render_header,
)
from appliance.checkpoint.source import LocalSource
from tests.checkpoints import shard_bytes


def file_of(folder: Path, content: bytes) -> Path:
    path = folder / "shard.safetensors"
    path.write_bytes(content)
    return path


def tensor_bytes(path: Path) -> Counter[str]:
    """Return the bytes of a file's tensors by type."""
    sizes: Counter[str] = Counter()
    with closing(LocalSource(path.parent)) as source:
        for tensor in read_header(source, path.name).tensors:
            sizes[tensor.dtype] += tensor.size
    return sizes


def headed(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@given(
    st.dictionaries(
        st.sampled_from(["U8", "BF16", "F32", "F8_E4M3"]), st.integers(0, 500).map(lambda n: 4 * n)
    )
)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, sizes: dict[str, int]
) -> None:
    path = file_of(tmp_path_factory.mktemp("shard"), shard_bytes(sizes))
    assert +tensor_bytes(path) == {name: size for name, size in sizes.items() if size}


def test_tensors_of_one_type_are_added_up(tmp_path: Path) -> None:
    header = {
        "a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "b": {"dtype": "U8", "shape": [2], "data_offsets": [3, 5]},
    }
    assert tensor_bytes(file_of(tmp_path, headed(header, b"12345"))) == {"U8": 5}


def test_the_tensors_themselves_are_not_read(tmp_path: Path) -> None:
    header = {"a": {"dtype": "U8", "shape": [2**40], "data_offsets": [0, 2**40]}}
    path = file_of(tmp_path, headed(header))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 2**40)  # a hole: reading it would take minutes
    assert tensor_bytes(path) == {"U8": 2**40}


def repeated() -> bytes:
    return headed({"v": ENTRY, "w": ENTRY}, b"1").replace(b'"v"', b'"w"')


ENTRY = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
BROKEN = {
    "empty": (b"", "no safetensors file"),
    "short": (b"\x01\x00", "no safetensors file"),
    "text": (b"version https://git-lfs.github.com/spec/v1", "no safetensors file"),
    "header too long": (struct.pack("<Q", HEADER_LIMIT + 1) + b"{}", "no safetensors file"),
    "header beyond the end": (struct.pack("<Q", 100) + b"{}", "a header of 100 bytes in 10"),
    "no JSON": (struct.pack("<Q", 2) + b"{[", "no JSON"),
    "no UTF-8": (struct.pack("<Q", 2) + b"\xff\xfe", "no JSON"),
    "too deep": (struct.pack("<Q", 100_000) + b"[" * 100_000, "no JSON"),
    "a list": (headed([1]), "no JSON object"),
    "no place": (headed({"w": {"dtype": "U8"}}), "type, shape and place of 'w'"),
    "no type": (headed({"w": {"data_offsets": [0, 1]}}, b"1"), "type, shape and place of 'w'"),
    "backwards": (headed({"w": {"dtype": "U8", "data_offsets": [2, 1]}}, b"1"), "'w'"),
    "three offsets": (headed({"w": {"dtype": "U8", "data_offsets": [0, 1, 2]}}, b"12"), "'w'"),
    "no shape": (headed({"w": {"dtype": "U8", "data_offsets": [0, 1]}}, b"1"), "place of 'w'"),
    "a truth": (headed({"w": ENTRY | {"shape": [True]}}, b"1"), "place of 'w'"),
    "a negative length": (headed({"w": ENTRY | {"shape": [-1]}}, b"1"), "place of 'w'"),
    "a broken number": (headed({"w": ENTRY | {"shape": [1.0]}}, b"1"), "place of 'w'"),
    "an overlap": (headed({"v": ENTRY, "w": ENTRY}, b"1"), "'w' overlaps what is before it"),
    "a hole": (headed({"w": ENTRY | {"data_offsets": [1, 2]}}, b"12"), "leaves a hole before"),
    "another size": (headed({"w": ENTRY | {"shape": [2]}}, b"1"), "1 bytes, which is not U8 x [2]"),
    "a huge shape": (headed({"w": ENTRY | {"shape": [2**62] * 9}}, b"1"), "1 bytes, which is not"),
    "half a pair": (headed({"\ud800": ENTRY}, b"1"), "place of '\\ud800'"),
    "a line end": (headed({"a\nb": ENTRY}, b"1"), "place of 'a\\nb'"),
    "a name without end": (headed({"x" * 5000: ENTRY}, b"1"), "place of 'xxxx"),
    "a name twice": (repeated(), "has 'w' twice in its header"),
    "metadata of numbers": (headed({"__metadata__": {"a": 1}}), "no table of texts"),
    "metadata of halves": (headed({"__metadata__": {"a": "\udc00"}}), "characters that are none"),
    "a number without end": (struct.pack("<Q", 9005) + b'{"a":' + b"9" * 8999 + b"}", "no JSON"),
    "cut short": (shard_bytes({"U8": 9})[:-4], "ends after 5 of 9 bytes"),
    "too long": (shard_bytes({"U8": 9}) + b"x", "ends after 10 of 9 bytes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_said_to_be_one(tmp_path: Path, case: str) -> None:
    content, says = BROKEN[case]
    with pytest.raises(CheckpointError, match=re.escape(says)):
        tensor_bytes(file_of(tmp_path, content))


@given(st.binary(max_size=200))
def test_no_file_of_any_bytes_is_more_than_a_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = file_of(tmp_path_factory.mktemp("shard"), content)
    try:
        sizes = tensor_bytes(path)
    except CheckpointError:
        return
    assert sizes.total() <= len(content)


@settings(max_examples=300)
@given(st.data())
def test_a_header_with_any_byte_changed_is_right_or_a_value_error(data: st.DataObject) -> None:
    """Whatever is accepted, every tensor lies within the file."""
    whole = bytearray(
        headed(
            {"a": ENTRY, "b": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [1, 9]}}, b"9" * 9
        )
    )
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(8, len(whole) - 10))] = data.draw(st.integers(0, 255))
    try:
        header = parse_header(bytes(whole[8:-9]), len(whole))
    except ValueError:
        return
    assert all(0 <= tensor.start <= tensor.stop <= 9 for tensor in header.tensors)
    assert sum(tensor.size for tensor in header.tensors) == 9


NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)


@given(st.dictionaries(NAMES, st.tuples(st.sampled_from(["U8", "Q9"]), st.integers(0, 9))))
def test_what_is_rendered_is_parsed(named: dict[str, tuple[str, int]]) -> None:
    tensors, end = [], 0
    for name, (dtype, size) in named.items():
        if name != METADATA:
            tensors.append(Tensor(name, dtype, (size,), end, end + size))
            end += size
    head = render_header(tensors, {"format": "pt"})
    assert len(head) % 8 == 0
    header = parse_header(head[8:], len(head) + end)
    assert (header.tensors, header.metadata) == (tuple(tensors), {"format": "pt"})
    assert header.data_start == len(head)


def test_a_file_that_is_not_there_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        tensor_bytes(tmp_path / "gone")
