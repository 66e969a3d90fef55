"""The parts of a model: whose each tensor is, what it takes, and what of it a token reads."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.checkpoint.headers import Tensor
from appliance.checkpoint.weigh import Scales, experts_per_token, part_of
from appliance.facts import ModelFacts, WeightPart
from tests.plans import golden_model
from tests.trueshapes import FORMATS, expert_tensors, other_tensors, true_facts

NAMES = {
    "model.layers.3.block_sparse_moe.experts.17.w1.weight_scale_2": "experts",
    "model.layers.3.mlp.experts.17.down_proj.weight": "experts",
    "model.layers.3.mlp.experts.gate_up_proj_blocks": "experts",
    "model.language_model.layers.3.mlp.experts.17.down_proj.weight": "experts",
    "model.layers.3.self_attn.q_proj.weight": "attention",
    "model.layers.3.self_attn.q_proj.weight_scale": "attention",
    "model.layers.3.self_attn.k_norm.weight": "attention",
    "model.language_model.layers.3.linear_attn.in_proj_qkv.weight": "attention",
    "lm_head.weight": "head",
    "lm_head.weight_scale": "head",
    "language_model.lm_head.weight": "head",
    "model.layers.3.block_sparse_moe.gate.weight": "routers",
    "model.layers.3.block_sparse_moe.e_score_correction_bias": "routers",
    "model.layers.3.mlp.router.weight": "routers",
    "model.layers.3.mlp.gate_proj.weight": "dense",
    "model.layers.3.mlp.shared_expert.down_proj.weight": "dense",
    "model.layers.3.mlp.shared_expert_gate.weight": "dense",
    "model.layers.3.mlp.shared_experts.down_proj.weight": "dense",
    "model.layers.3.input_layernorm.weight": "other",
    "model.norm.weight": "other",
    "model.embed_tokens.weight": "embeddings",
    "model.language_model.embed_tokens.weight": "embeddings",
    "model.visual.blocks.0.attn.qkv.weight": "vision",
    "vision_tower.encoder.layers.0.self_attn.q_proj.weight": "vision",
    "mtp.layers.0.mlp.experts.3.down_proj.weight": "draft",
    "something.never.seen": "other",
}


def tensor(name: str, dtype: str, *shape: int, size: int) -> Tensor:
    return Tensor(name, dtype, shape, 0, size)


def weighed(*tensors: Tensor, architecture: str = "", experts: int = 0, visited: int = 0) -> (
    dict[str, WeightPart]
):  # fmt: skip
    scales = Scales()
    scales.add(tensors)
    return {part.name: part for part in scales.parts(architecture, experts, visited)}


def part(model: ModelFacts, name: str) -> WeightPart:
    (found,) = [part for part in model.parts if part.name == name]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_belongs_to_the_part_that_its_name_tells(name: str) -> None:
    assert part_of(name) == NAMES[name]


# ---- laws

TENSORS = st.lists(
    st.builds(
        lambda name, dtype, size: tensor(name, dtype, size, size=size),
        st.sampled_from(list(NAMES)),
        st.sampled_from(["U8", "BF16", "F32", "F8_E4M3"]),
        st.integers(0, 10**6).map(lambda n: 4 * n),
    ),
    max_size=30,
)


@given(TENSORS, st.integers(0, 300), st.integers(0, 300))
def test_no_byte_is_lost_and_none_is_read_twice(
    tensors: list[Tensor], experts: int, visited: int
) -> None:
    parts = weighed(*tensors, experts=experts, visited=visited).values()
    assert sum(part.bytes for part in parts) == sum(tensor.size for tensor in tensors)
    for part in parts:
        assert 0 <= part.token_bytes <= part.bytes
        assert sum(size for _, size in part.by_dtype) == part.bytes


@given(TENSORS, st.randoms(use_true_random=False))
def test_the_order_of_the_shards_and_of_what_is_in_them_does_not_matter(
    tensors: list[Tensor], dice: random.Random
) -> None:
    shuffled = dice.sample(tensors, len(tensors))
    scales, cut = Scales(), dice.randint(0, len(tensors))
    scales.add(shuffled[:cut])
    scales.add(shuffled[cut:])
    whole = weighed(*tensors, experts=8, visited=2)
    halves = {part.name: part for part in scales.parts("", 8, 2)}
    assert halves.keys() == whole.keys()
    for name, part in whole.items():
        assert halves[name].token_bytes == part.token_bytes
        assert dict(halves[name].by_dtype) == dict(part.by_dtype)


@pytest.mark.parametrize("form", FORMATS)
def test_what_a_format_would_take_in_bf16_is_what_bf16_takes(form: str) -> None:
    plain, quantised = true_facts(), true_facts(form, form)
    for name in ("attention", "head"):
        assert part(quantised, name).bf16_bytes == part(plain, name).bytes
        assert (part(quantised, name).bytes < part(plain, name).bytes) == (form != "bf16")


# ---- what a token reads


def test_of_the_experts_those_that_a_token_visits_are_read() -> None:
    name = "model.layers.0.mlp.experts.{}.down_proj.weight"
    tensors = [tensor(name.format(n), "BF16", 50, size=100) for n in range(8)]
    assert weighed(*tensors, experts=8, visited=2)["experts"].token_bytes == 200
    assert weighed(*tensors, experts=8)["experts"].token_bytes == 800, "the config does not say"
    assert weighed(*tensors, experts=8, visited=9)["experts"].token_bytes == 800


def test_of_the_embeddings_one_row_is_read_unless_they_are_the_head_too() -> None:
    embeddings = tensor("model.embed_tokens.weight", "BF16", 100, 8, size=1600)
    head = tensor("lm_head.weight", "BF16", 100, 8, size=1600)
    assert weighed(embeddings, head)["embeddings"].token_bytes == 16
    tied = weighed(embeddings)["embeddings"]
    assert (tied.token_bytes, tied.how) == (1600, "the head is the same matrix")


def test_what_sees_pictures_or_drafts_is_not_read_for_a_token_of_text() -> None:
    vision = tensor("model.visual.merger.weight", "BF16", 8, size=16)
    draft = tensor("mtp.fc.weight", "BF16", 8, size=16)
    parts = weighed(vision, draft)
    assert {name: part.token_bytes for name, part in parts.items()} == {"vision": 0, "draft": 0}


@pytest.mark.parametrize(("dtype", "width"), [("BF16", 2), ("F32", 4)])
def test_routers_that_the_engine_keeps_in_f32_are_read_as_such(dtype: str, width: int) -> None:
    gate = tensor("model.layers.0.block_sparse_moe.gate.weight", dtype, 8, 4, size=32 * width)
    assert weighed(gate, architecture="MiniMaxM2ForCausalLM")["routers"].token_bytes == 128
    assert weighed(gate, architecture="Other")["routers"].token_bytes == 32 * width


@pytest.mark.parametrize(
    ("config", "visited"),
    [
        ({"num_experts_per_tok": 8}, 8),
        ({"experts_per_token": 4}, 4),
        ({}, 0),
        ({"num_experts_per_tok": "8"}, 0),
        ({"num_experts_per_tok": True}, 0),
        ({"num_experts_per_tok": -1}, 0),
    ],
)
def test_how_many_experts_a_token_visits_is_the_configs_word(
    config: dict[str, object], visited: int
) -> None:
    assert experts_per_token(config) == visited


# ---- the real model


def test_the_real_models_headers_have_the_published_census() -> None:
    assert sum(1 for _ in expert_tensors()) + sum(1 for _ in other_tensors("bf16", "bf16")) == (
        143_595
    )
    # 496 bytes of KV scales beside the sum of all weights
    assert true_facts().weights_bytes == 102_781_574_656 + 496


def test_the_checkpoint_on_file_is_what_the_real_headers_give() -> None:
    assert golden_model("nikola") == true_facts()
    assert true_facts().folder == Path("/models/Nikola")
