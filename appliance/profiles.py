"""Profiles as data: what a box, and a model, bring to the settings, each row with its source.

A profile is only a set of defaults. Whatever the operator sets explicitly wins over the box
profile (what this machine can do), which wins over the model profile (what the model wants).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

GIB = 2**30


@dataclass(frozen=True)
class Row:
    """One default: the setting's value and where it comes from."""

    value: Any
    source: str


@dataclass(frozen=True)
class Profile:
    """Named defaults. ``level`` says how far they are proven: measured, or expected."""

    name: str
    about: str
    level: str
    rows: Mapping[str, Row]
    engine_env: Mapping[str, Row] = field(default_factory=lambda: MappingProxyType({}))
    on_cpu: bool = False  # vLLM's CPU engine: its memory is the machine's, and no fraction of it


_CARD = "model card of catplusplus/MiniMax-M2.7-REAP-172B-A10B-NVFP4"
_EXPANDABLE = (
    "6 to 7 GiB more left at the floor (nvidia/GLM-5.3-Flash-FP4 discussion 7); "
    "dgx-spark-playbooks#97 saw driver errors with it and none without: set it off there"
)

_BANDWIDTH = Row(273.0, "LPDDR5X, 273 GB/s by NVIDIA's data sheets of both boxes")

_UNIFIED = {
    "memory_bandwidth_gb_s": _BANDWIDTH,
    "max_num_seqs": Row(2, "one agent and its helper; each sequence costs KV cache"),
    "max_num_batched_tokens": Row(2048, "bounds the activation peak of a long prefill"),
    "attention_backend": Row("FLASHINFER", _CARD),
    "moe_backend": Row(
        "marlin", "CUTLASS grouped NVFP4 gives garbage on SM120 (cutlass#3096, flashinfer#2723)"
    ),
    "load_format": Row("auto", "the engine's own safetensors loader: the smallest peak memory"),
    "expandable_segments": Row(True, _EXPANDABLE),
    "flashinfer_autotune": Row(False, "0 driver errors without it (dgx-spark-playbooks#97)"),
    "cudagraph_capture_sizes": Row((1, 2, 4), _CARD),
    "expected_start_s": Row(720.0, "8 to 15 min for weights of this size (peers' reports)"),
    "admit_wait_s": Row(1200.0, "a streamed request outlives a whole start"),
    "start_timeout_s": Row(3600.0, "a first start compiles for minutes in silence"),
    "memory_growth": Row(3 * GIB, "2 to 3 GiB of permanent growth per request (MiaAI-Lab, Spark)"),
    "memory_warn_floor": Row(7 * GIB // 2, "1 GiB above the end"),
    "memory_stop_floor": Row(3 * GIB, "the driver needs 3 GiB of free pages (MiaAI-Lab, Spark)"),
    "memory_kill_floor": Row(5 * GIB // 2, "an end in order takes seconds; a wedge takes 1.5 s"),
    "memory_emergency": Row(2 * GIB, "below it a whole box froze (open-gpu-kernel-modules#1358)"),
    "load_free_floor": Row(8 * GIB, "ended failures of loading (tonyd2wild, PR#19)"),
}
BOX_PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "spark": Profile(
            "spark",
            "NVIDIA DGX Spark (GB10, sm_121, 128 GB)",
            "expected",
            {
                **_UNIFIED,
                "wedge_power_floor_w": Row(30.0, "hangs draw 16 to 27 W, work 45 W (eugr#260)"),
            },
        ),
        "thor": Profile(
            "thor",
            "NVIDIA Jetson AGX Thor (sm_110, 128 GB)",
            "expected",
            {
                **_UNIFIED,
                "prefill_tokens_per_s": Row(100.0, "half of a Spark's (antirez/ds4#716)"),
            },
            {
                "TRITON_PTXAS_PATH": Row(
                    "/usr/local/cuda/bin/ptxas",
                    "Triton's bundled ptxas does not know sm_110a (vllm#34470)",
                ),
            },
        ),
        "demo": Profile(
            "demo",
            "any Linux machine without a GPU: vLLM's CPU engine and a 1.3 MB checkpoint",
            "measured",
            {
                "max_num_seqs": Row(64, "the tiny model: a crowd costs nothing"),
                "enforce_eager": Row(True, "ready in half the time (21 s against 45 s measured)"),
                "kv_cache_dtype": Row("auto", "the CPU engine keeps its KV cache in bf16"),
                "start_timeout_s": Row(600.0, "loads in under a minute on two cores"),
                "start_quiet_s": Row(120.0, "it works all the while that it loads"),
                "memory_growth": Row(GIB // 4, "the tiny model: a fraction of a Spark's"),
                "memory_warn_floor": Row(GIB, "an ordinary machine: the kernel's OOM killer"),
                "memory_stop_floor": Row(3 * GIB // 4, "works there, and comes after all of these"),
                "memory_kill_floor": Row(GIB // 2, "as above"),
                "memory_emergency": Row(GIB // 4, "as above"),
            },
            {
                "VLLM_CPU_KVCACHE_SPACE": Row("1", "GiB of KV cache, enough for the tiny model"),
                "VLLM_PLUGINS": Row(
                    "unglitched_cpu_routing,unglitched_cpu_waiting,unglitched_evidence",
                    "load our plug-ins and no stranger's (unglitched_vllm/plugin/README.md)",
                ),
            },
            on_cpu=True,
        ),
    }
)

_SAMPLING = {"temperature": 1.0, "top_p": 0.95, "top_k": 40}

MODEL_PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "nikola": Profile(
            "nikola",
            "MiniMax-M2.7-REAP-172B-A10B-NVFP4 (MiniMax M2.7 Non-Commercial licence)",
            "expected",
            {
                "kv_cache_dtype": Row(
                    "fp8", "k/v scales are in the checkpoint; bf16 would not fit"
                ),
                "tool_call_parser": Row("minimax_m2", _CARD),
                "reasoning_parser": Row("minimax_m2_optthink", "extras/, thinking made optional"),
                "sampling": Row(_SAMPLING, "MiniMax's own recommendation (MiniMax-M2 README)"),
            },
        ),
        "qwen3.5-122b": Profile(
            "qwen3.5-122b",
            "catplusplus/Qwen3.5-122B-A10B-heretic-v2-NVFP4, the card's un-pruned alternative",
            "expected",
            {
                "kv_cache_dtype": Row("auto", "as the checkpoint says"),
                "tool_call_parser": Row("qwen3_coder", "vLLM's own parser for the Qwen3.5 family"),
                "reasoning_parser": Row("qwen3", "vLLM's own parser for the Qwen3.5 family"),
                "sampling": Row({}, "as the checkpoint's generation_config says"),
            },
        ),
        "custom": Profile(
            "custom",
            "any checkpoint that vLLM serves: name the parsers yourself, or leave them off",
            "expected",
            {
                "kv_cache_dtype": Row("auto", "as the checkpoint says"),
                "sampling": Row({}, "as the checkpoint says"),
            },
        ),
    }
)
