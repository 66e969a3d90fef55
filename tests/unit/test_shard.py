"""What one box of two holds: sums that add up, and a cache that both boxes have room for."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import DoesNotFit
from appliance.facts import CacheLayers, HostFacts, ModelFacts
from appliance.memory import MemoryPlan, plan_memory
from appliance.settings import Settings, load_settings
from appliance.shard import SPLIT, Bound, bounded, plan_nodes, plan_part, shard_of
from tests.plans import golden_host, golden_model
from tests.unit.test_clustersettings import CABLE

GIB = 2**30
NIKOLA, SPARK = golden_model("nikola"), golden_host("spark")
# The un-pruned model: 256 experts a layer in place of 192, the rest the same.
WHOLE = replace(
    NIKOLA,
    num_experts=256,
    weights_bytes=NIKOLA.weights_bytes + NIKOLA.parts[0].bytes // 3,
    parts=(replace(NIKOLA.parts[0], bytes=NIKOLA.parts[0].bytes * 4 // 3), *NIKOLA.parts[1:]),
)


def settings(**more: str) -> Settings:
    return load_settings(CABLE | {f"APPLIANCE_{name}": value for name, value in more.items()})


def with_less(host: HostFacts, taken: int) -> HostFacts:
    return replace(host, memory_available_bytes=host.memory_available_bytes - taken)


def totals(plan: MemoryPlan) -> int:
    return sum(row.bytes for row in plan.rows)


# ---- a shard


def test_one_rank_of_one_is_the_model() -> None:
    assert shard_of(NIKOLA, 1) == NIKOLA


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_the_ranks_together_hold_the_model_and_once_more_what_stays_whole(ranks: int) -> None:
    shard = shard_of(NIKOLA, ranks)
    whole = sum(part.bytes for part in NIKOLA.parts if part.name not in SPLIT)
    rest = NIKOLA.weights_bytes - sum(part.bytes for part in NIKOLA.parts)
    all_of_them = ranks * shard.weights_bytes - (ranks - 1) * (whole + rest)
    assert 0 <= all_of_them - NIKOLA.weights_bytes < ranks * len(NIKOLA.parts)


def test_routers_and_norms_stay_whole() -> None:
    before = {part.name: part.bytes for part in NIKOLA.parts}
    after = {part.name: part.bytes for part in shard_of(NIKOLA, 2).parts}
    assert {name for name in before if before[name] == after[name]} == {"routers", "other"}


def test_half_of_the_kv_heads_keep_half_of_a_token() -> None:
    (layers,) = shard_of(NIKOLA, 2).cache
    assert layers.values_per_token == NIKOLA.cache[0].values_per_token // 2


def test_a_kv_head_is_never_split() -> None:
    one = replace(NIKOLA, cache=(CacheLayers("full", 62, 256, kv_heads=1),))
    assert shard_of(one, 2).cache[0].values_per_token == 256
    four = replace(NIKOLA, cache=(CacheLayers("full", 62, 1024, kv_heads=4),))
    assert shard_of(four, 8).cache[0].values_per_token == 256


def test_heads_that_nobody_counted_are_not_promised_to_be_split() -> None:
    unknown = replace(NIKOLA, cache=(CacheLayers("full", 62, 2048),))
    assert shard_of(unknown, 2).cache == unknown.cache


# ---- two plans


def test_the_whole_model_fits_two_boxes_and_not_one() -> None:
    with pytest.raises(DoesNotFit):
        plan_memory(load_settings({}), SPARK, WHOLE)
    head, worker = plan_nodes(settings(), SPARK, SPARK, WHOLE)
    assert head.max_model_len == worker.max_model_len == 49_152


def test_the_fuller_box_decides_for_both() -> None:
    chosen = settings(MAX_MODEL_LEN="196608", MAX_NUM_SEQS="8")
    full = with_less(SPARK, 40 * GIB)
    alone = plan_part(chosen, full, NIKOLA)
    roomy = plan_part(chosen, SPARK, NIKOLA)
    assert alone.kv_bytes < roomy.kv_bytes
    for hosts in ((SPARK, full), (full, SPARK)):
        head, worker = plan_nodes(chosen, *hosts, NIKOLA)
        assert head.kv_bytes == worker.kv_bytes == alone.kv_bytes
        assert head.kv_tokens == worker.kv_tokens == alone.kv_tokens


def test_what_the_roomier_box_does_not_take_stays_free_on_it() -> None:
    chosen = settings(MAX_MODEL_LEN="196608", MAX_NUM_SEQS="8")
    roomy = plan_part(chosen, SPARK, NIKOLA)
    head, _ = plan_nodes(chosen, SPARK, with_less(SPARK, 40 * GIB), NIKOLA)
    freed = roomy.kv_bytes - head.kv_bytes
    assert head.steady_available_bytes == roomy.steady_available_bytes + freed
    assert (head.gpu_memory_utilization or 1) < (roomy.gpu_memory_utilization or 0)


@given(st.integers(0, 70), st.integers(0, 70))
def test_the_rows_of_both_boxes_add_up_to_their_memory(one: int, other: int) -> None:
    hosts = (with_less(SPARK, one * GIB), with_less(SPARK, other * GIB))
    try:
        plans = plan_nodes(settings(), *hosts, NIKOLA)
    except DoesNotFit:
        return
    assert [totals(plan) for plan in plans] == [SPARK.memory_total_bytes] * 2
    assert plans[0].kv_bytes == plans[1].kv_bytes
    assert plans[0].max_model_len == plans[1].max_model_len


def test_a_worker_without_room_is_named() -> None:
    with pytest.raises(DoesNotFit, match="on the worker: ") as caught:
        plan_nodes(settings(), SPARK, with_less(SPARK, 100 * GIB), NIKOLA)
    assert caught.value.shortfalls


def test_a_worker_refuses_a_cache_that_it_has_no_room_for() -> None:
    own = plan_part(settings(), SPARK, NIKOLA)
    more = Bound(own.kv_bytes + 1, own.kv_tokens, own.max_model_len)
    with pytest.raises(DoesNotFit, match="the other box plans"):
        bounded(own, more)


def test_a_bound_that_is_the_plan_changes_nothing() -> None:
    own = plan_part(settings(), SPARK, NIKOLA)
    assert bounded(own, Bound(own.kv_bytes, own.kv_tokens, own.max_model_len)) == own


def test_a_model_whose_parts_nobody_knows_is_split_all_the_same() -> None:
    bare: ModelFacts = replace(NIKOLA, parts=())
    assert shard_of(bare, 2).weights_bytes == NIKOLA.weights_bytes // 2
