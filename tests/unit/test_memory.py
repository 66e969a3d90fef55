"""The memory plan: its laws over any machine, and its figures on the golden Spark."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from appliance.errors import DoesNotFit
from appliance.facts import Evictable, HostFacts, SwapDevice
from appliance.memory import CONTEXTS, MIN_CONTEXT, RUNGS, Learned, MemoryPlan, plan_memory
from appliance.profiles import BOX_PROFILES
from appliance.reckoning import MIN_OS_BYTES
from appliance.settings import Settings, load_settings
from tests.plans import golden_host, golden_model

GIB = 2**30
NIKOLA, QWEN, DEMO = (golden_model(name) for name in ("nikola", "qwen3.5-122b", "demo"))
SPARK = golden_host("spark")
# what a box without a desktop would leave: 2.5 GiB in use
HEADLESS = replace(SPARK, memory_available_bytes=SPARK.memory_total_bytes - 5 * GIB // 2)
DISK = SwapDevice("/swap.img", "file", 16 * GIB)
ZRAM = SwapDevice("/dev/zram0", "zram", 16 * GIB)

PROFILES = st.sampled_from(["safe", "default", "wide"])
MODELS = st.sampled_from([NIKOLA, QWEN])
BOXES = st.sampled_from(["spark", "thor"])
RUNG = st.integers(0, RUNGS)
USED = st.integers(0, 30 * GIB)
CONTEXT = st.none() | st.integers(1, 300_000)


def settings(**variables: Any) -> Settings:
    return load_settings({f"APPLIANCE_{name}": str(value) for name, value in variables.items()})


def spark(used: int, **changes: Any) -> HostFacts:
    """A Spark with so much in use."""
    available = SPARK.memory_total_bytes - used
    return replace(SPARK, memory_available_bytes=available, **changes)


def plan(host: HostFacts = SPARK, rung: int = 0, **variables: Any) -> MemoryPlan:
    return plan_memory(settings(**variables), host, NIKOLA, rung=rung)


def tried(chosen: Settings, host: HostFacts, rung: int = 0, model: Any = NIKOLA) -> MemoryPlan:
    """The plan; what does not fit is no example of the law."""
    try:
        return plan_memory(chosen, host, model, rung=rung)
    except DoesNotFit:
        assume(False)
        raise


def bytes_of(made: MemoryPlan, name: str) -> int:
    (row,) = [row for row in made.rows if row.name == name]
    return row.bytes


def taken(made: MemoryPlan) -> int:
    """All that the engine takes by the plan."""
    names = ("weights", "kv_cache", "activations", "cuda_graphs", "non_torch", "engine_host")
    return sum(bytes_of(made, name) for name in names)


SWAPS = st.lists(st.sampled_from([DISK, ZRAM]), max_size=2).map(tuple)
EVICTABLE = st.lists(st.builds(Evictable, st.just("a"), st.integers(0, 20 * GIB)), max_size=2)
HOSTS = st.builds(
    lambda used, swap, evictable, huge: spark(
        used, swap=swap, evictable=tuple(evictable), hugepages_bytes=min(huge, used)
    ),
    USED,
    SWAPS,
    EVICTABLE,
    st.integers(0, 4 * GIB),
)


# ---- laws


@given(HOSTS, PROFILES, CONTEXT, RUNG, MODELS, BOXES)
def test_a_plan_that_is_made_keeps_above_its_own_kill_floor(
    host: HostFacts, profile: str, context: int | None, rung: int, model: Any, box: str
) -> None:
    chosen = settings(PROFILE=box, MEMORY_PROFILE=profile, MAX_MODEL_LEN=context or "")
    made = tried(chosen, host, rung, model)
    assert made.steady_available_bytes - made.growth_bytes > made.floors.kill_bytes
    assert not made.is_forced


@given(HOSTS, PROFILES, CONTEXT, RUNG, BOXES, st.floats(0, 4), st.floats(2.5, 8))
def test_a_plan_that_is_made_lets_requests_in(
    host: HostFacts, profile: str, context: int | None, rung: int, box: str, growth: float,
    stop: float,
) -> None:  # fmt: skip
    chosen = settings(
        PROFILE=box, MEMORY_PROFILE=profile, MAX_MODEL_LEN=context or "",
        MEMORY_GROWTH=f"{growth:.2f}GiB", MEMORY_STOP_FLOOR=f"{stop:.2f}GiB",
        MEMORY_WARN_FLOOR="8GiB",
    )  # fmt: skip
    made = tried(chosen, host, rung)
    assert made.steady_available_bytes > made.floors.stop_bytes * 1.05


@pytest.mark.parametrize("stop", ["3GiB", "5GiB", "7GiB"])
def test_a_high_stop_floor_leaves_less_for_the_cache_and_is_no_reason_to_refuse(stop: str) -> None:
    made = plan(HEADLESS, MEMORY_GROWTH="0", MEMORY_STOP_FLOOR=stop, MEMORY_WARN_FLOOR="7GiB")
    assert made.steady_available_bytes > made.floors.stop_bytes * 1.05


@given(HOSTS, PROFILES, CONTEXT, RUNG, MODELS)
def test_the_rows_sum_to_all_of_the_memory(
    host: HostFacts, profile: str, context: int | None, rung: int, model: Any
) -> None:
    chosen = settings(MEMORY_PROFILE=profile, MAX_MODEL_LEN=context or "")
    try:
        rows = plan_memory(chosen, host, model, rung=rung).rows
        assert min(row.bytes for row in rows) >= 0
    except DoesNotFit as error:
        rows = error.table
    assert sum(row.bytes for row in rows) == host.memory_total_bytes
    assert all(row.how for row in rows)


@given(HOSTS, PROFILES, CONTEXT, RUNG, MODELS)
def test_vllms_own_check_agrees_with_the_plan(
    host: HostFacts, profile: str, context: int | None, rung: int, model: Any
) -> None:
    made = tried(settings(MEMORY_PROFILE=profile, MAX_MODEL_LEN=context or ""), host, rung, model)
    fraction = made.gpu_memory_utilization
    assert fraction is not None
    assert 0 < fraction < 1
    there = host.memory_available_bytes + made.deficit_bytes
    assert -(-host.memory_total_bytes * fraction // 1) <= there


@given(HOSTS, PROFILES, CONTEXT, RUNG, MODELS)
def test_the_cache_holds_the_context_that_is_promised(
    host: HostFacts, profile: str, context: int | None, rung: int, model: Any
) -> None:
    made = tried(settings(MEMORY_PROFILE=profile, MAX_MODEL_LEN=context or ""), host, rung, model)
    assert made.max_model_len <= made.kv_tokens
    if rung == 0 and context is not None:
        assert made.max_model_len == context
    if context is None:
        assert made.max_model_len % 1024 == 0
        assert made.max_model_len <= CONTEXTS[profile]


@given(USED, USED, PROFILES, MODELS)
def test_more_memory_never_gives_fewer_tokens(
    used: int, more: int, profile: str, model: Any
) -> None:
    low, high = sorted((used, more))
    chosen = settings(MEMORY_PROFILE=profile)
    less, enough = (tried(chosen, spark(use), 0, model) for use in (high, low))
    assert less.max_model_len <= enough.max_model_len
    assert less.kv_bytes <= enough.kv_bytes


@given(USED, USED, PROFILES)
def test_what_fits_with_less_memory_fits_with_more(used: int, more: int, profile: str) -> None:
    low, high = sorted((used, more))
    tried(settings(MEMORY_PROFILE=profile), spark(high))
    assert plan(spark(low), MEMORY_PROFILE=profile)


@given(HOSTS, PROFILES)
def test_a_wider_profile_never_gives_fewer_tokens(host: HostFacts, profile: str) -> None:
    narrow = tried(settings(MEMORY_PROFILE="safe"), host)
    assert narrow.max_model_len <= tried(settings(MEMORY_PROFILE=profile), host).max_model_len


@given(HOSTS, PROFILES, CONTEXT)
def test_no_more_is_pushed_out_than_swap_on_a_disk_takes(
    host: HostFacts, profile: str, context: int | None
) -> None:
    made = tried(settings(MEMORY_PROFILE=profile, MAX_MODEL_LEN=context or ""), host)
    disk = sum(device.size_bytes for device in host.swap if device.kind != "zram")
    assert made.deficit_bytes <= max(0, disk - 2 * GIB)
    assert made.deficit_bytes <= sum(group.anon_bytes for group in host.evictable)
    needed = host.memory_available_bytes + made.deficit_bytes
    assert made.needed_available_bytes <= needed


@given(HOSTS, PROFILES, CONTEXT, RUNG, BOXES, st.floats(0.79, 0.99))
def test_what_is_asked_of_the_helper_leaves_a_bare_systems_own_memory(
    host: HostFacts, profile: str, context: int | None, rung: int, box: str, fraction: float
) -> None:
    for chosen in ({"MAX_MODEL_LEN": context or ""}, {"GPU_MEMORY_UTILIZATION": fraction}):
        forced = settings(PROFILE=box, MEMORY_PROFILE=profile, MEMORY_FORCE="on", **chosen)
        with suppress(DoesNotFit):
            made = plan_memory(forced, host, NIKOLA, rung=rung)
            if made.deficit_bytes:
                limit = host.memory_total_bytes - MIN_OS_BYTES
                assert made.needed_available_bytes <= limit


def test_even_a_forced_plan_asks_the_helper_for_no_more_than_there_is() -> None:
    host = spark(
        10 * GIB, evictable=(Evictable("a", 30 * GIB),), swap=(replace(DISK, size_bytes=40 * GIB),)
    )
    made = plan(host, GPU_MEMORY_UTILIZATION=0.97, MEMORY_FORCE="on")
    assert made.deficit_bytes > 0
    assert made.needed_available_bytes == host.memory_total_bytes - MIN_OS_BYTES


@given(USED)
def test_what_was_learned_to_be_smaller_never_gives_fewer_tokens(used: int) -> None:
    learned = Learned(activations_bytes=0, cuda_graphs_bytes=0, engine_host_bytes=5 * GIB)
    estimated = tried(settings(), spark(used))
    known = plan_memory(settings(), spark(used), NIKOLA, learned)
    assert known.max_model_len >= estimated.max_model_len


# ---- the golden Spark


def test_with_the_idle_use_of_a_good_kit_the_default_is_27_thousand_tokens() -> None:
    made = plan()
    assert (made.gpu_memory_utilization, made.max_model_len) == (0.8505, 27_648)
    assert round(made.steady_available_bytes / GIB, 1) == 6.5
    assert made.deficit_bytes == 0


@pytest.mark.parametrize(
    ("profile", "fraction", "context"),
    [("safe", 0.8561, 24_576), ("default", 0.8767, 49_152), ("wide", 0.8849, 62_464)],
)
def test_a_spark_that_uses_2_5_gib_has_room_for_the_profiles_contexts(
    profile: str, fraction: float, context: int
) -> None:
    made = plan(HEADLESS, MEMORY_PROFILE=profile)
    assert (made.gpu_memory_utilization, made.max_model_len) == (fraction, context)


def test_with_cgroups_to_push_out_the_default_reaches_its_context() -> None:
    made = plan(replace(SPARK, evictable=(Evictable("user.slice", 4 * GIB),)))
    assert (made.gpu_memory_utilization, made.max_model_len) == (0.8713, 49_152)
    assert 2.5 * GIB < made.deficit_bytes < 3 * GIB
    assert "user.slice" in made.warnings[0]


@pytest.mark.parametrize("profile", ["safe", "default", "wide"])
def test_after_the_eviction_the_same_plan_fits_as_it_is(profile: str) -> None:
    chosen: dict[str, Any] = {"MEMORY_PROFILE": profile, "MAX_MODEL_LEN": 49_152}
    before = plan(replace(SPARK, evictable=(Evictable("user.slice", 4 * GIB),)), **chosen)
    lazy = before.needed_available_bytes - 64 * 2**20  # force_swap is content with that
    after = plan(replace(SPARK, memory_available_bytes=lazy), **chosen)
    assert (after.max_model_len, after.deficit_bytes) == (49_152, 0)


def test_a_bare_systems_own_memory_is_never_pushed_out() -> None:
    host = spark(4 * GIB, evictable=(Evictable("system.slice", 20 * GIB),))
    made = plan(host, MEMORY_PROFILE="wide", MAX_MODEL_LEN=63_000)
    assert 0 < made.deficit_bytes <= 1.5 * GIB
    assert bytes_of(made, "os") >= 5 * GIB // 2


def test_huge_pages_are_not_what_is_pushed_out() -> None:
    host = spark(6 * GIB, evictable=(Evictable("a", 20 * GIB),), hugepages_bytes=6 * GIB)
    made = plan(host)
    assert made.deficit_bytes > 0
    assert min(row.bytes for row in made.rows) >= 0


@pytest.mark.parametrize("swap", [(), (ZRAM,)])
def test_without_swap_on_a_disk_nothing_is_counted_on_to_be_pushed_out(
    swap: tuple[SwapDevice, ...],
) -> None:
    host = replace(SPARK, swap=swap, evictable=(Evictable("user.slice", 4 * GIB),))
    assert plan(host).max_model_len == plan().max_model_len


def test_with_swap_off_nothing_is_pushed_out() -> None:
    host = replace(SPARK, evictable=(Evictable("user.slice", 4 * GIB),))
    assert plan(host, SWAP="off").deficit_bytes == 0


def test_less_than_a_bare_system_is_never_reckoned_with() -> None:
    just_booted = replace(SPARK, memory_available_bytes=SPARK.memory_total_bytes - GIB)
    assert bytes_of(plan(just_booted), "os") == 5 * GIB // 2


def test_huge_pages_are_a_row_of_their_own() -> None:
    made = plan(replace(SPARK, hugepages_bytes=GIB))
    assert bytes_of(made, "huge_pages") == GIB
    assert bytes_of(made, "os") + GIB == bytes_of(plan(), "os")


def test_the_cache_is_no_larger_than_is_of_use() -> None:
    made = plan_memory(settings(MEMORY_PROFILE="safe"), SPARK, replace(QWEN, weights_bytes=GIB))
    assert made.kv_bytes < 4 * GIB
    assert made.max_model_len == CONTEXTS["safe"]


# ---- what the operator chose


def test_a_chosen_context_goes_before_the_margin_of_the_profile() -> None:
    made = plan(MAX_MODEL_LEN=35_840)
    assert made.max_model_len == 35_840
    assert bytes_of(made, "left") < 2**20 * 64


def test_a_chosen_utilization_sizes_the_cache() -> None:
    made = plan(HEADLESS, GPU_MEMORY_UTILIZATION=0.86)
    assert made.gpu_memory_utilization == 0.86
    inside = taken(made) - bytes_of(made, "engine_host")
    assert inside == pytest.approx(HEADLESS.memory_total_bytes * 0.86, abs=2)


def test_a_chosen_utilization_of_many_digits_is_kept_as_it_is() -> None:
    assert plan(HEADLESS, GPU_MEMORY_UTILIZATION=0.861234).gpu_memory_utilization == 0.861234


def test_a_cache_in_bf16_holds_half_the_tokens() -> None:
    fp8, bf16 = plan(HEADLESS), plan(HEADLESS, KV_CACHE_DTYPE="bfloat16")
    assert bf16.kv_bytes == fp8.kv_bytes
    assert abs(2 * bf16.kv_tokens - fp8.kv_tokens) <= 32


def test_without_graphs_there_is_more_for_the_cache() -> None:
    assert plan(ENFORCE_EAGER="on").max_model_len > plan().max_model_len


def test_floors_and_growth_are_those_of_the_settings() -> None:
    made = plan(MEMORY_GROWTH="1GiB", MEMORY_WARN_FLOOR="4GiB", MEMORY_EMERGENCY="1GiB")
    assert made.growth_bytes == GIB
    floors = made.floors
    levels = (floors.warn_bytes, floors.stop_bytes, floors.kill_bytes, floors.emergency_bytes)
    assert [level / GIB for level in levels] == [4, 3, 2.5, 1]


def test_the_least_context_is_one_that_an_agent_can_use() -> None:
    assert plan(MEMORY_PROFILE="safe").max_model_len == MIN_CONTEXT


# ---- the CPU engine


def demo(rung: int = 0, **variables: Any) -> MemoryPlan:
    host = golden_host("demo-24g")
    return plan_memory(settings(PROFILE="demo", **variables), host, DEMO, rung=rung)


def test_the_cpu_engine_has_a_cache_of_one_gib_and_no_utilization() -> None:
    made = demo()
    assert (made.kv_bytes, made.gpu_memory_utilization) == (GIB, None)
    assert made.max_model_len == DEMO.max_position_embeddings
    assert made.steady_available_bytes > 15 * GIB


def test_the_cpu_engines_cache_is_in_whole_gib_and_holds_the_chosen_context() -> None:
    wide = replace(DEMO, cache=NIKOLA.cache)
    made = plan_memory(
        settings(PROFILE="demo", MAX_MODEL_LEN=10_000), golden_host("demo-24g"), wide
    )
    assert made.kv_bytes == 3 * GIB  # 248 KiB x 10,000 is 2.4 GiB
    assert made.kv_tokens >= 10_000


def test_a_larger_model_on_the_cpu_gets_a_cache_for_the_least_context() -> None:
    wide = replace(DEMO, cache=NIKOLA.cache)
    made = plan_memory(settings(PROFILE="demo"), golden_host("demo-24g"), wide)
    assert made.kv_bytes == 4 * GIB  # 248 KiB x 16,384 is 3.9 GiB
    assert made.kv_tokens >= made.max_model_len >= MIN_CONTEXT


def test_a_small_machine_without_room_for_the_cpu_engine_is_refused() -> None:
    host = replace(golden_host("demo-24g"), memory_available_bytes=3 * GIB)
    with pytest.raises(DoesNotFit) as caught:
        plan_memory(settings(PROFILE="demo"), host, DEMO)
    floor, closed = caught.value.shortfalls
    assert floor.missing_bytes == pytest.approx(0.25 * GIB, abs=0.01 * GIB)
    assert closed.missing_bytes == pytest.approx(0.29 * GIB, abs=0.01 * GIB)


def test_every_box_profile_says_whether_its_engine_runs_on_a_cpu() -> None:
    assert [name for name, box in BOX_PROFILES.items() if box.on_cpu] == ["demo"]
