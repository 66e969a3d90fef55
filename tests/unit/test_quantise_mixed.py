"""The quantisation sections: what was said of experts and caches stays, what is new is added."""

from copy import deepcopy
from fnmatch import fnmatch
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.formats import Format, Matrix, Recipe
from appliance.checkpoint.mixed import excluded, mixed_config, mixed_file, readable, section_of
from appliance.checkpoint.projections import Choice, Projection
from appliance.checkpoint.surveyed import Error, Measured, Survey
from appliance.checkpoint.tokenbytes import Weights
from tests.quantised import STEM

NVFP4_PARTS = frozenset({"w1.weight", "w1.weight_scale", "w1.weight_scale_2", "w1.input_scale"})
NOTHING = Weights(1, 1, 0, 0, 0, 0, 0, 0)
LAYERS = 12


def measured(name: str, kept: str = "") -> Measured:
    layer = int(name.split(".")[2]) if "." in name else -1
    projection = Projection(name, name[-6] if layer >= 0 else name, layer, Matrix("", 0, 4, 32))
    return Measured(projection, Recipe(Format.MXFP8, 4, 32), Error(0.0, 1.0, 0, 0.0), kept)


def survey(quantised: list[str], kept: list[str] = [], others: list[str] = []) -> Survey:  # noqa: B006
    found = [measured(name) for name in quantised] + [measured(name, "far") for name in kept]
    return Survey(Choice(Format.MXFP8), None, tuple(found), tuple(others), None, NOTHING)


EVERY = [STEM.format(layer, kind) for layer in range(LAYERS) for kind in "qkvo"] + ["lm_head"]
PATTERNS = st.sampled_from(
    [
        *("lm_head", "*self_attn*", "model.layers.1.self_attn*", "model.layers.10.self_attn*"),
        *("*.o_proj", "model.layers.1.self_attn.q_proj", "self_attn", "*qkv_proj", "model.*"),
        *("model.layers.0.block_sparse_moe.gate", "*.gate", "model.embed_tokens", "*norm*"),
    ]
)


def excludes(entry: str, module: str) -> bool:
    """Say whether vLLM leaves a module out by an entry: as its code has it, said again."""
    fused = module[:-6] + "qkv_proj" if module[-6:-5] in "qkv" else module
    return any(entry == name or entry in name or fnmatch(name, entry) for name in (module, fused))


@given(
    entries=st.lists(PATTERNS, unique=True),
    layers=st.sets(st.integers(0, LAYERS - 1), min_size=1),
    head=st.booleans(),
)
def test_nothing_that_is_quantised_is_excluded_and_nothing_else_is_lost(
    entries: list[str], layers: set[int], head: bool
) -> None:
    chosen = [n for n in EVERY if (int(n.split(".")[2]) in layers if "." in n else head)]
    others = [name for name in EVERY if name not in chosen]
    new = excluded(entries, survey(chosen, others=others))
    assert not [n for n in chosen if any(excludes(entry, n) for entry in new)]
    assert all(name in new for name in others)
    for entry in entries:
        assert entry in new or any(excludes(entry, name) for name in chosen)
    assert len(new) == len(set(new))


def test_the_cache_the_producer_and_the_experts_stay() -> None:
    scheme = {"num_bits": 8, "type": "float", "dynamic": False}
    old = {
        "quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16,
        "producer": {"name": "modelopt", "version": "0.47"}, "kv_cache_scheme": scheme,
        "config_groups": {"group_0": {"input_activations": {"num_bits": 4}}},
        "exclude_modules": ["lm_head", "*self_attn*"],
    }  # fmt: skip
    before = deepcopy(old)
    new = mixed_config(old, NVFP4_PARTS, survey([STEM.format(0, "q")], others=["lm_head"]), 2)
    assert old == before
    assert (new["kv_cache_scheme"], new["producer"]) == (scheme, before["producer"])
    assert "config_groups" not in new  # it says that every Linear has 4 bits
    assert "exclude_modules" not in new
    assert new["ignore"] == ["lm_head"]
    assert new["quantized_layers"]["model.layers.1.mlp.experts"]["quant_algo"] == "NVFP4"


@pytest.mark.parametrize(
    ("groups", "parts"),
    [({"g": {"input_activations": None}}, NVFP4_PARTS), (None, NVFP4_PARTS - {"w1.input_scale"})],
)
def test_experts_whose_activations_are_not_quantised_stay_so(
    groups: Any, parts: frozenset[str]
) -> None:
    old = {"quant_method": "modelopt", "quant_algo": "NVFP4", "config_groups": groups}
    new = mixed_config(old, parts, survey([STEM.format(0, "q")]), 1)
    assert new["quantized_layers"]["model.layers.0.mlp.experts"]["quant_algo"] == "W4A16_NVFP4"


def test_an_older_checkpoint_that_has_its_section_in_the_file_alone_is_understood() -> None:
    inner = {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "group_size": 16,
             "exclude_modules": ["lm_head"]}  # fmt: skip
    section = section_of({}, {"producer": {"name": "modelopt"}, "quantization": inner})
    assert readable(section)["kv_cache_scheme"]["num_bits"] == 8
    new = mixed_config(section, NVFP4_PARTS, survey([STEM.format(0, "q")]), 1)
    assert new["ignore"] == ["lm_head"]
    file = mixed_file({"producer": {"name": "modelopt"}, "quantization": inner}, new)
    assert file["quantization"]["kv_cache_quant_algo"] == "FP8"
    assert file["quantization"]["quantized_layers"] == new["quantized_layers"]
    nested = {"quantization_config": {"quantization": inner, "quant_method": "modelopt"}}
    assert section_of(nested, {}) == section


@pytest.mark.parametrize(
    "section",
    [
        {"quant_method": "fp8"},
        {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"},
        {"quant_method": "modelopt", "quant_algo": "FP8"},
        "NVFP4",
        [],
    ],
)
def test_what_another_tool_has_quantised_is_refused(section: Any) -> None:
    with pytest.raises(CheckpointError, match="only ModelOpt's NVFP4 can be added to"):
        readable(section)


def test_what_is_not_quantised_at_all_is_fine() -> None:
    assert readable(section_of({}, {})) == {}
