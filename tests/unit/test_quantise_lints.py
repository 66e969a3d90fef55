"""The traps of mixed checkpoints are told: what vLLM would do, and with which module."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.checkpoint.findings import Finding, Level
from appliance.checkpoint.formats import Format
from appliance.checkpoint.lints import lint
from appliance.checkpoint.source import LocalSource
from tests.checkpointbox import write_json
from tests.quantised import SHAPE, STEM, change, quantise, read

Q, K = STEM.format(1, "q"), STEM.format(1, "k")


def found(folder: Path) -> list[Finding]:
    source = LocalSource(folder)
    try:
        return [one for one in lint(source) if one.level is not Level.NOTE]
    finally:
        source.close()


@pytest.mark.parametrize("kind", Format)
def test_what_is_written_has_no_trap(tmp_path: Path, kind: Format) -> None:
    _, made = quantise(tmp_path, SHAPE, "--format", kind, "--lm-head")
    assert found(made) == []


def without_vllms_name_of_the_experts(layers: dict[str, Any]) -> None:
    del layers["model.layers.1.mlp.experts"]


def with_another_format_for_k(layers: dict[str, Any]) -> None:
    layers[K] = {"quant_algo": "MXFP8"}


def without_the_head(layers: dict[str, Any]) -> None:
    del layers["lm_head"]


def with_another_format_for_o(layers: dict[str, Any]) -> None:
    layers[STEM.format(2, "o")] = {"quant_algo": "FP8"}


def without_anything(layers: dict[str, Any]) -> None:
    layers.clear()


@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        (without_vllms_name_of_the_experts, "mixed_experts", "no model.layers.1.mlp.experts"),
        (with_another_format_for_k, "mixed_fused", "FP8_PER_CHANNEL_PER_TOKEN, MXFP8"),
        (with_another_format_for_k, "mixed_tensors", f"{K}.weight_scale is F32 [32]"),
        (without_the_head, "mixed_unnamed", "lm_head is F8_E4M3"),
        (with_another_format_for_o, "mixed_tensors", "o_proj.input_scale is not there"),
        (without_anything, "mixed_layers", "without quantized_layers"),
    ],
)
def test_a_config_that_does_not_fit_the_tensors_is_told(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None], code: str, says: str
) -> None:
    _, made = quantise(tmp_path, SHAPE, "--lm-head")
    config = read(made / "config.json")
    spoil(config["quantization_config"]["quantized_layers"])
    write_json(made / "config.json", config)
    assert [one for one in found(made) if one.code == code and says in one.what]


def test_scales_of_q_k_and_v_that_differ_are_told(tmp_path: Path) -> None:
    _, made = quantise(tmp_path, SHAPE, "--format", "nvfp4-weight-only")
    change(made, f"{Q}.weight_scale_2", 3, b"\x30")
    (told,) = found(made)
    assert (told.level, told.code) == (Level.WARNING, "mixed_scales")


def test_a_map_that_the_file_beside_alone_has_is_found(tmp_path: Path) -> None:
    _, made = quantise(tmp_path, SHAPE)
    config = read(made / "config.json")
    del config["quantization_config"]["quantized_layers"]
    write_json(made / "config.json", config)
    assert found(made) == []
    file = read(made / "hf_quant_config.json")
    file["quantization"]["quantized_layers"][K] = {"quant_algo": "MXFP8"}
    (made / "hf_quant_config.json").write_text(json.dumps(file))
    assert "mixed_fused" in {one.code for one in found(made)}
