"""Reading the quantised formats back, by their definitions: known bytes are known numbers."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checkpointbox import Piece, render, tensors_of
from tests.gpu.dequantise import e4m3, places, restored, to_bf16, write_reference

NAME = "model.layers.0.self_attn.q_proj."
Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


def write(folder: Path, tensors: Tensors) -> Path:
    folder.mkdir()
    content = [(Piece(name, dtype, shape), data) for name, (dtype, shape, data) in tensors.items()]
    (folder / "model.safetensors").write_bytes(render(content))
    return folder


def matrix_of(folder: Path) -> list[list[float]]:
    found = {name.removeprefix(NAME): place for name, place in places(folder).items()}
    rows: list[list[float]] = restored(found["weight"], found).tolist()
    return rows


@pytest.mark.parametrize(
    ("code", "value"),
    [(0x00, 0.0), (0x01, 2.0**-9), (0x08, 2.0**-6), (0x38, 1.0), (0x7E, 448.0), (0xB8, -1.0)],
)
def test_a_byte_of_fp8_stands_for_its_number(code: int, value: float) -> None:
    assert e4m3()[code] == value


def test_only_two_bytes_of_fp8_are_no_number() -> None:
    assert np.flatnonzero(np.isnan(e4m3())).tolist() == [0x7F, 0xFF]


def test_fp8_has_one_scale_for_all(tmp_path: Path) -> None:
    tensors: Tensors = {
        f"{NAME}weight": ("F8_E4M3", (1, 3), bytes([0x38, 0x40, 0xB8])),
        f"{NAME}weight_scale": ("F32", (), struct.pack("<f", 0.5)),
    }
    assert matrix_of(write(tmp_path / "c", tensors)) == [[0.5, 1.0, -0.5]]


def test_fp8_per_channel_has_one_scale_for_each_row(tmp_path: Path) -> None:
    tensors: Tensors = {
        f"{NAME}weight": ("F8_E4M3", (2, 1), bytes([0x38, 0x38])),
        f"{NAME}weight_scale": ("F32", (2,), struct.pack("<2f", 0.5, 3.0)),
    }
    assert matrix_of(write(tmp_path / "c", tensors)) == [[0.5], [3.0]]


def test_mxfp8_has_a_power_of_two_for_each_32_numbers(tmp_path: Path) -> None:
    tensors: Tensors = {
        f"{NAME}weight": ("F8_E4M3", (1, 64), bytes([0x38]) * 64),
        f"{NAME}weight_scale": ("U8", (1, 2), bytes([127, 130])),
    }
    assert matrix_of(write(tmp_path / "c", tensors)) == [[1.0] * 32 + [8.0] * 32]


def test_nvfp4_has_the_first_number_of_a_byte_in_its_lower_half(tmp_path: Path) -> None:
    tensors: Tensors = {
        f"{NAME}weight": ("U8", (1, 8), bytes([0x72, 0xF1, 0, 0, 0, 0, 0, 0])),
        f"{NAME}weight_scale": ("F8_E4M3", (1, 1), bytes([0x40])),
        f"{NAME}weight_scale_2": ("F32", (), struct.pack("<f", 0.25)),
    }
    assert matrix_of(write(tmp_path / "c", tensors)) == [[0.5, 3.0, 0.25, -3.0] + [0.0] * 12]


@given(st.integers(0, 0x7F7F))
def test_a_number_that_bf16_has_is_not_rounded(half: int) -> None:
    value = np.array([half << 16], np.uint32).view(np.float32)
    assert to_bf16(value) == struct.pack("<H", half)


def test_half_way_between_two_numbers_of_bf16_the_even_one_is_taken() -> None:
    bits = np.array([0x3F80_8000, 0x3F81_8000, 0x3F80_8001], np.uint32)
    assert to_bf16(bits.view(np.float32)) == struct.pack("<3H", 0x3F80, 0x3F82, 0x3F81)


def test_the_reference_differs_from_the_source_in_attention_alone(tmp_path: Path) -> None:
    one = struct.pack("<2H", 0x3F80, 0x3F80)
    plain: Tensors = {
        f"{NAME}weight": ("BF16", (1, 2), one),
        "lm_head.weight": ("BF16", (1, 2), one),
    }
    quantised: Tensors = {
        f"{NAME}weight": ("F8_E4M3", (1, 2), bytes([0x40, 0xC0])),
        f"{NAME}weight_scale": ("F32", (), struct.pack("<f", 1.0)),
        "lm_head.weight": plain["lm_head.weight"],
    }
    source = write(tmp_path / "source", plain)
    (source / "config.json").write_text(json.dumps({"of": "source"}))
    made = write(tmp_path / "made", quantised)
    found = tensors_of(write_reference(source, made, tmp_path / "ref"))
    assert found["lm_head.weight"] == plain["lm_head.weight"]
    assert found[f"{NAME}weight"] == ("BF16", (1, 2), struct.pack("<2H", 0x4000, 0xC000))
    assert (tmp_path / "ref" / "config.json").exists()
