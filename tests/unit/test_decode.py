"""How fast a model can decode: the published figures of the real one, and laws for any."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.decode import GB, DecodePlan, Drafting, plan_decode
from appliance.decodeview import decode_text
from appliance.facts import CacheLayers, ModelFacts
from appliance.memory import plan_memory
from appliance.settings import Settings, load_settings
from tests.plans import golden_host, golden_model
from tests.trueshapes import true_facts

GIB = 2**30
NIKOLA = golden_model("nikola")
TOKENS = st.integers(0, 300_000)
DRAFTS = st.integers(1, 128)


def settings(**variables: object) -> Settings:
    return load_settings({f"APPLIANCE_{name}": str(value) for name, value in variables.items()})


SPARK = settings()


def decode(
    model: ModelFacts = NIKOLA, context: int | None = 0, chosen: Settings = SPARK
) -> DecodePlan:
    made = plan_decode(chosen, model, context)
    assert made is not None
    return made


def drafting(model: ModelFacts, drafts: int) -> Drafting:
    chosen = settings(SPECULATION="ngram", SPECULATION_TOKENS=drafts)
    made = decode(model, chosen=chosen).drafting
    assert made is not None
    return made


# ---- the real model: figures computed elsewhere, from the published shapes


def test_the_published_checkpoint_reads_10_8_gb_a_token() -> None:
    read = {part.name: round(part.token_bytes / GB, 2) for part in decode().parts}
    assert read == {
        "experts": 3.95,
        "attention": 5.46,
        "head": 1.23,
        "routers": 0.15,
        "other": 0.0,
        "embeddings": 0.0,
    }
    assert decode().token_bytes == pytest.approx(10.8 * GB, rel=0.005)


@pytest.mark.parametrize(
    ("attention", "head", "gigabytes", "roofline", "expected"),
    [
        ("bf16", "bf16", 10.79, 25.3, 17.7),
        ("fp8-per-channel", "fp8-per-channel", 7.45, 36.6, 25.6),
        ("fp8-per-channel", "bf16", 8.06, 33.9, 23.7),
        # the sister model's card says 6.9 and 39.8, and 27 to 29 measured
        ("nvfp4-weight-only", "bf16", 6.86, 39.8, 27.8),
    ],
)
def test_the_roofline_of_a_format_is_the_one_computed_by_hand(
    attention: str, head: str, gigabytes: float, roofline: float, expected: float
) -> None:
    rate = decode(true_facts(attention, head)).rates[0]
    assert rate.bytes / GB == pytest.approx(gigabytes, abs=0.005)
    assert rate.tokens_per_s == pytest.approx(roofline, abs=0.1)
    assert rate.expected_per_s == pytest.approx(expected, abs=0.1)


def test_fp8_attention_and_head_make_room_for_26_000_tokens_more() -> None:
    made = decode(true_facts("fp8-per-channel", "fp8-per-channel"))
    assert made.saved_bytes / GIB == pytest.approx(3.1, abs=0.05)
    assert made.more_kv_tokens == pytest.approx(26_000, rel=0.02)
    assert (decode().saved_bytes, decode().more_kv_tokens) == (0, 0)


def test_the_tokens_that_are_promised_are_those_that_the_memory_plan_gains() -> None:
    plain = plan_memory(SPARK, golden_host("spark"), true_facts())
    smaller = plan_memory(SPARK, golden_host("spark"), true_facts("fp8-per-channel"))
    assert smaller.decode is not None
    gained = smaller.kv_tokens - plain.kv_tokens
    assert gained == pytest.approx(smaller.decode.more_kv_tokens, abs=32)  # whole MiB and blocks


def test_the_plan_speaks_of_the_context_that_it_chose() -> None:
    plan = plan_memory(SPARK, golden_host("spark"), NIKOLA)
    assert plan.decode is not None
    empty, full = plan.decode.rates
    assert (empty.context, full.context) == (0, plan.max_model_len)
    assert full.bytes - empty.bytes == plan.max_model_len * 62 * 2048


def test_where_nobody_chose_a_context_it_is_the_longest() -> None:
    assert decode(context=None).rates[1].context == NIKOLA.max_position_embeddings
    chosen = settings(MAX_MODEL_LEN=10_000)
    assert decode(context=None, chosen=chosen).rates[1].context == 10_000


# ---- laws


@given(st.floats(1, 10_000), st.floats(1, 10_000), TOKENS)
def test_twice_the_bandwidth_is_twice_the_speed(first: float, second: float, context: int) -> None:
    one, two = (
        decode(context=context, chosen=settings(MEMORY_BANDWIDTH_GB_S=speed)).rates[-1]
        for speed in (first, second)
    )
    assert one.tokens_per_s
    assert two.tokens_per_s
    assert one.tokens_per_s * second == pytest.approx(two.tokens_per_s * first)
    assert one.tokens_per_s * one.bytes == pytest.approx(first * GB)


@given(TOKENS, TOKENS, st.sampled_from(["nikola", "qwen", "window"]))
def test_more_context_is_never_faster(context: int, more: int, kind: str) -> None:
    model = {"nikola": NIKOLA, "qwen": HYBRID, "window": WINDOWED}[kind]
    short, long = (decode(model, tokens).rates[-1] for tokens in (context, context + more))
    assert short.bytes <= long.bytes


HYBRID = replace(golden_model("qwen3.5-122b"), parts=NIKOLA.parts)
WINDOWED = replace(
    NIKOLA, cache=(CacheLayers("full", 18, 1024), CacheLayers("sliding", 18, 1024, window=128))
)


def test_a_window_is_read_to_its_end_and_a_state_whatever_the_length() -> None:
    weights = decode().token_bytes
    windows = [decode(WINDOWED, tokens).rates[-1].bytes - weights for tokens in (100, 1000)]
    assert windows == [36 * 1024 * 100, 18 * 1024 * (1000 + 128)]
    states = decode(HYBRID, chosen=settings(KV_CACHE_DTYPE="fp8")).rates[0].bytes - weights
    assert states == 36 * 4_268_032


# ---- what is not known


def test_without_a_bandwidth_the_bytes_are_told_and_no_speed() -> None:
    made = decode(golden_model("demo"), 1000, settings(PROFILE="demo", KV_CACHE_DTYPE="auto"))
    assert [rate.context for rate in made.rates] == [0, 1000]
    assert {(rate.tokens_per_s, rate.expected_per_s) for rate in made.rates} == {(None, None)}


def test_a_model_whose_parts_are_not_known_has_no_figures() -> None:
    assert plan_decode(SPARK, replace(NIKOLA, parts=())) is None


@pytest.mark.parametrize(
    ("model", "dtype"), [(replace(NIKOLA, cache=()), "fp8"), (NIKOLA, "int4_of_the_future")]
)
def test_where_the_cache_is_not_computable_only_the_empty_one_is_spoken_of(
    model: ModelFacts, dtype: str
) -> None:
    made = plan_decode(settings(KV_CACHE_DTYPE=dtype), model, 1000)
    assert made is not None
    assert [(rate.context, rate.bytes) for rate in made.rates] == [(0, decode().token_bytes)]
    assert made.more_kv_tokens == 0


@given(st.integers(), st.integers(), st.integers(), st.integers(1), st.integers(1))
@example(2**2000, 2**2000, 1, 2**2000, 2**2000)
@example(-1, 1, 2**2000, 1, 1)
def test_no_number_that_a_config_may_say_breaks_it(
    longest: int, experts: int, visited: int, layers: int, values: int
) -> None:
    model = replace(
        NIKOLA,
        max_position_embeddings=longest,
        num_experts=experts,
        experts_per_token=visited,
        cache=(CacheLayers("full", layers, values),),
    )
    made = decode(model, None, settings(SPECULATION="ngram"))
    assert "tokens/s at most" in decode_text(made)
    assert all(rate.bytes >= made.token_bytes for rate in made.rates)


# ---- drafts


def test_without_speculation_nothing_is_said_of_drafts() -> None:
    assert decode().drafting is None


def test_four_drafts_make_a_step_of_the_real_model_cost_2_3_tokens() -> None:
    made = drafting(NIKOLA, 4)
    # 192 x (1 - (184/192)^5) = 36.8 experts a layer instead of 8
    assert made.bytes == pytest.approx(25.0 * GB, rel=0.005)
    assert made.pays_from == pytest.approx(2.3, abs=0.05)


@given(DRAFTS)
def test_a_draft_more_reads_more_but_less_than_a_token(drafts: int) -> None:
    token = decode().token_bytes
    before, after = drafting(NIKOLA, drafts), drafting(NIKOLA, min(drafts + 1, 128))
    assert token < before.bytes <= after.bytes < before.bytes + token
    assert 1 < before.pays_from < 1 + drafts
    whole = next(part.bytes for part in NIKOLA.parts if part.name == "experts")
    assert after.bytes <= token + whole


@given(DRAFTS)
def test_drafts_of_a_dense_model_read_nothing_more(drafts: int) -> None:
    assert drafting(replace(NIKOLA, num_experts=0), drafts).pays_from == 1
