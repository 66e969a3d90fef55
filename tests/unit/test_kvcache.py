"""What a KV cache takes: the arithmetic of vLLM's block pool, as laws and as known figures."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.facts import CacheLayers, ModelFacts
from appliance.kvcache import BATCHED_TOKENS, CacheShape, NotComputable, cache_shape
from tests.plans import golden_model

NIKOLA = golden_model("nikola")
KIB = 1024
SHAPES = st.builds(
    CacheShape,
    token_bytes=st.integers(1, 10**6),
    sequence_bytes=st.integers(0, 10**9),
    block_tokens=st.integers(1, 100).map(lambda n: 16 * n),
    arithmetic=st.just(""),
)
TOKENS = st.integers(1, 10**6)
SEQUENCES = st.integers(1, 64)


def model(*cache: CacheLayers) -> ModelFacts:
    return replace(NIKOLA, cache=cache)


def refusal(facts: ModelFacts, cache_dtype: str) -> str:
    with pytest.raises(NotComputable) as caught:
        cache_shape(facts, cache_dtype, 2048)
    return str(caught.value)


# ---- laws


@given(SHAPES, TOKENS, SEQUENCES)
def test_what_was_reserved_for_tokens_holds_them(
    shape: CacheShape, tokens: int, sequences: int
) -> None:
    assert shape.tokens_in(shape.bytes_for(tokens, sequences), sequences) >= tokens


@given(SHAPES, st.integers(0, 10**12), SEQUENCES)
def test_tokens_never_take_more_than_they_were_found_to_fit_into(
    shape: CacheShape, size: int, sequences: int
) -> None:
    tokens = shape.tokens_in(size, sequences)
    assert tokens == 0 or shape.bytes_for(tokens, sequences) <= size
    assert tokens % shape.block_tokens == 0


@given(SHAPES, TOKENS, TOKENS, SEQUENCES, SEQUENCES)
def test_more_tokens_or_sequences_never_take_less(
    shape: CacheShape, tokens: int, more: int, sequences: int, further: int
) -> None:
    less = shape.bytes_for(tokens, sequences)
    assert less <= shape.bytes_for(tokens + more, sequences + further)


# ---- known figures


@pytest.mark.parametrize(
    ("cache_dtype", "token_kib"),
    [("fp8", 124), ("fp8_e4m3", 124), ("auto", 124), ("bfloat16", 248), ("float16", 248)],
)
def test_a_token_of_minimax_m2_takes_124_kib_in_fp8_and_248_in_bf16(
    cache_dtype: str, token_kib: int
) -> None:
    shape = cache_shape(NIKOLA, cache_dtype, 2048)
    assert (shape.token_bytes, shape.sequence_bytes) == (token_kib * KIB, 0)


def test_the_card_s_127_thousand_tokens_take_15_gib() -> None:
    size = cache_shape(NIKOLA, "fp8", 2048).bytes_for(127_000, 2)
    assert round(size / 2**30, 1) == 15.0


def test_one_block_of_the_pool_is_never_used() -> None:
    shape = cache_shape(NIKOLA, "fp8", 2048)
    assert shape.bytes_for(16, 1) == 2 * 16 * 124 * KIB
    assert shape.tokens_in(2 * 16 * 124 * KIB, 1) == 16
    assert shape.tokens_in(16 * 124 * KIB, 1) == 0


# What vLLM 0.32's own get_kv_cache_groups and _max_memory_usage_bytes_from_groups gave for one
# sequence of these models (2026-11-23), with chunks of 2,048 and async scheduling.
VLLMS_OWN = [
    ((CacheLayers("full", 62, 2048),), "fp8", 49_152, 6_241_124_352),
    (
        (CacheLayers("full", 12, 2048), CacheLayers("sliding", 12, 2048, window=128)),
        "bfloat16",
        32_768,
        1_819_017_216,
    ),
    (
        (CacheLayers("full", 4, 2048), CacheLayers("sliding", 22, 2048, window=512)),
        "bfloat16",
        32_768,
        991_428_608,
    ),
    (
        (CacheLayers("full", 12, 2048), CacheLayers("sliding", 13, 2048, window=512)),
        "bfloat16",
        32_768,
        1_991_049_216,
    ),
    (golden_model("qwen3.5-122b").cache, "bfloat16", 49_152, 1_545_338_880),
]


@pytest.mark.parametrize(("cache", "cache_dtype", "tokens", "needed"), VLLMS_OWN)
def test_a_sequence_takes_what_vllm_itself_computes_and_the_unused_block(
    cache: tuple[CacheLayers, ...], cache_dtype: str, tokens: int, needed: int
) -> None:
    shape = cache_shape(model(*cache), cache_dtype, 2048)
    assert shape.bytes_for(tokens, 1) - shape.block_tokens * shape.token_bytes == needed


# ---- windows and states


def test_a_sliding_window_is_bounded_by_the_window_and_what_is_on_its_way() -> None:
    windowed = model(CacheLayers("full", 12, 1024), CacheLayers("sliding", 12, 1024, window=128))
    shape = cache_shape(windowed, "fp8", 2048)
    assert shape.token_bytes == 12 * 1024, "only what is kept for every token grows with them"
    blocks = -(-(127 + 2 * 2048) // 16) + 1
    assert shape.sequence_bytes == 12 * 1024 * 16 * blocks


def test_without_a_chunk_size_vllms_own_is_reckoned_with() -> None:
    windowed = model(CacheLayers("full", 12, 1024), CacheLayers("sliding", 12, 1024, window=128))
    assert cache_shape(windowed, "fp8", None) == cache_shape(windowed, "fp8", BATCHED_TOKENS)


def test_a_linear_layer_keeps_two_states_each_in_a_page_of_attention() -> None:
    shape = cache_shape(golden_model("qwen3.5-122b"), "auto", 2048)
    assert shape.token_bytes == 12 * 1024 * 2
    # 4,268,032 B of state in pages of 16 tokens x 2 KiB: 131 of them
    assert shape.block_tokens == 131 * 16
    assert shape.sequence_bytes == 36 * 2 * 131 * 16 * 2048


def test_layers_are_padded_to_groups_of_one_size() -> None:
    uneven = model(CacheLayers("full", 4, 1024), CacheLayers("sliding", 22, 1024, window=512))
    even = model(CacheLayers("full", 4, 1024), CacheLayers("sliding", 24, 1024, window=512))
    assert cache_shape(uneven, "fp8", 2048).sequence_bytes == (
        cache_shape(even, "fp8", 2048).sequence_bytes
    )
    close = model(CacheLayers("full", 12, 1024), CacheLayers("sliding", 13, 1024, window=512))
    assert cache_shape(close, "fp8", 2048).token_bytes == 13 * 1024


# ---- what cannot be computed


def test_a_model_that_is_not_understood_is_named_with_the_reason() -> None:
    strange = replace(NIKOLA, cache=(), architecture="NovelLM", cache_unknown="no such layers")
    assert refusal(strange, "fp8") == ("the KV cache of NovelLM cannot be computed: no such layers")


@pytest.mark.parametrize("cache_dtype", ["nvfp4", "turboquant_k8v4", "fp8_ds_mla", "int8"])
def test_a_type_of_unknown_size_is_named(cache_dtype: str) -> None:
    assert cache_dtype in refusal(NIKOLA, cache_dtype)


def test_auto_of_a_checkpoint_that_names_no_type_is_not_guessed() -> None:
    assert "auto" in refusal(replace(NIKOLA, cache_dtype=""), "auto")


def test_layers_that_keep_different_amounts_are_not_computed() -> None:
    mixed = model(CacheLayers("full", 12, 1024), CacheLayers("sliding", 12, 512, window=128))
    assert "different amounts" in refusal(mixed, "fp8")


FULL = CacheLayers("full", 12, 1024)


@pytest.mark.parametrize(
    ("cache", "says"),
    [
        ((CacheLayers("linear", 36, state_bytes=4096),), "0 kinds of layers that keep all"),
        ((CacheLayers("sliding", 12, 1024, window=128),), "0 kinds of layers that keep all"),
        ((FULL, FULL), "2 kinds of layers that keep all"),
        ((CacheLayers("full", 0, 1024),), "a count of 0 full layers"),
        ((FULL, CacheLayers("linear", 0, state_bytes=4096)), "a count of 0 linear layers"),
        ((CacheLayers("full", 12, 0),), "keep 0 values"),
    ],
)
def test_layers_that_no_cache_can_be_made_of_are_not_computed(
    cache: tuple[CacheLayers, ...], says: str
) -> None:
    assert says in refusal(model(*cache), "fp8")
