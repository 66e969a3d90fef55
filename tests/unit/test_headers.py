"""Headers of safetensors files: sizes by dtype, and never a surprise from a broken file."""

import json
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.checkpoint.headers import HEADER_LIMIT, tensor_bytes
from tests.checkpoints import shard_bytes


def file_of(folder: Path, content: bytes) -> Path:
    path = folder / "shard.safetensors"
    path.write_bytes(content)
    return path


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
    "cut short": (shard_bytes({"U8": 9})[:-4], "ends after 5 of 9 bytes"),
    "too long": (shard_bytes({"U8": 9}) + b"x", "ends after 10 of 9 bytes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_said_to_be_one(tmp_path: Path, case: str) -> None:
    content, says = BROKEN[case]
    with pytest.raises(ValueError, match=re.escape(says)):
        tensor_bytes(file_of(tmp_path, content))


@given(st.binary(max_size=200))
def test_no_file_of_any_bytes_is_more_than_a_value_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = file_of(tmp_path_factory.mktemp("shard"), content)
    try:
        sizes = tensor_bytes(path)
    except ValueError:
        return
    assert sizes.total() <= len(content)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        tensor_bytes(tmp_path / "gone")
