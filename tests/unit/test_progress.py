"""Loading progress, over the lines that vLLM 0.32 really prints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.progress import Progress, advance

SERVER = "(APIServer pid=11221) INFO 11-23 01:09:57 "
CORE = "(EngineCore pid=11408) INFO 11-23 01:10:08 "
WORKER = "(Worker pid=11430) INFO 11-23 01:10:24 "
EAGER = (
    "(EngineCore pid=11408) WARNING 11-23 01:10:29 [vllm.py:1703] Enforce eager set, disabling "
    "torch.compile, CUDAGraphs, and JIT kernel warmup. This is equivalent to setting -cc.mode=none"
)
SHARDS = "Loading safetensors checkpoint shards: {:3d}% Completed | {}/24 [00:10<00:17,  1.10s/it]"

# A start on a CPU as seen (2026-11-23), then the lines that a GPU adds, from the source.
CPU_START = [
    (f"{SERVER}[api_utils.py:347]  version 0.32.0", "starting"),
    (f"{SERVER}[api_utils.py:286] non-default args: {{'enable_jit_warmup': True}}", "starting"),
    (f"{SERVER}[model.py:733] Resolved architecture: MiniMaxM2ForCausalLM", "initialising"),
    (EAGER, "initialising"),
    (
        f"{CORE}[core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='/m', "
        "compilation_config={'mode': 0, 'cudagraph_num_of_warmups': 0}",
        "initialising",
    ),
    (f"{WORKER}[cpu_model_runner.py:68] Starting to load model /m...", "loading weights"),
    (SHARDS.format(0, 0), "loading weights 0%"),
    (SHARDS.format(37, 9), "loading weights 37%"),
    (SHARDS.format(100, 24), "loading weights 100%"),
    (f"{WORKER}[default_loader.py:501] Loading weights took 0.02 seconds", "weights loaded"),
    (f"{CORE}[kv_cache_utils.py:2327] CPU KV cache size: 2,097,152 tokens", "measuring memory"),
    (
        f"{CORE}[core.py:402] init engine (profile, create kv cache, warmup model) took 1.45 s",
        "warming kernels",
    ),
    (EAGER, "warming kernels"),
    (f"{SERVER}[entry.py:140] Starting vLLM server on http://127.0.0.1:1", "opening the API"),
    ("INFO:     Application startup complete.", "opening the API"),
]
GPU_LINES = [
    (
        f"{WORKER}[model_runner.py:425] Model loading took 95.71 GiB memory and 700 s",
        "weights loaded",
    ),
    (f"{WORKER}[backends.py:1167] Dynamo bytecode transform time: 9.10 s", "compiling"),
    (
        f"{WORKER}[backends.py:399] Compiling a graph for compile range (1, 2048) takes 30.02 s",
        "compiling",
    ),
    (f"{WORKER}[monitor.py:20] torch.compile took 41.00 s in total", "compiling"),
    (f"{WORKER}[gpu_worker.py:760] Available KV cache memory: 6.80 GiB", "measuring memory"),
    (f"{WORKER}[kernel_warmup.py:176] JIT kernel warmup starting.", "warming kernels"),
    ("JIT kernel warmup (120 compile keys):  50%|█████     | 60/120", "warming kernels 50%"),
    (
        "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  67%|██████▋   | 2/3 [00:01]",
        "capturing graphs 67%",
    ),
    (f"{WORKER}[gpu_model_runner.py:6582] Graph capturing finished in 3 secs", "capturing graphs"),
    ("Multi-thread loading shards:  12% Completed | 3/24 [00:01<00:09]", "loading weights 12%"),
    ("Loading safetensors using Runai Model Streamer:   4% Completed | 1/24", "loading weights 4%"),
]


def test_a_start_is_told_phase_by_phase() -> None:
    progress = Progress()
    seen = []
    for line, _ in CPU_START:
        progress = advance(progress, line)
        seen.append(str(progress))
    assert seen == [shown for _, shown in CPU_START]


@pytest.mark.parametrize(("line", "shown"), GPU_LINES)
def test_each_phase_is_known_by_its_line(line: str, shown: str) -> None:
    assert str(advance(Progress(), line)) == shown


@given(st.text(st.characters(categories=("Ll", "Nd", "Zs")), max_size=60))
def test_an_unknown_line_changes_nothing(line: str) -> None:
    progress = Progress("loading weights", 0.37)
    assert advance(progress, line) is progress


def test_another_line_of_the_same_phase_keeps_the_fraction() -> None:
    progress = Progress("loading weights", 0.37)
    assert advance(progress, "Starting to load model drafter...") is progress


@given(st.integers(min_value=0, max_value=24))
def test_the_fraction_is_that_of_the_bar(done: int) -> None:
    percent = round(100 * done / 24)
    progress = advance(Progress(), SHARDS.format(percent, done))
    assert progress == Progress("loading weights", percent / 100)


def test_no_fraction_is_greater_than_one() -> None:
    assert advance(Progress(), SHARDS.format(999, 24)).fraction == 1.0


def test_a_phase_without_a_known_fraction_shows_none() -> None:
    assert str(Progress("compiling")) == "compiling"
