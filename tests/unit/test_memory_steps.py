"""Safer plans, for a start after failures of memory: each is smaller, or there is none."""

from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from appliance.errors import DoesNotFit
from appliance.facts import HostFacts, ModelFacts
from appliance.memory import LEAST_CONTEXT, RUNGS, MemoryPlan, plan_memory
from appliance.settings import Settings, load_settings
from tests.plans import golden_host, golden_model

GIB = 2**30
NIKOLA, QWEN, DEMO = (golden_model(name) for name in ("nikola", "qwen3.5-122b", "demo"))
UNKNOWN = replace(NIKOLA, cache=(), cache_unknown="nobody read it")
SPARK, VM = golden_host("spark"), golden_host("demo-24g")
# what a box without a desktop would leave: 2.5 GiB in use
HEADLESS = replace(SPARK, memory_available_bytes=SPARK.memory_total_bytes - 5 * GIB // 2)
WIDE = replace(DEMO, cache=NIKOLA.cache)  # 248 KiB a token, on a CPU


def settings(**variables: Any) -> Settings:
    return load_settings({f"APPLIANCE_{name}": str(value) for name, value in variables.items()})


def plan(
    rung: int, host: HostFacts = HEADLESS, model: ModelFacts = NIKOLA, **variables: Any
) -> MemoryPlan:
    return plan_memory(settings(**variables), host, model, rung=rung)


def taken(made: MemoryPlan) -> int:
    """All that the engine takes by the plan."""
    names = {"weights", "kv_cache", "activations", "cuda_graphs", "non_torch", "engine_host"}
    return sum(row.bytes for row in made.rows if row.name in names)


def steps(host: HostFacts, model: ModelFacts, **variables: Any) -> list[MemoryPlan]:
    """Every step that there is, of a plan that fits; after the last one only refusals follow."""
    made = [plan(0, host, model, **variables)]
    for rung in range(1, RUNGS):
        with suppress(DoesNotFit):
            made.append(plan(rung, host, model, **variables))
    for rung in range(len(made), RUNGS):
        with pytest.raises(DoesNotFit, match="no safer plan: "):
            plan(rung, host, model, **variables)
    return made


@given(
    st.integers(0, 12 * GIB),
    st.sampled_from(["safe", "default", "wide"]),
    st.none() | st.integers(1, 70_000),
    st.sampled_from([NIKOLA, QWEN]),
    st.none() | st.floats(0.79, 0.9),
)
def test_each_safer_step_takes_less_or_there_is_none(
    used: int, profile: str, context: int | None, model: ModelFacts, fraction: float | None
) -> None:
    host = replace(SPARK, memory_available_bytes=SPARK.memory_total_bytes - used)
    chosen = {
        "MEMORY_PROFILE": profile,
        "MAX_MODEL_LEN": context or "",
        "GPU_MEMORY_UTILIZATION": fraction or "",
    }
    try:
        plan(0, host, model, **chosen)
    except DoesNotFit:
        assume(False)
    made = steps(host, model, **chosen)
    for before, after in pairwise(made):
        assert taken(after) < taken(before)
        assert after.max_model_len <= before.max_model_len
        assert (after.gpu_memory_utilization or 0) <= (before.gpu_memory_utilization or 0)
        assert after.steady_available_bytes > before.steady_available_bytes
        assert after.max_model_len <= after.kv_tokens
        assert after.max_model_len >= min(made[0].max_model_len, LEAST_CONTEXT)


@pytest.mark.parametrize("profile", ["safe", "default", "wide"])
def test_on_the_golden_spark_every_profile_has_two_smaller_plans(profile: str) -> None:
    made = steps(SPARK, NIKOLA, MEMORY_PROFILE=profile)
    assert len(made) == RUNGS
    assert made[0].kv_bytes - made[2].kv_bytes > GIB


def test_the_safe_plan_of_the_golden_spark_gives_up_context() -> None:
    made = steps(SPARK, NIKOLA, MEMORY_PROFILE="safe")
    assert [one.max_model_len for one in made] == [16_384, 10_240, 5_120]
    assert "little room" not in "".join(made[0].warnings)
    assert "a context of 10,240 tokens leaves a coding agent little room" in made[1].warnings[1]


@pytest.mark.parametrize(
    ("context", "contexts"),
    [
        (49_152, [49_152, 32_768, 16_384]),
        (8_192, [8_192, 5_120, 4_096]),
        (5_000, [5_000, 4_096, 4_096]),
        (4_096, [4_096] * 3),
        (1_500, [1_500] * 3),
    ],
)
def test_each_safer_step_takes_a_third_of_the_context_down_to_4096(
    context: int, contexts: list[int]
) -> None:
    made = steps(HEADLESS, NIKOLA, MAX_MODEL_LEN=context)
    assert [one.max_model_len for one in made] == contexts
    assert all(after.kv_bytes < before.kv_bytes for before, after in pairwise(made))


def test_where_nothing_is_left_to_give_up_there_is_no_safer_plan() -> None:
    with pytest.raises(DoesNotFit, match=r"no safer plan: .* for 4,096 tokens") as caught:
        plan(2, MAX_MODEL_LEN=4_096, GPU_MEMORY_UTILIZATION=0.8277)  # half a GiB of cache
    assert caught.value.hint
    assert sum(row.bytes for row in caught.value.table) == HEADLESS.memory_total_bytes


def test_a_hybrid_models_large_blocks_are_given_up_whole() -> None:
    large = replace(
        QWEN, cache=tuple(
            replace(layers, state_bytes=64 * layers.state_bytes // 10) for layers in QWEN.cache
        )
    )  # fmt: skip
    made = steps(HEADLESS, large, MAX_MODEL_LEN=14_000, MAX_NUM_SEQS=1)
    assert len(made) == 2
    assert all(after.kv_bytes < before.kv_bytes for before, after in pairwise(made))


def test_a_cache_that_is_not_computed_is_made_smaller_too() -> None:
    made = steps(HEADLESS, UNKNOWN, GPU_MEMORY_UTILIZATION=0.87, MAX_MODEL_LEN=16_384)
    fractions = [one.gpu_memory_utilization or 0 for one in made]
    assert fractions == sorted(fractions, reverse=True)
    assert len(set(fractions)) == RUNGS


def test_a_safer_step_says_so_and_what_it_gave_up() -> None:
    assert "step 1 of safer plans: 4.3 GiB of KV cache instead of 6.5 GiB" in plan(1).warnings


def test_below_the_last_step_there_is_no_other() -> None:
    assert plan(RUNGS).rows == plan(RUNGS - 1).rows


# ---- the CPU engine


def test_at_one_gib_safer_steps_of_the_cpu_engine_shorten_the_context() -> None:
    made = [plan(rung, VM, DEMO, PROFILE="demo", MAX_MODEL_LEN=49_152) for rung in range(RUNGS)]
    assert [one.max_model_len for one in made] == [49_152, 32_768, 16_384]
    assert {one.kv_bytes for one in made} == {GIB}


def test_above_one_gib_safer_steps_of_the_cpu_engine_take_whole_gib_less() -> None:
    made = [plan(rung, VM, WIDE, PROFILE="demo") for rung in range(RUNGS)]
    assert [one.kv_bytes // GIB for one in made] == [4, 3, 2]
    assert all(one.kv_bytes % GIB == 0 for one in made)
    assert all(one.max_model_len <= one.kv_tokens for one in made)


@pytest.mark.parametrize("context", [5_000, 10_000, 20_000])
def test_down_to_one_gib_the_cpu_engine_takes_less_at_each_step(context: int) -> None:
    made = steps(VM, WIDE, PROFILE="demo", MAX_MODEL_LEN=context)
    for before, after in pairwise(made):
        assert after.kv_bytes < before.kv_bytes or after.kv_bytes == GIB
