"""Which layers of a model keep what of a sequence, told by its config.json. Never guessed.

A name on the list below stands for a layout that vLLM 0.32 and 0.33 were read for. Whatever a
config says beyond it (another attention, a kind of layer of its own) is not understood, and the
memory plan then says so.
"""

from collections import Counter
from typing import Any

from appliance.facts import CacheLayers

Config = dict[str, Any]

# Every layer keeps keys and values of all KV heads, whole or windowed as layer_types says.
_ATTENTION = frozenset(
    {
        "MiniMaxM2ForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM",
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "MixtralForCausalLM",
        "GptOssForCausalLM",
    }
)
# Full attention at an interval; the layers between are gated delta nets with a state.
_HYBRID = frozenset(
    {
        "Qwen3NextForCausalLM",
        "Qwen3_5ForCausalLM",
        "Qwen3_5MoeForCausalLM",
        "Qwen3_5ForConditionalGeneration",
        "Qwen3_5MoeForConditionalGeneration",
    }
)
_KINDS = {
    "full_attention": "full",
    "sliding_attention": "sliding",
    "linear_attention": "linear",
}
# What else a config may have that changes what a layer keeps.
_STRANGE = ("kv_lora_rank", "global_head_dim", "num_global_key_value_heads", "v_head_dim")
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class NotUnderstood(ValueError):
    """The config leaves open what a layer keeps: the text says which part of it."""


def cache_layers(architecture: str, config: Config) -> tuple[CacheLayers, ...]:
    """Return the layers by kind, those of full attention first. Raises NotUnderstood.

    ``config`` is the part that describes the text model.
    """
    if architecture not in _ATTENTION | _HYBRID:
        raise NotUnderstood(f"what the layers of {architecture} keep is not known here")
    if strange := [name for name in _STRANGE if config.get(name)]:
        raise NotUnderstood(f"its config has {', '.join(strange)}: another attention")
    kinds = Counter(_layer_kinds(architecture, config))
    if not kinds["full_attention"]:
        raise NotUnderstood("no layer of it has full attention")
    return tuple(_layers(name, kinds[name], config) for name in _KINDS if kinds[name])


def _layer_kinds(architecture: str, config: Config) -> list[str]:
    count = _number(config, "num_hidden_layers")
    kinds = config.get("layer_types")
    if kinds is None:
        kinds = _kinds_without_list(architecture, config, count)
    if not isinstance(kinds, list) or len(kinds) != count:
        raise NotUnderstood(f"its layer_types do not name {count} layers")
    if strange := sorted({str(kind) for kind in kinds} - set(_KINDS)):
        raise NotUnderstood(f"layers of the kind {', '.join(strange)} are not known here")
    if "linear_attention" in kinds and architecture not in _HYBRID:
        raise NotUnderstood(f"linear layers of {architecture} are not known here")
    return kinds


def _kinds_without_list(architecture: str, config: Config, count: int) -> list[str]:
    if architecture in _HYBRID:
        interval = _number(config, "full_attention_interval")
        return [
            "linear_attention" if (layer + 1) % interval else "full_attention"
            for layer in range(count)
        ]
    # MiniMax's own list: 1 is attention over the whole sequence
    if any(kind != 1 for kind in config.get("attn_type_list") or ()):
        raise NotUnderstood("its attn_type_list names others than full attention")
    if config.get("sliding_window") and config.get("use_sliding_window") is not False:
        raise NotUnderstood("it has a sliding_window, and no layer_types")
    return ["full_attention"] * count


def _layers(name: str, count: int, config: Config) -> CacheLayers:
    if name == "linear_attention":
        return CacheLayers("linear", count, state_bytes=_state_bytes(config))
    heads = _number(config, "num_attention_heads")
    size = config.get("head_dim") or _number(config, "hidden_size") // heads
    # all heads keep their own where the config names no number of KV heads
    keeping = _number(config, "num_key_value_heads") if "num_key_value_heads" in config else heads
    values = 2 * keeping * _positive("head_dim", size)
    if name == "sliding_attention":
        window = _number(config, "sliding_window")
        return CacheLayers("sliding", count, values, window=window, kv_heads=keeping)
    return CacheLayers("full", count, values, kv_heads=keeping)


def _state_bytes(config: Config) -> int:
    """Return what one gated delta net keeps of a sequence: a convolution's tail and a matrix."""
    keys = _number(config, "linear_num_key_heads") * _number(config, "linear_key_head_dim")
    heads, size = (
        _number(config, "linear_num_value_heads"),
        _number(config, "linear_value_head_dim"),
    )
    tail = (2 * keys + heads * size) * (_number(config, "linear_conv_kernel_dim") - 1)
    matrix = heads * size * _number(config, "linear_key_head_dim")
    own = model_dtype(config)
    return tail * _dtype_bytes(own) + matrix * _dtype_bytes(config.get("mamba_ssm_dtype") or own)


def model_dtype(config: Config) -> str:
    """Return the type that the model computes in, as its config spells it; "" when it does not."""
    name = config.get("torch_dtype") or config.get("dtype")
    return name if isinstance(name, str) else ""


def cache_dtype(config: Config, inner: Config) -> str:
    """Return what a KV cache of type "auto" is for this checkpoint, as vLLM resolves it."""
    section = config.get("quantization_config") or inner.get("quantization_config")
    if isinstance(section, dict) and str(section.get("quant_method", "")).startswith("modelopt"):
        match section.get("kv_cache_scheme") or section.get("kv_cache_quant_algo"):
            case {"num_bits": 8, "type": "float", "dynamic": False}:
                return "fp8"
            case str(name) if name.lower() == "fp8":
                return "fp8"
    return model_dtype(inner) or model_dtype(config)


def _dtype_bytes(name: str) -> int:
    if name not in _DTYPE_BYTES:
        raise NotUnderstood(f"the type {name!r} of its states is not known here")
    return _DTYPE_BYTES[name]


def _number(config: Config, name: str) -> int:
    return _positive(name, config.get(name))


def _positive(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise NotUnderstood(f"its config says {name}={value!r}")
    return value
