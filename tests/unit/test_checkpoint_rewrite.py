"""What the files beside the shards become: only what experts' numbers are in is changed."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.maskfile import Mask
from appliance.checkpoint.rewrite import (
    left_out,
    render_index,
    render_json,
    renumber,
    rewrite_config,
    rewrite_index,
)

MASK = Mask(4, ((1,), (0,)))
STEM = "model.layers.{}.block_sparse_moe.experts.{}{}"


@pytest.mark.parametrize(
    ("entry", "becomes"),
    [
        (STEM.format(0, 0, ".w1"), STEM.format(0, 0, ".w1")),
        (STEM.format(0, 1, ".w1"), None),
        (STEM.format(0, 3, ""), STEM.format(0, 2, "")),
        (STEM.format(1, 3, ".*"), STEM.format(1, 2, ".*")),
        ("model.layers.1.mlp.experts.2.up_proj", "model.layers.1.mlp.experts.1.up_proj"),
        ("lm_head", "lm_head"),
        ("model.layers.0.block_sparse_moe.gate", "model.layers.0.block_sparse_moe.gate"),
        ("model.layers.0.self_attn*", "model.layers.0.self_attn*"),
        (r"re:.*block_sparse_moe\.gate$", r"re:.*block_sparse_moe\.gate$"),
        (r"re:.*experts\.\d+\.w1", r"re:.*experts\.\d+\.w1"),
        (r"re:.*experts\.[0-9]+\.w1", r"re:.*experts\.[0-9]+\.w1"),
        ("model.layers.0.block_sparse_moe.experts*", "model.layers.0.block_sparse_moe.experts*"),
    ],
)
def test_an_entry_of_one_expert_gets_its_number_and_others_stay(
    entry: str, becomes: str | None
) -> None:
    assert renumber([entry], MASK) == ([becomes] if becomes else [])
    assert renumber({"a": {entry: {"bits": 4}}}, MASK) == {
        "a": {becomes: {"bits": 4}} if becomes else {}
    }


@pytest.mark.parametrize(
    "entry",
    [
        r"re:.*experts\.3\..*",
        r"re:.*experts\.(1|2)\.w1",
        "re:.*experts[.]3",
        "*.experts.3.w1",
        STEM.format(0, "3*", ""),
        STEM.format(7, 1, ".w1"),
        STEM.format(0, 4, ".w1"),
    ],
)
def test_an_entry_that_names_experts_in_another_way_is_refused(entry: str) -> None:
    with pytest.raises(CheckpointError, match="in a way not known here"):
        renumber({"ignore": [entry]}, MASK)


def test_a_nested_text_model_is_changed_and_the_source_is_not() -> None:
    config = {"text_config": {"num_experts": 4, "quantization_config": {"ignore": []}}, "x": 1}
    before = deepcopy(config)
    after = rewrite_config(config, MASK, keep_code=False)
    assert after["text_config"]["num_experts"] == 3
    assert config == before


def test_a_name_for_the_experts_that_has_no_number_stays() -> None:
    after = rewrite_config({"num_local_experts": 4, "num_experts": None}, MASK, keep_code=True)
    assert after == {"num_local_experts": 3, "num_experts": None}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(JSON)
def test_what_names_no_expert_is_not_touched(content: Any) -> None:
    assert renumber(content, MASK) == content


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_what_is_written_is_read_again(content: dict[str, Any]) -> None:
    assert json.loads(render_json(content)) == content
    assert json.loads(render_index(content)) == content


def test_the_index_keeps_its_metadata_but_for_the_sizes() -> None:
    index = {"metadata": {"total_size": 9, "total_parameters": 5, "by": "me"}, "more": 1}
    after = rewrite_index(index, {"b": "y", "a": "x"}, 7)
    assert after["metadata"] == {"total_size": 7, "by": "me"}
    assert list(after["weight_map"]) == ["a", "b"]
    assert after["more"] == 1


@pytest.mark.parametrize("name", ["x.py", "deep/x.PY", "a.bin", "a.pt", "a.safetensors", "lib.so"])
def test_code_pickles_and_stray_weights_are_left_out(name: str) -> None:
    assert left_out(name)


@pytest.mark.parametrize(
    "name",
    ["README.md", "tokenizer.model", "merges.txt", "chat_template.jinja", "LICENSE", "a.png"],
)
def test_what_is_read_as_text_or_shown_comes_along(name: str) -> None:
    assert not left_out(name)
