"""Writes the trained weights as a checkpoint in MiniMax-M2's published format.

Runs in the engine's environment only (torch, safetensors).
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from appliance.demo.model import Shape, Weights
from appliance.demo.tokenizer import BEGIN, END, ROLE


def tensors(weights: Weights) -> Iterator[tuple[str, Any]]:
    """Yield each tensor under its published name, the stacked experts one by one.

    Everything is bf16 but the correction bias, which the published checkpoint keeps in f32.
    """
    for name, tensor in weights.items():
        if name.endswith("e_score_correction_bias"):
            yield name, tensor.float().contiguous()
        elif ".experts." in name:
            prefix, part = name.rsplit(".", 1)
            for expert, matrix in enumerate(tensor):
                yield f"{prefix}.{expert}.{part}.weight", matrix.bfloat16().contiguous()
        else:
            yield name, tensor.bfloat16().contiguous()


def model_config(shape: Shape, ids: dict[str, int]) -> dict[str, Any]:
    """Return config.json's content, with the published file's keys."""
    sizes = asdict(shape)
    theta = sizes.pop("rope_theta")
    return {
        "architectures": ["MiniMaxM2ForCausalLM"],
        "model_type": "minimax_m2",
        **sizes,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": theta,
            "partial_rotary_factor": shape.rotary_dim / shape.head_dim,
        },
        "attention_dropout": 0.0,
        "attention_bias": False,
        "attn_type_list": [1] * shape.num_hidden_layers,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "use_qk_norm": True,
        "qk_norm_type": "per_layer",
        "scoring_func": "sigmoid",
        "use_routing_bias": True,
        "shared_intermediate_size": 0,
        "use_mtp": False,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.001,
        "router_jitter_noise": 0.0,
        "tie_word_embeddings": False,
        "use_cache": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": ids[ROLE],
        "eos_token_id": ids[END],
    }


def generation_config(ids: dict[str, int]) -> dict[str, Any]:
    """Return generation_config.json's content: the published sampling."""
    return {
        "bos_token_id": ids[BEGIN],
        "eos_token_id": ids[END],
        "do_sample": True,
        "temperature": 1.0,
        "top_p": 0.95,
        "top_k": 40,
    }


def save_weights(weights: Weights, folder: Path) -> int:
    """Write model.safetensors and its index; return the bytes of the tensors."""
    named = dict(tensors(weights))
    total = sum(tensor.numel() * tensor.element_size() for tensor in named.values())
    path = folder / "model.safetensors"
    save_file(named, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes it for the owner alone; a container reads it as another
    index = {
        "metadata": {"total_size": total},
        "weight_map": dict.fromkeys(sorted(named), "model.safetensors"),
    }
    save_json(index, folder / "model.safetensors.index.json")
    return int(total)


def save_json(content: dict[str, Any], path: Path) -> None:
    """Write one JSON file, indented as the published ones are."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def rounded_to_bf16(weights: Weights) -> Weights:
    """Return the weights as the checkpoint will hold them, in f32 for fast arithmetic."""
    return {
        name: tensor if name.endswith("e_score_correction_bias") else tensor.bfloat16().float()
        for name, tensor in weights.items()
    }


def parameter_count(weights: Weights) -> int:
    """Count the parameters."""
    return sum(int(torch.numel(tensor)) for tensor in weights.values())
