"""A checkpoint folder: what it is, or at once what is missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from appliance.checkpoint.folder import INDEX, SINGLE, read_model_facts
from appliance.errors import ModelFolderError
from appliance.facts import CacheLayers
from tests.checkpoints import shard_bytes, write_checkpoint


def checkpoint(folder: Path, *, shards: int = 1, **changes: Any) -> Path:
    """Write a checkpoint of small shards into ``folder``."""
    write_checkpoint(folder, {"BF16": 2}, **changes)
    if shards == 1:
        return folder
    (folder / SINGLE).unlink()
    names = [f"model-{n:05}-of-{shards:05}.safetensors" for n in range(1, shards + 1)]
    weights = {f"layer.{n}.weight": name for n, name in enumerate(names)}
    weights["norm.weight"] = names[0]
    (folder / INDEX).write_text(json.dumps({"weight_map": weights}))
    for n, name in enumerate(names, start=1):
        (folder / name).write_bytes(shard_bytes({"BF16": 2 * n, "U8": 10 * n}))
    return folder


def refusal(folder: Path) -> ModelFolderError:
    with pytest.raises(ModelFolderError) as caught:
        read_model_facts(folder)
    assert str(folder) in caught.value.what
    assert caught.value.hint
    return caught.value


# ---- what it is


def test_a_single_file_is_a_checkpoint(tmp_path: Path) -> None:
    facts = read_model_facts(checkpoint(tmp_path))
    assert (facts.shard_count, facts.weights_bytes) == (1, 2)
    assert facts.architecture == "MiniMaxM2ForCausalLM"
    assert (facts.num_layers, facts.num_experts) == (62, 192)
    assert facts.max_position_embeddings == 196_608


def test_shards_are_counted_and_weighed_once_each(tmp_path: Path) -> None:
    facts = read_model_facts(checkpoint(tmp_path, shards=4))
    assert (facts.shard_count, facts.weights_bytes) == (4, 12 * (1 + 2 + 3 + 4))
    assert facts.weights_by_dtype == (("U8", 100), ("BF16", 20))


def test_files_that_the_index_does_not_name_do_not_count(tmp_path: Path) -> None:
    checkpoint(tmp_path, shards=2)
    (tmp_path / "other.safetensors").write_bytes(b"x" * 1000)
    assert read_model_facts(tmp_path).weights_bytes == 36


@pytest.mark.parametrize(
    ("section", "quantization"),
    [
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "NVFP4"),
        ({"quant_method": "fp8"}, "fp8"),
        ({}, ""),
        (None, ""),
        ("nvfp4", ""),
    ],
)
def test_the_quantization_is_read(tmp_path: Path, section: Any, quantization: str) -> None:
    folder = checkpoint(tmp_path, quantization_config=section)
    assert read_model_facts(folder).quantization == quantization


def test_the_counts_of_a_multimodal_model_are_those_of_its_text(tmp_path: Path) -> None:
    text = {
        "num_hidden_layers": 48,
        "num_experts": 256,
        "max_position_embeddings": 262_144,
        "quantization_config": {"quant_algo": "NVFP4"},
    }
    facts = read_model_facts(checkpoint(tmp_path, text_config=text))
    assert (facts.num_layers, facts.num_experts) == (48, 256)
    assert facts.max_position_embeddings == 262_144
    assert facts.quantization == "NVFP4"


def test_an_empty_text_config_is_as_none(tmp_path: Path) -> None:
    assert read_model_facts(checkpoint(tmp_path, text_config=None)).num_layers == 62


def test_a_dense_model_has_no_experts(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, num_local_experts=None)
    assert read_model_facts(folder).num_experts == 0


def test_counts_of_odd_types_are_unknown_and_no_error(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, num_hidden_layers="many", max_position_embeddings=None)
    facts = read_model_facts(folder)
    assert (facts.num_layers, facts.max_position_embeddings) == (0, 0)


def test_the_layers_of_the_model_are_read_from_its_config(tmp_path: Path) -> None:
    facts = read_model_facts(checkpoint(tmp_path))
    assert facts.cache == (CacheLayers("full", 62, 2048, kv_heads=8),)
    assert (facts.cache_dtype, facts.cache_unknown) == ("bfloat16", "")


def test_a_model_whose_layers_are_not_known_is_read_and_says_so(tmp_path: Path) -> None:
    facts = read_model_facts(checkpoint(tmp_path, architectures=["NovelForCausalLM"]))
    assert facts.cache == ()
    assert "NovelForCausalLM" in facts.cache_unknown


# ---- what it is not


def test_a_shard_that_is_cut_short_is_named(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, shards=2)
    cut = folder / "model-00002-of-00002.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    error = refusal(folder)
    assert f"{cut.name} ends after 23 of 24 bytes of tensors" in error.what
    assert error.code == "model_incomplete"
    assert "again" in error.hint


def test_a_missing_folder_is_named_with_the_setting(tmp_path: Path) -> None:
    error = refusal(tmp_path / "gone")
    assert "does not exist" in error.what
    assert "APPLIANCE_MODEL_DIR" in error.hint
    assert error.code == "model_missing"


def test_a_file_in_the_folders_place_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("x")
    error = refusal(tmp_path / "model")
    assert "is a file" in error.what
    assert error.code == "model_missing"


def test_a_path_beyond_a_file_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("x")
    assert refusal(tmp_path / "model" / "deeper").code == "model_missing"


def test_a_folder_without_a_config_is_no_checkpoint(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert "config.json" in error.what
    assert error.code == "model_not_a_checkpoint"


@pytest.mark.parametrize(
    "config", [b"{", b"[]", b"null", b"\xff\xfe", b"", b"[" * 100_000], ids=repr
)
def test_a_config_that_is_no_json_object_is_named(tmp_path: Path, config: bytes) -> None:
    checkpoint(tmp_path)
    (tmp_path / "config.json").write_bytes(config)
    error = refusal(tmp_path)
    assert "config.json" in error.what
    assert error.code == "model_not_a_checkpoint"


@pytest.mark.parametrize("architectures", [None, [], "MiniMaxM2ForCausalLM", {}])
def test_a_config_without_architectures_is_no_checkpoint(
    tmp_path: Path, architectures: Any
) -> None:
    error = refusal(checkpoint(tmp_path, architectures=architectures))
    assert "names no architectures" in error.what


def test_a_text_config_that_is_no_object_is_an_error(tmp_path: Path) -> None:
    assert "text_config" in refusal(checkpoint(tmp_path, text_config=[1])).what


def test_a_folder_without_weights_is_no_checkpoint(tmp_path: Path) -> None:
    (checkpoint(tmp_path) / SINGLE).unlink()
    error = refusal(tmp_path)
    assert SINGLE in error.what
    assert INDEX in error.what


@pytest.mark.parametrize("index", ["{}", '{"weight_map": {}}', '{"weight_map": []}', "{", "[]"])
def test_an_index_without_a_weight_map_is_broken(tmp_path: Path, index: str) -> None:
    (checkpoint(tmp_path, shards=2) / INDEX).write_text(index)
    assert INDEX in refusal(tmp_path).what


def test_missing_shards_are_counted_and_named(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, shards=5)
    for n in (2, 4):
        (folder / f"model-0000{n}-of-00005.safetensors").unlink()
    error = refusal(folder)
    assert "lacks 2 of 5 shards" in error.what
    assert "model-00002-of-00005.safetensors, model-00004-of-00005.safetensors" in error.what
    assert "…" not in error.what
    assert error.code == "model_incomplete"
    assert "download" in error.hint


def test_of_many_missing_shards_the_first_three_are_named(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, shards=6)
    for n in range(1, 6):
        (folder / f"model-0000{n}-of-00006.safetensors").unlink()
    what = refusal(folder).what
    assert "lacks 5 of 6" in what
    assert what.count("safetensors") == 3
    assert what.endswith("…")


def test_a_shard_with_an_impossible_name_is_an_error_of_ours(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, shards=2)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "x" * 5000}}))
    assert refusal(folder).code == "model_not_a_checkpoint"
