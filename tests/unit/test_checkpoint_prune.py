"""Deleting experts: every byte that stays is the source's, under its new name."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.checkpoint.command import main
from tests.checkpointbox import (
    FORMATS,
    SMALL,
    Shape,
    build,
    random_mask,
    tensors_of,
    write_json,
    write_mask,
)

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]
EXPERT = re.compile(r"(model\.layers\.(\d+)\.block_sparse_moe\.experts\.)(\d+)(\..+)")


def expected(source: Tensors, mask: dict[str, list[int]], experts: int) -> Tensors:
    """Return what a pruned checkpoint must hold: said as plainly as can be, tensor by tensor."""
    pruned: Tensors = {}
    for name, (dtype, shape, data) in source.items():
        match = EXPERT.fullmatch(name)
        layer = re.search(r"layers\.(\d+)\.block_sparse_moe", name)
        gone = set(mask[layer[1]]) if layer else set()
        if name.endswith((".k_bias", ".v_bias")):
            continue
        if match:
            number = int(match[3])
            if number not in gone:
                new = number - sum(1 for other in gone if other < number)
                pruned[f"{match[1]}{new}{match[4]}"] = (dtype, shape, data)
        elif layer:
            step = len(data) // experts
            rows = [data[i * step : (i + 1) * step] for i in range(experts) if i not in gone]
            pruned[name] = (dtype, (len(rows), *shape[1:]), b"".join(rows))
        else:
            pruned[name] = (dtype, shape, data)
    return pruned


def prune(tmp: Path, shape: Shape, retained: int, *flags: str) -> tuple[Path, Path]:
    """Build a miniature and prune it; return both folders."""
    source, pruned = build(tmp / "source", shape), tmp / "pruned"
    mask = write_mask(tmp / "mask.json", shape, retained)
    flags = ("--deleted-experts-file", str(mask), *flags)
    assert main([str(source), str(pruned), *flags]) == 0
    return source, pruned


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("form", FORMATS)
def test_every_tensor_of_every_format_is_the_sources(tmp_path: Path, form: str) -> None:
    shape = Shape(form=form, layers=4, experts=16, shards=3)
    source, pruned = prune(tmp_path, shape, 12, "--verify")
    assert tensors_of(pruned) == expected(tensors_of(source), random_mask(shape, 12), 16)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_bits_are_equal_whatever_the_shape_and_the_mask(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shape = Shape(
        form=data.draw(st.sampled_from(FORMATS)),
        layers=data.draw(st.integers(1, 3)),
        experts=data.draw(st.integers(2, 9)),
        shards=data.draw(st.integers(1, 4)),
        hidden=data.draw(st.sampled_from([16, 32])),
        gate=data.draw(st.sampled_from(["BF16", "F32"])),
        seed=data.draw(st.integers(0, 99)),
    )
    retained = data.draw(st.integers(1, shape.experts))
    tmp = tmp_path_factory.mktemp("any")
    source, pruned = prune(tmp, shape, retained, "--verify", "--jobs", "2")
    mask = random_mask(shape, retained)
    assert tensors_of(pruned) == expected(tensors_of(source), mask, shape.experts)


def test_config_and_index_tell_of_the_experts_that_are_left(tmp_path: Path) -> None:
    source, pruned = prune(tmp_path, SMALL, 6)
    before, after = read(source / "config.json"), read(pruned / "config.json")
    assert after["num_local_experts"] == 6
    assert {key for key in before if before[key] != after.get(key)} == {
        "num_local_experts",
        "auto_map",
    }
    index = read(pruned / "model.safetensors.index.json")
    tensors = tensors_of(pruned)
    assert index["weight_map"].keys() == tensors.keys()
    assert index["metadata"]["total_size"] == sum(len(data) for _, _, data in tensors.values())


def test_a_config_with_other_names_for_the_experts_is_changed_in_all(tmp_path: Path) -> None:
    source = build(tmp_path / "source", SMALL)
    config = read(source / "config.json")
    config |= {"num_experts": 8, "n_routed_experts": 8}
    write_json(source / "config.json", config)
    mask = write_mask(tmp_path / "mask.json", SMALL, 5)
    assert main([str(source), str(tmp_path / "out"), "--deleted-experts-file", str(mask)]) == 0
    after = read(tmp_path / "out" / "config.json")
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    assert {after[name] for name in names} == {5}


def test_what_lies_beside_the_shards_comes_along_but_for_code_and_pickles(tmp_path: Path) -> None:
    source = build(tmp_path / "source", SMALL)
    (source / "optimizer.pt").write_bytes(b"\x80")
    (source / "stray.safetensors").write_bytes(b"")
    mask = str(write_mask(tmp_path / "mask.json", SMALL, 6))
    assert main([str(source), str(tmp_path / "out"), "--deleted-experts-file", mask]) == 0
    out = tmp_path / "out"
    there = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert {"tokenizer.json", "figures/scores.png", "chat_template.jinja"} <= there
    assert there & {"modeling_minimax_m2.py", "optimizer.pt", "stray.safetensors"} == set()
    assert "auto_map" not in read(out / "config.json")
    kept = tmp_path / "kept"
    assert main([str(source), str(kept), "--deleted-experts-file", mask, "--keep-code"]) == 0
    assert (kept / "modeling_minimax_m2.py").is_file()
    assert (kept / "optimizer.pt").is_file()
    assert not (kept / "stray.safetensors").exists()
    assert "auto_map" in read(kept / "config.json")


def test_kv_offsets_go_and_kv_scales_stay(tmp_path: Path) -> None:
    shape = Shape(form="nvfp4", layers=2, experts=4, shards=2)
    source, pruned = prune(tmp_path, shape, 3)
    assert "model.layers.0.self_attn.k_proj.k_bias" in tensors_of(source)
    names = tensors_of(pruned).keys()
    assert not [name for name in names if name.endswith(("k_bias", "v_bias"))]
    assert len([name for name in names if name.endswith(("k_scale", "v_scale"))]) == 4


def test_kv_offsets_stay_when_asked_for(tmp_path: Path) -> None:
    shape = Shape(form="nvfp4", layers=2, experts=4, shards=2)
    _, pruned = prune(tmp_path, shape, 3, "--keep-kv-bias", "--verify")
    assert "model.layers.1.self_attn.v_proj.v_bias" in tensors_of(pruned)


def test_metadata_and_order_of_a_shard_are_kept(tmp_path: Path) -> None:
    source, pruned = prune(tmp_path, SMALL, 8)  # nothing goes: the shards must be the same files
    for path in sorted(source.glob("*.safetensors")):
        assert (pruned / path.name).read_bytes() == path.read_bytes()


def test_a_checkpoint_of_one_file_stays_one(tmp_path: Path) -> None:
    source = build(tmp_path / "source", Shape(layers=2, experts=4, shards=1))
    (source / "model.safetensors.index.json").unlink()
    (source / "model-00001-of-00001.safetensors").rename(source / "model.safetensors")
    mask = str(write_mask(tmp_path / "mask.json", Shape(layers=2, experts=4), 3))
    out = tmp_path / "out"
    assert main([str(source), str(out), "--deleted-experts-file", mask, "--verify"]) == 0
    assert [path.name for path in out.glob("model*")] == ["model.safetensors"]


def test_the_tensors_of_a_shard_begin_at_a_multiple_of_8(tmp_path: Path) -> None:
    _, pruned = prune(tmp_path, SMALL, 5)
    for path in pruned.glob("*.safetensors"):
        assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
