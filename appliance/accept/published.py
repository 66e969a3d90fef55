"""Speeds that others have published, to stand beside one's own. Pure: data, each with its source.

Taken from public READMEs, model cards, issues and posts up to September 2026.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One row: decode in tokens a second (least, most), prefill as (prompt tokens, tok/s)."""

    what: str
    box: str
    decode: tuple[float, float]
    source: str
    prefill: tuple[tuple[int, float], ...] = ()
    note: str = ""


SPARK, THOR = "1 DGX Spark", "1 Jetson Thor"
PUBLISHED = (
    Published(
        "MiniMax-M2.5-REAP-172B NVFP4",
        SPARK,
        (27, 29),
        "model card saricles/MiniMax-M2.5-REAP-172B-A10B-NVFP4-GB10",
        prefill=((512, 920), (4096, 1916)),
        note="attention in NVFP4 too; 21 tok/s after 23K; first token 490 ms at 512",
    ),
    Published(
        "MiniMax-M2.7 IQ4_XS, llama.cpp",
        SPARK,
        (23.4, 26.4),
        "flowtivity blog, May 2026",
        note="all experts; GGUF of 108 GB",
    ),
    Published(
        "Qwen3.8-Flash-Next NVFP4, MTP 3",
        SPARK,
        (46, 46),
        "MiaAI-Lab/Qwen3.8-Flash-Next-Single-DGX-Spark",
        note="prefill 1,764 to 2,265 tok/s",
    ),
    Published(
        "Nemotron-3-Super-120B NVFP4, eager",
        SPARK,
        (9.0, 9.6),
        "vLLM blog, 26 May 2026",
        note="prefill 1,640 to 1,880 tok/s",
    ),
    Published("gpt-oss-120b MXFP4", SPARK, (60, 60), "eugr/spark-vllm-docker README"),
    Published(
        "Nemotron-3-Nano-30B NVFP4",
        THOR,
        (65.7, 65.7),
        "NVIDIA developer forum, thread 370044",
    ),
)
