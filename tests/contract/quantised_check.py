"""Run by the engine's Python: what vLLM's own layers make of a quantised checkpoint's files.

``quantised_check.py FOLDER...``: the layers are those of the vLLM that is imported: registered,
filled and finished by its code. No GPU is here, so the kernels that would multiply are stand-ins.
Prints one JSON object, by folder.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import safe_open
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed import init_distributed_environment, initialize_model_parallel
from vllm.model_executor.layers.linear import QKVParallelLinear, RowParallelLinear
from vllm.model_executor.layers.quantization import modelopt
from vllm.model_executor.layers.quantization.utils.mxfp8_utils import dequant_mxfp8_to_bf16
from vllm.model_executor.layers.quantization.utils.nvfp4_emulation_utils import break_fp4_bytes
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.utils import configure_quant_config
from vllm.model_executor.models.minimax_m2 import MiniMaxM2ForCausalLM


class NoKernel:
    """Stands where a GPU's kernel would be chosen."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.supports_pre_processed_weights = False

    def process_weights_after_loading(self, _layer: Any) -> None:
        """Leave the weights as they are."""


def without_kernels() -> None:
    """Let no kernel be chosen, for each asks for a GPU; 0.26 asks for the model's type, too."""
    model = SimpleNamespace(dtype=torch.bfloat16)
    modelopt.get_current_vllm_config = lambda: SimpleNamespace(model_config=model)
    for name in dir(modelopt):
        if name.endswith(("_linear_kernel", "LinearKernel")):
            setattr(modelopt, name, NoKernel)
    if hasattr(modelopt, "expose_input_quant_key"):
        modelopt.expose_input_quant_key = lambda *_: None


def tensors(folder: Path) -> dict[str, Any]:
    """Return the checkpoint's tensors of attention and the head."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  it is no dict
                if "self_attn" in name or name.startswith("lm_head"):
                    found[name] = file.get_tensor(name)
    return found


def layers(config: dict[str, Any], quant_config: Any) -> dict[str, Any]:
    """Return the layers that vLLM builds for these modules."""
    hidden, heads, head = config["hidden_size"], config["num_attention_heads"], config["head_dim"]
    more = {"bias": False, "quant_config": quant_config}
    made: dict[str, Any] = {}
    for layer in range(config["num_hidden_layers"]):
        stem = f"model.layers.{layer}.self_attn"
        made[f"{stem}.qkv_proj"] = QKVParallelLinear(
            hidden, head, heads, config["num_key_value_heads"], prefix=f"{stem}.qkv_proj", **more
        )
        made[f"{stem}.o_proj"] = RowParallelLinear(
            heads * head, hidden, prefix=f"{stem}.o_proj", **more
        )
    made["lm_head"] = ParallelLMHead(
        config["vocab_size"], hidden, quant_config=quant_config, prefix="lm_head"
    )
    return made


def fill(made: dict[str, Any], loaded: dict[str, Any]) -> dict[str, int]:
    """Give each tensor to the parameter that vLLM has for it; return how many each got."""
    filled: dict[str, int] = {}
    for name, tensor in loaded.items():
        if name.endswith(("_norm.weight", ".k_scale", ".v_scale")):
            continue  # of other modules
        module, _, suffix = name.rpartition(".")
        stem, _, last = module.rpartition(".")
        kind = last.removesuffix("_proj")
        target = f"{stem}.qkv_proj" if kind in ("q", "k", "v") else module
        parameter = dict(made[target].named_parameters())[suffix]
        if kind in ("q", "k", "v"):
            parameter.weight_loader(parameter, tensor, kind)
        else:
            parameter.weight_loader(parameter, tensor)
        key = f"{target}.{suffix}"
        filled[key] = filled.get(key, 0) + 1
    return filled


def described(made: dict[str, Any]) -> dict[str, Any]:
    """Return each layer's method, and its parameters' shapes and types."""
    return {
        name: {
            "method": type(layer.quant_method).__name__,
            "parameters": {
                key: [list(value.shape), str(value.dtype).removeprefix("torch.")]
                for key, value in layer.named_parameters()
            },
        }
        for name, layer in made.items()
    }


def held(made: dict[str, Any]) -> dict[str, str]:
    """Return a hash of what each parameter holds, row after row."""
    return {
        f"{name}.{key}": hashlib.sha256(
            value.data.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        ).hexdigest()
        for name, layer in made.items()
        for key, value in layer.named_parameters()
    }


def restored(layer: Any) -> list[list[float]] | None:
    """Return a layer's weights as vLLM itself unpacks them, where it can without a GPU."""
    held = dict(layer.named_parameters())
    if held["weight"].dtype is torch.uint8:
        numbers = break_fp4_bytes(held["weight"].data, torch.float32)
        by_group = numbers.reshape(*held["weight_scale"].shape, -1)
        units = held["weight_scale"].data.float() * held["weight_scale_2"].data.max()
        rows: list[list[float]] = (by_group * units[..., None]).reshape(numbers.shape).tolist()
    elif held["weight_scale"].dtype is torch.uint8:
        rows = dequant_mxfp8_to_bf16(held["weight"].data, held["weight_scale"].data).tolist()
    else:
        return None
    return rows


def looked_at(folder: Path) -> dict[str, Any]:
    """Return what the layers are, and what they hold when they are filled."""
    config = json.loads((folder / "config.json").read_text())
    section = config["quantization_config"]
    kind = modelopt.ModelOptMixedPrecisionConfig
    quant_config, beside = (
        kind.from_config(content)
        for content in (section, json.loads((folder / "hf_quant_config.json").read_text()))
    )
    same = all(
        getattr(quant_config, name) == getattr(beside, name)
        for name in ("quantized_layers", "exclude_modules", "kv_cache_quant_method")
    )
    configure_quant_config(quant_config, MiniMaxM2ForCausalLM)
    made = layers(config, quant_config)
    report = {
        "quantization": kind.override_quantization_method(section, None),
        "layers": described(made),
        "filled": fill(made, tensors(folder)),
        "held": held(made),
        "restored": {name: restored(layer) for name, layer in made.items()},
        "experts": quant_config._resolve_quant_algo("model.layers.0.mlp.experts"),
        "kv_cache": quant_config.kv_cache_quant_method,
        "the_file_says_the_same": same,
    }
    for layer in made.values():
        layer.quant_method.process_weights_after_loading(layer)
    return report | {"finished": described(made)}


def main() -> None:
    """Print what was seen of each folder."""
    without_kernels()
    torch.set_default_dtype(torch.bfloat16)
    with tempfile.TemporaryDirectory() as scratch, set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, f"file://{scratch}/rendezvous", 0, "gloo")
        initialize_model_parallel(1, 1)
        print(json.dumps({folder: looked_at(Path(folder)) for folder in sys.argv[1:]}))


if __name__ == "__main__":
    main()
