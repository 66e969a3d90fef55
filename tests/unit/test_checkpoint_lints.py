"""Known traps are told before a checkpoint is served: one miniature a trap."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.checkpoint.command import main
from appliance.checkpoint.findings import Finding, Level, in_order
from appliance.checkpoint.lints import lint
from appliance.checkpoint.source import LocalSource
from tests.checkpointbox import Piece, Shape, build, config_of, render, write_json, write_mask

SHAPE = Shape(form="nvfp4", layers=2, experts=4, shards=2)
INDEX = "model.safetensors.index.json"
SHARD = "model-00001-of-00002.safetensors"
MOE = "model.layers.0.block_sparse_moe"


def findings(folder: Path) -> list[Finding]:
    source = LocalSource(folder)
    try:
        return lint(source)
    finally:
        source.close()


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """A pruned miniature, as delete_experts leaves it."""
    mask = str(write_mask(tmp_path / "mask.json", SHAPE, 3))
    source = build(tmp_path / "source", SHAPE)
    assert main([str(source), str(tmp_path / "out"), "--deleted-experts-file", mask]) == 0
    return tmp_path / "out"


def add(folder: Path, name: str, dtype: str, shape: tuple[int, ...], data: bytes = b"") -> None:
    """Add a tensor in a shard of its own."""
    piece = Piece(name, dtype, shape)
    (folder / "more.safetensors").write_bytes(render([(piece, data or b"\x3f" * piece.size)]))
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"][name] = "more.safetensors"
    write_json(folder / INDEX, index)


def rename(folder: Path, old: str, new: str) -> None:
    """Give tensors another name of the same length."""
    for path in folder.glob("model-*"):
        path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    (folder / INDEX).write_text((folder / INDEX).read_text().replace(old, new))


def scale(folder: Path, name: str, value: float) -> None:
    """Change one scale."""
    for path in folder.glob("model-*.safetensors"):
        raw = path.read_bytes()
        start = 8 + struct.unpack("<Q", raw[:8])[0]
        if entry := json.loads(raw[8:start]).get(name):
            at = start + entry["data_offsets"][0]
            path.write_bytes(raw[:at] + struct.pack("<f", value) + raw[at + 4 :])


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    write_json(path, content)


def write_tokenizer(folder: Path) -> None:
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "GPT2TokenizerFast"})


def strip_cache_scales(folder: Path) -> None:
    rename(folder, "_proj.k_scale", "_proj.k_scalx")
    rename(folder, "_proj.v_scale", "_proj.v_scalx")


W1 = f"{MOE}.experts.1.w1"
TRAPS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "an expert without input_scale": (
        lambda f: rename(f, f"{W1}.input_scale", f"{W1}.xnput_scale"), "experts", "NaN"),
    "an input scale of 0": (lambda f: scale(f, f"{W1}.input_scale", 0), "bad_scale", "not above 0"),
    "an infinite scale": (
        lambda f: scale(f, f"{W1}.weight_scale_2", float("inf")), "bad_scale", "not finite"),
    "two scales for one matrix": (
        lambda f: scale(f, f"{W1}.weight_scale_2", 0.5), "split_scale", "0.5"),
    "a quantised gate": (
        lambda f: add(f, f"{MOE}.gate.weight_scale", "F32", (3,)), "quantised_gate", "KeyError"),
    "an offset of the cache": (
        lambda f: add(f, "model.layers.0.self_attn.k_proj.k_bias", "F32", (4,)),
        "cache_offset", "does not load"),
    "a scale for each head": (
        lambda f: add(f, "model.layers.0.self_attn.q.k_proj.k_scale", "F32", (4,)),
        "cache_scale_shape", "[4]"),
    "scales of the cache lack": (strip_cache_scales, "cache_scales_missing", "1.0"),
    "a bias that was not cut": (
        lambda f: add(f, f"{MOE}.gate.e_score_correction_bias", "F32", (4,)),
        "router_rows", "4 rows for 3 experts"),
    "a config of other experts": (
        lambda f: edit(f / "config.json", lambda c: c.update(num_local_experts=2)),
        "router_rows", "3 rows for 2 experts"),
    "all experts in one": (
        lambda f: add(f, f"{MOE}.experts.w13", "BF16", (3, 2)), "not_understood", "in a way"),
    "a missing key of modelopt": (
        lambda f: edit(f / "hf_quant_config.json", lambda c: c["quantization"].pop("group_size")),
        "modelopt_keys", "group_size"),
    "no section of modelopt": (
        lambda f: write_json(f / "hf_quant_config.json", {}), "modelopt_keys", "the section"),
    "an index that names more": (
        lambda f: edit(f / INDEX, lambda c: c["weight_map"].update(ghost=SHARD)),
        "index_names_more", "ghost"),
    "an index that names less": (
        lambda f: edit(f / INDEX, lambda c: c["weight_map"].pop("model.norm.weight")),
        "index_names_less", "model.norm.weight"),
    "a wrong total": (
        lambda f: edit(f / INDEX, lambda c: c["metadata"].update(total_size=5)), "total_size", "5"),
    "code asked for": (
        lambda f: edit(f / "config.json", lambda c: c.update(
            auto_map={"AutoConfig": "configuration_minimax_m2.MiniMaxM2Config"})),
        "auto_map", "configuration_minimax_m2.py"),
    "a pickle": (lambda f: (f / "x.bin").write_bytes(b""), "needless_file", "x.bin"),
    "a drifting tokenizer": (write_tokenizer, "tokenizer_class", "5.0 to 5.3"),
    "a broken tokenizer config": (
        lambda f: (f / "tokenizer_config.json").write_text("x"), "tokenizer_config", "no JSON"),
}  # fmt: skip


def test_what_delete_experts_writes_has_no_trap(clean: Path) -> None:
    assert findings(clean) == []


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_is_told_with_what_to_do(clean: Path, trap: str) -> None:
    spoil, code, says = TRAPS[trap]
    spoil(clean)
    told = [finding for finding in findings(clean) if finding.code == code]
    assert told
    assert says in told[0].what
    assert told[0].hint


def test_the_source_of_a_pruned_checkpoint_tells_what_pruning_leaves_out(tmp_path: Path) -> None:
    codes = {finding.code for finding in findings(build(tmp_path / "source", SHAPE))}
    assert codes == {"cache_offset", "needless_file"}


@pytest.mark.parametrize("form", ["bf16", "fp8", "compressed"])
def test_the_other_formats_have_no_trap_of_their_own(tmp_path: Path, form: str) -> None:
    shape = Shape(form=form, layers=2, experts=4, shards=2)
    folder = build(tmp_path / "source", shape)
    for path in folder.glob("*.py"):
        path.unlink()
    write_json(folder / "config.json", config_of(shape) | {"auto_map": {}})
    assert findings(folder) == []


def test_the_worst_comes_first_and_many_of_a_kind_are_counted() -> None:
    notes = [Finding(Level.NOTE, "n", str(number), "") for number in range(9)]
    error = Finding(Level.ERROR, "e", "bad", "")
    told = list(in_order([*notes, error]))
    assert told[0] == error
    assert [finding.what for finding in told[1:]] == [*"01234", "and 4 more of this kind"]
