"""Overheads: estimates, and what an engine's own log teaches in their place.

The lines are those of vLLM 0.32 and 0.33; the CPU's were seen, a GPU's are from the source.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.overheads import GIB, MIB, ON_CPU, ON_GPU, Learned, host_share, learn, overheads

CORE = "(EngineCore pid=408) INFO 11-23 01:10:08 "
LOADED = (
    f"{CORE}[gpu_model_runner.py:5149] Model loading took 96.12 GiB memory and 702.313004 seconds"
)
RESERVED = (
    f"{CORE}[gpu_worker.py:669] Initial free memory 110.34 GiB, reserved 3.28 GiB memory for KV "
    "Cache as specified by kv_cache_memory_bytes config and skipped memory profiling. This does "
    "not respect the gpu_memory_utilization config."
)
CAPTURED = f"{CORE}[gpu_model_runner.py:6581] Graph capturing finished in 12 secs, took 0.26 GiB"
POOL = (
    f"{CORE}[gpu_worker.py:971] CUDA graph pool memory: 0.26 GiB (actual), 0.31 GiB (estimated), "
    "difference: 0.05 GiB (19.2%)."
)
USAGE = (
    f"{CORE}[gpu_worker.py:1034] Free memory on device (110.34/121.69 GiB) on startup. Desired GPU "
    "memory utilization is (0.87, 105.87 GiB). Actual usage is 98.9 GiB for consumed memory "
    "(weights + non-torch), 3.91 GiB for peak activation, and 0.26 GiB for CUDAGraph memory. "
    "Replace gpu_memory_utilization config with `--kv-cache-memory=2941976576` (2.74 GiB) to fit "
    "into requested memory."
)
# as seen on 2026-11-23
CPU = [
    "(Worker pid=3204) INFO 11-23 02:39:26 [cpu_worker.py:260] Explicitly set (1.0/13.34) GiB for "
    "KV cache on node 0.",
    "(EngineCore pid=3192) INFO 11-23 02:39:26 [kv_cache_utils.py:2327] CPU KV cache size: "
    "2,097,152 tokens, Maximum concurrency for 131,072 tokens per request: 16.00x",
    "(EngineCore pid=3192) INFO 11-23 02:39:27 [core.py:402] init engine (profile, create kv "
    "cache, warmup model) took 0.79 s",
]
CPU_AUTO = (
    "(Worker pid=3204) INFO 11-23 02:39:26 [cpu_worker.py:260] Auto set (5.13/13.34) GiB for KV "
    "cache on node 0, with 6.67 GiB requested memory for the worker. 1.54 GiB memory was consumed "
    "by non-kv usages."
)


def about(gib: float) -> object:
    """A size that was logged to 0.01 GiB: that, or half a hundredth more."""
    return pytest.approx((gib + 0.005) * GIB, abs=2)


# ---- what is learned


def test_a_start_with_its_cache_given_teaches_weights_and_graphs() -> None:
    learned = learn([LOADED, RESERVED, CAPTURED])
    assert learned is not None
    assert learned.weights_bytes == about(96.12)
    assert learned.cuda_graphs_bytes == about(0.26)
    assert learned.as_dict().keys() == {"weights_bytes", "cuda_graphs_bytes"}


def test_with_what_was_available_it_teaches_what_is_gone_before_the_check() -> None:
    learned = learn([LOADED, RESERVED], available_bytes=116 * GIB)
    assert learned is not None
    assert learned.before_check_bytes == pytest.approx((116 - 110.345) * GIB, abs=2)


MOST = ON_GPU.non_torch.bytes + ON_GPU.engine_host.bytes  # that is gone for vLLM by then
FREE = round(110.345 * GIB)


@pytest.mark.parametrize(
    ("available", "gone"),
    [(FREE + 1, 0), (FREE + MOST - 1, MOST), (FREE + MOST + MIB, None), (FREE - MIB, None)],
    ids=["nothing", "all of it", "somebody else's too", "more than before"],
)
def test_what_cannot_have_been_vllms_is_not_learned(available: int, gone: int | None) -> None:
    learned = learn([LOADED, RESERVED], available_bytes=available)
    assert learned is not None
    assert learned.weights_bytes == about(96.12)
    assert learned.before_check_bytes == (gone if gone is None else pytest.approx(gone, abs=2))


def test_the_free_memory_of_a_discrete_gpu_teaches_nothing() -> None:
    learned = learn([LOADED, RESERVED], available_bytes=480 * GIB)
    assert learned is not None
    assert learned.before_check_bytes is None


def test_a_start_that_measured_teaches_all_parts() -> None:
    learned = learn([LOADED, POOL, USAGE])
    assert learned is not None
    assert learned.non_torch_bytes == pytest.approx((98.9 - 96.12) * GIB, abs=2)
    assert learned.cuda_graphs_bytes == about(0.26)
    assert learned.activations_bytes == pytest.approx((3.91 - 0.31) * GIB, abs=2), (
        "its estimate of the graphs is a part of what it calls the peak"
    )


def test_the_last_start_in_the_log_counts() -> None:
    learned = learn([LOADED.replace("96.12", "10.0"), LOADED])
    assert learned is not None
    assert learned.weights_bytes == about(96.12)


def test_a_size_below_zero_teaches_nothing() -> None:
    assert learn([CAPTURED.replace("0.26", "-0.40")]) is None


def test_the_cpu_engine_teaches_its_own_size_where_it_measured() -> None:
    assert learn(CPU) is None, "with its cache given it says nothing else"
    learned = learn([*CPU, CPU_AUTO])
    assert learned is not None
    assert learned.engine_host_bytes == about(1.54)


@given(st.lists(st.text(max_size=80), max_size=20))
def test_other_lines_teach_nothing(lines: list[str]) -> None:
    assert learn(lines) is None


# ---- how it is kept


SIZES = st.none() | st.integers(0, 2**40)


@given(st.builds(Learned, SIZES, SIZES, SIZES, SIZES, SIZES, SIZES))
def test_what_was_learned_is_kept_and_read_again(learned: Learned) -> None:
    kept = learned.as_dict()
    assert Learned.of(kept) == (learned if kept else None)


def test_what_an_older_version_kept_is_read_as_far_as_it_is_known() -> None:
    assert Learned.of({"weights_bytes": 5, "gone": 7}) == Learned(weights_bytes=5)
    assert Learned.of({"weights_bytes": -5}) is None
    assert Learned.of({}) is None


# ---- what is reckoned with


def test_on_a_gpu_4_5_gib_are_estimated_inside_the_utilization() -> None:
    inside = (ON_GPU.activations, ON_GPU.cuda_graphs, ON_GPU.non_torch)
    assert sum(amount.bytes for amount in inside) == 4608 * MIB


def test_without_graphs_none_are_reckoned_with() -> None:
    eager = overheads(False, True, None)
    assert eager.cuda_graphs.bytes == 0
    assert eager.activations == ON_GPU.activations


def test_what_was_learned_replaces_its_estimate_and_no_other() -> None:
    found = overheads(False, False, Learned(cuda_graphs_bytes=5, engine_host_bytes=7))
    assert (found.cuda_graphs.bytes, found.engine_host.bytes) == (5, 7)
    assert "logged" in found.cuda_graphs.how
    assert (found.activations, found.non_torch) == (ON_GPU.activations, ON_GPU.non_torch)


def test_on_a_cpu_all_is_in_the_engines_processes() -> None:
    found = overheads(True, True, None)
    assert found == ON_CPU
    inside = (found.activations, found.cuda_graphs, found.non_torch, found.before_check)
    assert {amount.bytes for amount in inside} == {0}


@pytest.mark.parametrize(
    ("taken", "share"),
    [
        (106 * GIB, 6 * GIB),
        (103 * GIB, 3 * GIB),
        (112 * GIB, 12 * GIB),
        (100 * GIB, None),
        (113 * GIB, None),
    ],
)
def test_what_the_processes_hold_is_learned_where_it_is_near_the_estimate(
    taken: int, share: int | None
) -> None:
    assert host_share(taken, 100 * GIB, on_cpu=False) == share
