"""Quantising attention: what it writes, what it leaves as it was, and what it refuses."""

import math
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.checkpoint.formats import ALGORITHMS, Format
from appliance.checkpoint.quantisecommand import main
from tests.checkpointbox import FORMATS, Shape, build, tensors_of
from tests.quantised import SHAPE, STEM, Tensors, change, quantise, read

ROWS = COLUMNS = SHAPE.heads * SHAPE.head_dim
HIDDEN = SHAPE.hidden
# type and shape of each tensor of q_proj, of ROWS rows of HIDDEN numbers
PARTS: dict[Format, dict[str, tuple[str, tuple[int, ...]]]] = {
    Format.PER_CHANNEL: {
        "weight": ("F8_E4M3", (ROWS, HIDDEN)), "weight_scale": ("F32", (ROWS,)),
    },
    Format.MXFP8: {
        "weight": ("F8_E4M3", (ROWS, HIDDEN)), "weight_scale": ("U8", (ROWS, HIDDEN // 32)),
    },
    Format.FP8: {
        "weight": ("F8_E4M3", (ROWS, HIDDEN)), "weight_scale": ("F32", ()),
        "input_scale": ("F32", ()),
    },
    Format.NVFP4: {
        "weight": ("U8", (ROWS, HIDDEN // 2)),
        "weight_scale": ("F8_E4M3", (ROWS, HIDDEN // 16)), "weight_scale_2": ("F32", ()),
    },
}  # fmt: skip


def modules(*kinds: str, layers: int = SHAPE.layers) -> list[str]:
    return [STEM.format(layer, kind) for layer in range(layers) for kind in kinds or "qkvo"]


def others(tensors: Tensors, names: list[str]) -> Tensors:
    """Return the tensors that are not of these modules; their KV scales are not."""
    mine = tuple(f"{name}.{part}" for name in names for part in ("weight", "input"))
    offsets = (".k_bias", ".v_bias")
    return {n: t for n, t in tensors.items() if not n.startswith(mine) and n[-7:] not in offsets}


@pytest.mark.parametrize("kind", Format)
def test_attention_has_the_formats_tensors_and_all_else_is_as_it_was(
    tmp_path: Path, kind: Format
) -> None:
    source, made = quantise(tmp_path, SHAPE, "--format", kind, "--verify")
    before, after = tensors_of(source), tensors_of(made)
    assert others(after, modules()) == others(before, modules())
    for name in modules("q"):
        stem = f"{name}."
        there = {n.removeprefix(stem): t[:2] for n, t in after.items() if n.startswith(stem)}
        assert there == PARTS[kind]
    assert len(after) == len(others(before, modules())) + 12 * len(PARTS[kind])
    index = read(made / "model.safetensors.index.json")
    assert index["weight_map"].keys() == after.keys()
    assert index["metadata"]["total_size"] == sum(len(data) for _, _, data in after.values())


@pytest.mark.parametrize("kind", Format)
def test_both_configs_say_which_module_has_which_format(tmp_path: Path, kind: Format) -> None:
    _, made = quantise(tmp_path, SHAPE, "--format", kind)
    section = read(made / "config.json")["quantization_config"]
    assert (section["quant_method"], section["quant_algo"]) == ("modelopt", "MIXED_PRECISION")
    layers = section["quantized_layers"]
    assert {name: one["quant_algo"] for name, one in layers.items() if "attn" in name} == (
        dict.fromkeys(modules(), ALGORITHMS[kind])
    )
    experts = [
        f"model.layers.{n}.{b}.experts" for n in range(3) for b in ("mlp", "block_sparse_moe")
    ]
    assert all(layers[name] == {"quant_algo": "NVFP4", "group_size": 16} for name in experts)
    assert not any("self_attn" in entry for entry in section["ignore"])
    assert "lm_head" in section["ignore"]
    assert (
        section["kv_cache_scheme"]
        == read(tmp_path / "source" / "config.json")["quantization_config"]["kv_cache_scheme"]
    )
    file = read(made / "hf_quant_config.json")["quantization"]
    assert file["quantized_layers"] == layers
    assert (file["exclude_modules"], file["quant_algo"]) == (section["ignore"], "MIXED_PRECISION")
    assert file["kv_cache_quant_algo"] == "FP8"


@pytest.mark.parametrize("kind", [Format.FP8, Format.NVFP4])
def test_q_k_and_v_share_the_scale_of_which_vllm_takes_one_for_all(
    tmp_path: Path, kind: Format
) -> None:
    _, made = quantise(tmp_path, SHAPE, "--format", kind)
    tensors = tensors_of(made)
    part = "weight_scale" if kind is Format.FP8 else "weight_scale_2"
    for layer in range(SHAPE.layers):
        scales = {tensors[f"{STEM.format(layer, one)}.{part}"][2] for one in "qkv"}
        assert len(scales) == 1


def test_the_scale_of_activations_is_what_the_weights_allow_at_most(tmp_path: Path) -> None:
    source, made = quantise(tmp_path, SHAPE, "--format", "fp8", "--lm-head")
    before, after = tensors_of(source), tensors_of(made)

    def numbers(name: str) -> list[float]:
        data = before[name][2]
        return [
            struct.unpack("<f", b"\0\0" + data[at : at + 2])[0] for at in range(0, len(data), 2)
        ]

    def scale(module: str) -> float:
        value: float = struct.unpack("<f", after[f"{module}.input_scale"][2])[0]
        return value

    norm = numbers("model.layers.1.input_layernorm.weight")
    reach = math.sqrt(HIDDEN)
    entering = reach * max(map(abs, norm)) / 448
    assert [scale(STEM.format(1, one)) for one in "qkv"] == pytest.approx([entering] * 3)
    values = numbers(f"{STEM.format(1, 'v')}.weight")
    largest = max(
        math.hypot(*(w * n for w, n in zip(values[at : at + HIDDEN], norm, strict=True)))
        for at in range(0, len(values), HIDDEN)
    )
    assert scale(STEM.format(1, "o")) == pytest.approx(reach * largest / 448)
    final = reach * max(map(abs, numbers("model.norm.weight"))) / 448
    assert scale("lm_head") == pytest.approx(final)


def test_the_head_is_quantised_when_asked_for(tmp_path: Path) -> None:
    _, made = quantise(tmp_path, SHAPE, "--lm-head", "--verify")
    tensors = tensors_of(made)
    assert tensors["lm_head.weight"][:2] == ("F8_E4M3", (64, HIDDEN))
    assert tensors["lm_head.weight_scale"][:2] == ("F32", (64,))
    section = read(made / "config.json")["quantization_config"]
    assert section["quantized_layers"]["lm_head"] == {"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"}
    assert "lm_head" not in section["ignore"]


def test_a_second_run_can_add_the_head(tmp_path: Path) -> None:
    _, first = quantise(tmp_path, SHAPE)
    second = tmp_path / "second"
    # attention is FP8 by now: no layer of it can be chosen, and the head alone cannot be
    assert main([str(first), str(second), "--lm-head"]) == 65
    head_first = tmp_path / "head"
    flags = ["--lm-head", "--layers", "0", "--format", "mxfp8"]
    assert main([str(tmp_path / "source"), str(head_first), *flags]) == 0
    assert main([str(head_first), str(second), "--layers", "1-2", "--verify"]) == 0
    layers = read(second / "config.json")["quantization_config"]["quantized_layers"]
    assert layers["lm_head"]["quant_algo"] == "MXFP8"
    assert layers[STEM.format(0, "q")]["quant_algo"] == "MXFP8"
    assert layers[STEM.format(2, "q")]["quant_algo"] == "FP8_PER_CHANNEL_PER_TOKEN"


def test_only_the_layers_that_are_named_change(tmp_path: Path) -> None:
    source, made = quantise(tmp_path, SHAPE, "--layers", "0,2", "--verify")
    before, after = tensors_of(source), tensors_of(made)
    left = [STEM.format(1, one) for one in "qkvo"]
    assert all(after[f"{name}.weight"] == before[f"{name}.weight"] for name in left)
    section = read(made / "config.json")["quantization_config"]
    assert {*left} <= {*section["ignore"]}
    assert not {*left} & {*section["quantized_layers"]}


def test_what_is_too_far_off_stays_and_so_does_what_shares_its_matrix(tmp_path: Path) -> None:
    source = build(tmp_path / "source", SHAPE)
    # rows of ones are exact in FP8; 1.1484 beside 2 is not
    name = f"{STEM.format(1, 'k')}.weight"
    flat = struct.pack("<H", 0x3F80) * (ROWS * HIDDEN)
    for one in "qkvo":
        change(source, f"{STEM.format(1, one)}.weight", 0, flat)
    change(source, name, 0, struct.pack("<2H", 0x3F93, 0x4000) * (ROWS * HIDDEN // 2))
    report, made = tmp_path / "report.json", tmp_path / "made"
    flags = ["--keep-above", "0.001", "--layers", "1", "--report", str(report), "--verify"]
    assert main([str(source), str(made), *flags]) == 0
    said = read(report)["quantised"]["projections"]
    assert {n[-6:-5]: bool(one["stays_bf16"]) for n, one in said.items()} == {
        "q": True, "k": True, "v": True, "o": False,
    }  # fmt: skip
    tensors = tensors_of(made)
    assert [tensors[f"{STEM.format(1, one)}.weight"][0] for one in "qkvo"] == (
        ["BF16"] * 3 + ["F8_E4M3"]
    )
    section = read(made / "config.json")["quantization_config"]
    assert STEM.format(1, "q") in section["ignore"]
    assert [n for n in section["quantized_layers"] if "attn" in n] == [STEM.format(1, "o")]


def test_when_everything_stays_the_configs_say_what_they_said(tmp_path: Path) -> None:
    source, made = quantise(tmp_path, SHAPE, "--keep-above", "0", "--verify")
    after = read(made / "config.json")["quantization_config"]
    assert after == read(source / "config.json")["quantization_config"]
    assert read(made / "hf_quant_config.json") == read(source / "hf_quant_config.json")


def test_a_checkpoint_that_is_not_quantised_gets_both_configs(tmp_path: Path) -> None:
    shape = replace(SHAPE, form="bf16")
    _, made = quantise(tmp_path, shape, "--verify")
    section = read(made / "config.json")["quantization_config"]
    assert {*section["quantized_layers"]} == {*modules()}
    file = read(made / "hf_quant_config.json")["quantization"]
    assert {"group_size", "kv_cache_quant_algo", "exclude_modules"} <= file.keys()
    assert file["kv_cache_quant_algo"] is None


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_the_shape_all_else_is_as_it_was_and_verifying_agrees(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shape = Shape(
        form=data.draw(st.sampled_from(["bf16", "nvfp4"])),
        layers=data.draw(st.integers(1, 3)),
        experts=data.draw(st.integers(1, 4)),
        shards=data.draw(st.integers(1, 4)),
        hidden=data.draw(st.sampled_from([32, 96])),
        heads=data.draw(st.sampled_from([2, 6])),
        seed=data.draw(st.integers(0, 99)),
    )
    kind, head = data.draw(st.sampled_from([*Format])), data.draw(st.booleans())
    tmp = tmp_path_factory.mktemp("any")
    flags = ["--format", kind, "--verify", "--jobs", "2", *(["--lm-head"] if head else [])]
    source, made = quantise(tmp, shape, *flags)
    names = modules(layers=shape.layers) + (["lm_head"] if head else [])
    assert others(tensors_of(made), names) == others(tensors_of(source), names)
    assert sum(len(data) for _, _, data in tensors_of(made).values()) < sum(
        len(data) for _, _, data in tensors_of(source).values()
    )


@pytest.mark.parametrize("form", [form for form in FORMATS if form in ("fp8", "compressed")])
def test_what_somebody_else_has_quantised_is_refused(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = build(tmp_path / "source", replace(SHAPE, form=form))
    assert main([str(source), str(tmp_path / "made")]) == 65
    said = capsys.readouterr().err
    assert "only ModelOpt's NVFP4 can be added to" in said
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("kind", Format)
@pytest.mark.parametrize(("bits", "what"), [(0x7FC0, "nan"), (0xFF80, "inf")])
def test_a_number_that_is_not_finite_is_refused_with_its_tensor_and_row(
    tmp_path: Path, kind: Format, bits: int, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = build(tmp_path / "source", SHAPE)
    name = f"{STEM.format(2, 'v')}.weight"
    change(source, name, 2 * (5 * HIDDEN + 3), struct.pack("<H", bits))
    assert main([str(source), str(tmp_path / "made"), "--format", kind]) == 65
    said = capsys.readouterr().err
    assert f"{name}, row 5, has a number that is not finite" in said
    assert "--layers" in said
    assert not (tmp_path / "made").exists()


def test_a_norm_that_is_not_finite_is_refused_where_it_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = build(tmp_path / "source", SHAPE)
    change(source, "model.layers.1.input_layernorm.weight", 4, struct.pack("<H", 0x7F80))
    assert main([str(source), str(tmp_path / "a"), "--format", "fp8"]) == 65
    assert "norm before model.layers.1.self_attn.q_proj" in capsys.readouterr().err
    assert main([str(source), str(tmp_path / "b")]) == 0
