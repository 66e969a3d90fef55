"""What a model's layers keep of a sequence: told by its config, and never guessed."""

from typing import Any

import pytest

from appliance.checkpoint.layers import NotUnderstood, cache_dtype, cache_layers
from appliance.facts import CacheLayers
from tests.checkpoints import CONFIG

MINIMAX = "MiniMaxM2ForCausalLM"
QWEN = "Qwen3_5MoeForConditionalGeneration"
# the shape of the Qwen3.5 family, as transformers' own configuration spells it
HYBRID: dict[str, Any] = {
    "dtype": "bfloat16",
    "num_hidden_layers": 48,
    "full_attention_interval": 4,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "hidden_size": 3072,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 64,
    "mamba_ssm_dtype": "float32",
}
# (2 x 16 x 128 + 64 x 128) x 3 numbers of a convolution, 64 x 128 x 128 of a matrix in float32
STATE = 12_288 * 3 * 2 + 64 * 128 * 128 * 4


def refusal(architecture: str, **config: Any) -> str:
    with pytest.raises(NotUnderstood) as caught:
        cache_layers(architecture, config)
    return str(caught.value)


def test_minimax_m2_keeps_124_kib_a_token_in_fp8() -> None:
    (layers,) = cache_layers(MINIMAX, CONFIG)
    assert layers == CacheLayers("full", 62, 2 * 8 * 128, kv_heads=8)
    assert layers.count * layers.values_per_token * 1 == 124 * 1024


def test_a_hybrid_is_read_from_its_interval() -> None:
    full, linear = cache_layers(QWEN, HYBRID)
    assert full == CacheLayers("full", 12, 2 * 2 * 256, kv_heads=2)
    assert linear == CacheLayers("linear", 36, state_bytes=STATE)


def test_a_hybrid_is_read_from_its_list_of_layers() -> None:
    kinds = (["linear_attention"] * 3 + ["full_attention"]) * 12
    config = {**HYBRID, "layer_types": kinds, "full_attention_interval": None}
    assert cache_layers(QWEN, config) == cache_layers(QWEN, HYBRID)


def test_states_without_a_type_of_their_own_are_of_the_models() -> None:
    (_, linear) = cache_layers(QWEN, {**HYBRID, "mamba_ssm_dtype": None})
    assert linear.state_bytes == (12_288 * 3 + 64 * 128 * 128) * 2


def test_sliding_layers_are_apart_with_their_window() -> None:
    kinds = ["sliding_attention", "full_attention"] * 12
    config = {**CONFIG, "num_hidden_layers": 24, "layer_types": kinds, "sliding_window": 128}
    full, sliding = cache_layers("GptOssForCausalLM", config)
    assert (full.count, sliding.count, sliding.window) == (12, 12, 128)
    assert full.values_per_token == sliding.values_per_token == 2048


def test_without_a_head_size_the_heads_share_the_hidden_size() -> None:
    (layers,) = cache_layers(MINIMAX, {**CONFIG, "head_dim": None})
    assert layers.values_per_token == 2 * 8 * (3072 // 48)


def test_without_a_number_of_kv_heads_every_head_keeps_its_own() -> None:
    config = {name: value for name, value in CONFIG.items() if name != "num_key_value_heads"}
    (layers,) = cache_layers("LlamaForCausalLM", config)
    assert layers.values_per_token == 2 * 48 * 128


def test_a_window_that_is_switched_off_is_none() -> None:
    config = {**CONFIG, "sliding_window": 4096, "use_sliding_window": False}
    assert cache_layers("Qwen2ForCausalLM", config) == cache_layers(MINIMAX, CONFIG)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "a stranger": ("DeepseekV4ForCausalLM", {}, "DeepseekV4ForCausalLM"),
    "latent attention": ("LlamaForCausalLM", {"kv_lora_rank": 512}, "kv_lora_rank"),
    "linear layers of its own": (MINIMAX, {"attn_type_list": [0, 1] * 31}, "attn_type_list"),
    "a window": ("MistralForCausalLM", {"sliding_window": 4096}, "sliding_window"),
    "a new kind": (MINIMAX, {"layer_types": ["chunked_attention"] * 62}, "chunked_attention"),
    "a short list": (MINIMAX, {"layer_types": ["full_attention"]}, "62 layers"),
    "no list": (MINIMAX, {"layer_types": "full_attention"}, "62 layers"),
    "unexpected states": (MINIMAX, {"layer_types": ["linear_attention"] * 62}, "linear layers"),
    "no layers": (MINIMAX, {"num_hidden_layers": None}, "num_hidden_layers=None"),
    "a text for a number": (MINIMAX, {"num_key_value_heads": "8"}, "num_key_value_heads='8'"),
    "truth for a number": (MINIMAX, {"head_dim": True}, "head_dim=True"),
    "nothing": (MINIMAX, {"num_key_value_heads": 0}, "num_key_value_heads=0"),
    "only windows": (
        "GptOssForCausalLM",
        {"layer_types": ["sliding_attention"] * 62, "sliding_window": 128},
        "no layer of it has full attention",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_said_and_not_guessed(case: str) -> None:
    architecture, changes, says = REFUSED[case]
    assert says in refusal(architecture, **{**CONFIG, **changes})


def test_a_state_of_an_unknown_type_is_not_understood() -> None:
    assert "float8" in refusal(QWEN, **{**HYBRID, "mamba_ssm_dtype": "float8"})
    assert "''" in refusal(QWEN, **{**HYBRID, "dtype": None})


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ({"quant_method": "modelopt", "kv_cache_quant_algo": "FP8"}, "fp8"),
        (
            {
                "quant_method": "modelopt_fp4",
                "kv_cache_scheme": {"num_bits": 8, "type": "float", "dynamic": False},
            },
            "fp8",
        ),
        ({"quant_method": "modelopt", "kv_cache_scheme": {"num_bits": 4}}, "bfloat16"),
        ({"quant_method": "compressed-tensors", "kv_cache_quant_algo": "FP8"}, "bfloat16"),
        (None, "bfloat16"),
        ("fp8", "bfloat16"),
    ],
)
def test_a_cache_of_type_auto_is_what_the_checkpoint_says(section: Any, kind: str) -> None:
    assert cache_dtype({"quantization_config": section, **CONFIG}, CONFIG) == kind


def test_a_checkpoint_that_names_no_type_has_no_type_auto() -> None:
    assert cache_dtype({}, {"torch_dtype": 3}) == ""
