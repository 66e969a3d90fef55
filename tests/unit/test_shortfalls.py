"""What does not fit: every reason at once, each with what to do about it; and what to warn of."""

from dataclasses import replace
from typing import Any

import pytest

from appliance.budget import Shortfall
from appliance.errors import DoesNotFit
from appliance.facts import EarlyOom, Evictable, HostFacts, SwapDevice
from appliance.memory import MemoryPlan, plan_memory
from appliance.settings import load_settings
from tests.plans import golden_host, golden_model

GIB = 2**30
NIKOLA, DEMO = golden_model("nikola"), golden_model("demo")
SPARK, BAD_KIT = golden_host("spark"), golden_host("spark-bad-kit")
UNKNOWN = replace(NIKOLA, architecture="NovelLM", cache=(), cache_unknown="nobody read it")


def plan(host: HostFacts = SPARK, model: Any = NIKOLA, **variables: Any) -> MemoryPlan:
    chosen = {f"APPLIANCE_{name}": str(value) for name, value in variables.items()}
    return plan_memory(load_settings(chosen), host, model)


def refusal(host: HostFacts = SPARK, model: Any = NIKOLA, **variables: Any) -> DoesNotFit:
    with pytest.raises(DoesNotFit) as caught:
        plan(host, model, **variables)
    error = caught.value
    assert (error.exit_code, error.code) == (78, "does_not_fit")
    assert error.shortfalls
    assert error.what
    assert error.hint
    return error


def told(short: Shortfall) -> str:
    return "\n".join(short.remedies)


# ---- the card's 0.95 on the golden Spark


def test_the_cards_0_95_is_refused_with_the_arithmetic() -> None:
    error = refusal(GPU_MEMORY_UTILIZATION=0.95)
    floor, closed, check = error.shortfalls
    assert "nobody is let in below 3.2 GiB" in closed.what
    assert "-5.6 GiB would be available" in floor.what
    assert "11.1 GiB are missing" in floor.what
    assert floor.missing_bytes == pytest.approx(11.1 * GIB, abs=0.02 * GIB)
    assert "vLLM asks for 117.6 GiB" in check.what
    (left,) = [row for row in error.table if row.name == "left"]
    assert left.bytes == 1 - floor.missing_bytes


def test_what_it_says_to_lower_the_utilization_to_fits() -> None:
    (remedy, *_) = refusal(GPU_MEMORY_UTILIZATION=0.95).shortfalls[0].remedies
    fraction = float(remedy.split("UTILIZATION to ")[1].split(",")[0])
    assert plan(GPU_MEMORY_UTILIZATION=fraction).gpu_memory_utilization == fraction
    with pytest.raises(DoesNotFit):
        plan(GPU_MEMORY_UTILIZATION=fraction + 0.0002)


def test_the_cards_0_95_is_taken_by_force_and_says_what_was_forced() -> None:
    made = plan(GPU_MEMORY_UTILIZATION=0.95, MEMORY_FORCE="on")
    assert made.is_forced
    assert made.gpu_memory_utilization == 0.95
    assert [warning for warning in made.warnings if warning.startswith("forced: ")] == [
        f"forced: {short.what}" for short in refusal(GPU_MEMORY_UTILIZATION=0.95).shortfalls
    ]
    assert made.deficit_bytes == 0, "nothing can be pushed out here"


def test_a_plan_that_fits_is_not_called_forced() -> None:
    assert not plan(MEMORY_FORCE="on").is_forced


# ---- the stop floor


# growth of nothing: the stop floor alone is what must stay free
STILL: dict[str, Any] = {"MEMORY_GROWTH": "0", "MEMORY_STOP_FLOOR": "4GiB",
                         "MEMORY_WARN_FLOOR": "4GiB"}  # fmt: skip


def test_a_plan_by_which_nobody_would_ever_be_let_in_is_refused() -> None:
    (short,) = refusal(GPU_MEMORY_UTILIZATION=0.87, **STILL).shortfalls
    assert "4.1 GiB would be available once it serves" in short.what
    assert "nobody is let in below 4.2 GiB, 5 % above the stop floor" in short.what
    assert "a lower APPLIANCE_MEMORY_STOP_FLOOR" in told(short)
    assert plan(GPU_MEMORY_UTILIZATION=0.87, MEMORY_FORCE="on", **STILL).is_forced


def test_what_it_says_to_lower_the_utilization_to_lets_requests_in() -> None:
    (remedy, *_) = refusal(GPU_MEMORY_UTILIZATION=0.87, **STILL).shortfalls[0].remedies
    fraction = float(remedy.split("UTILIZATION to ")[1].split(",")[0])
    made = plan(GPU_MEMORY_UTILIZATION=fraction, **STILL)
    assert made.steady_available_bytes > 4.2 * GIB


def test_without_guards_nobody_is_kept_out() -> None:
    chosen: dict[str, Any] = {"GPU_MEMORY_UTILIZATION": 0.87, "MEMORY_GUARDS": "off"}
    assert plan(**chosen, **STILL).steady_available_bytes < 4.2 * GIB


def test_growth_down_to_the_stop_floor_is_warned_of() -> None:
    (warning,) = plan(MAX_MODEL_LEN=33_792).warnings
    assert warning.startswith("growth would stop admission: 2.8 GiB would be available")
    assert plan(MAX_MODEL_LEN=16_384).warnings == ()
    assert plan(MAX_MODEL_LEN=33_792, MEMORY_GUARDS="off").warnings == ()


# ---- tokens


def test_the_context_that_it_says_to_take_fits() -> None:
    (short,) = refusal(MAX_MODEL_LEN=49_152).shortfalls
    (remedy,) = [text for text in short.remedies if "fewer tokens" in text]
    context = int(remedy.split("MAX_MODEL_LEN=")[1].split()[0])
    assert plan(MAX_MODEL_LEN=context).max_model_len == context == 35_840
    with pytest.raises(DoesNotFit):
        plan(MAX_MODEL_LEN=context + 1024)


@pytest.mark.parametrize("force", ["off", "on"])
def test_a_context_beyond_the_models_own_is_refused_by_force_too(force: str) -> None:
    short_sighted = replace(NIKOLA, max_position_embeddings=16_384)
    (short,) = refusal(model=short_sighted, MAX_MODEL_LEN=16_385, MEMORY_FORCE=force).shortfalls
    assert "APPLIANCE_MAX_MODEL_LEN=16385 is longer than the model's own 16,384" in short.what
    assert told(short) == "APPLIANCE_MAX_MODEL_LEN=16384 at most, or unset it"
    assert plan(model=short_sighted, MAX_MODEL_LEN=16_384).max_model_len == 16_384


def test_a_context_beyond_the_models_own_is_told_with_what_else_is_short() -> None:
    first, *others = refusal(MAX_MODEL_LEN=204_801).shortfalls
    assert "204,800 tokens" in first.what
    assert others
    host = golden_host("demo-24g")
    assert "131,072" in refusal(host, DEMO, PROFILE="demo", MAX_MODEL_LEN=131_073).what


def test_a_length_that_is_unknown_or_overridden_is_left_to_the_engine() -> None:
    unknown = replace(NIKOLA, max_position_embeddings=0)
    assert plan(model=unknown, MAX_MODEL_LEN=20_000).max_model_len == 20_000
    longer = "--hf-overrides.max_position_embeddings 32768"
    short = replace(NIKOLA, max_position_embeddings=16_384)
    made = plan(model=short, MAX_MODEL_LEN=20_000, ENGINE_EXTRA_ARGS=longer)
    assert made.max_model_len == 20_000


def test_a_cache_that_does_not_hold_the_context_is_refused_by_force_too() -> None:
    chosen: dict[str, Any] = {"GPU_MEMORY_UTILIZATION": 0.84, "MAX_MODEL_LEN": 49_152}
    for force in ("off", "on"):
        (short,) = refusal(**chosen, MEMORY_FORCE=force).shortfalls
        assert "does not hold a context of 49,152 tokens" in short.what
        assert "APPLIANCE_MAX_MODEL_LEN=16384" in told(short)
        assert "unset APPLIANCE_GPU_MEMORY_UTILIZATION" in told(short)


def test_the_utilization_that_it_says_to_raise_to_holds_the_context() -> None:
    (short,) = refusal(GPU_MEMORY_UTILIZATION=0.82, MAX_MODEL_LEN=16_384).shortfalls
    (remedy,) = [text for text in short.remedies if text.startswith("raise ")]
    fraction = float(remedy.split()[-1])
    assert plan(GPU_MEMORY_UTILIZATION=fraction, MAX_MODEL_LEN=16_384)


def test_weights_beyond_the_memory_are_refused_by_force_too() -> None:
    huge = replace(NIKOLA, weights_bytes=130 * GIB)
    (short, *_) = refusal(model=huge, MEMORY_FORCE="on").shortfalls
    assert "of 121.7 GiB" in short.what
    assert short.missing_bytes > 20 * GIB


# ---- the machine


def test_a_bad_kit_is_refused_with_all_that_may_help() -> None:
    error = refusal(BAD_KIT)
    (floor, closed, check) = error.shortfalls
    assert closed.remedies == (), "the same help"
    assert "with 16,384 tokens" in floor.what
    for part in (
        "stop the desktop (gnome-shell (2211), Xwayland (2302))",
        "swap on a disk, not in zram",
        "APPLIANCE_EVICT_CGROUPS",
        "19.7 GiB are in use before the start",
        "appliance stop",
    ):
        assert part in told(floor)
    assert check.missing_bytes > 0
    assert "--force" not in told(floor), "nothing was chosen that could be forced"


def test_what_is_seen_on_the_machine_is_named() -> None:
    host = replace(
        BAD_KIT,
        desktop=(),
        gpu_users=("python3 (77)",),
        hugepages_bytes=2 * GIB,
        swap=(SwapDevice("/swap.img", "file", 16 * GIB),),
        evictable=(Evictable("user.slice", GIB), Evictable("docker", GIB)),
    )
    remedies = told(refusal(host).shortfalls[0])
    assert "end the other users of the GPU: python3 (77)" in remedies
    assert "2.0 GiB of huge pages" in remedies
    assert "user.slice (1.0 GiB), docker (1.0 GiB) give 2.0 GiB at most" in remedies
    assert "desktop" not in remedies
    assert "add " not in remedies, "there is swap enough"


def test_with_swap_switched_off_that_is_said_first() -> None:
    host = replace(BAD_KIT, evictable=(Evictable("user.slice", 16 * GIB),))
    assert "APPLIANCE_SWAP=auto" in told(refusal(host, SWAP="off").shortfalls[0])


def test_cgroups_that_are_named_and_were_not_seen_are_said() -> None:
    remedies = told(refusal(BAD_KIT, EVICT_CGROUPS="docker").shortfalls[0])
    assert "make force-swap, or see why docker cannot be read" in remedies
    assert "name cgroups" not in remedies


def test_with_enough_to_push_out_even_a_bad_kit_fits() -> None:
    host = replace(
        BAD_KIT,
        swap=(SwapDevice("/swap.img", "file", 32 * GIB),),
        evictable=(Evictable("user.slice", 16 * GIB),),
    )
    made = plan(host)
    assert made.max_model_len > 16_384
    assert made.deficit_bytes > 11 * GIB


@pytest.mark.parametrize("most", ["1GiB", "0"])
def test_no_more_is_pushed_out_than_the_operator_allows(most: str) -> None:
    host = replace(
        BAD_KIT,
        swap=(SwapDevice("/swap.img", "file", 32 * GIB),),
        evictable=(Evictable("user.slice", 16 * GIB),),
    )
    assert refusal(host, EVICT_MAX=most).shortfalls[0].missing_bytes > 10 * GIB


# ---- earlyoom


def test_an_earlyoom_that_would_kill_a_ready_engine_is_a_shortfall() -> None:
    host = replace(SPARK, earlyoom=EarlyOom(8 * GIB, 4 * GIB))
    (short,) = refusal(host).shortfalls
    assert "below 8.0 GiB" in short.what
    assert "6.5 GiB would be available" in short.what
    assert "earlyoom" in told(short)
    assert plan(host, MEMORY_FORCE="on").is_forced


def test_an_earlyoom_that_waits_for_the_swap_to_fill_is_warned_of() -> None:
    free = SwapDevice("/swap.img", "file", 16 * GIB, GIB)
    host = replace(SPARK, swap=(free,), earlyoom=EarlyOom(12 * GIB, 6 * GIB, 10))
    assert "once no more than 10 % of the swap is free" in "".join(plan(host).warnings)
    full = replace(host, swap=(replace(free, used_bytes=15 * GIB),))
    (short,) = refusal(full).shortfalls
    assert "earlyoom" in told(short)


def test_an_earlyoom_that_growth_would_reach_is_warned_of() -> None:
    (warning,) = [
        text
        for text in plan(replace(SPARK, earlyoom=EarlyOom(5 * GIB, GIB))).warnings
        if "earlyoom" in text
    ]
    assert "5.0 GiB" in warning


def test_an_earlyoom_of_the_common_2_percent_is_no_matter() -> None:
    host = replace(SPARK, earlyoom=EarlyOom(round(2.4 * GIB), GIB))
    assert "earlyoom" not in "".join(plan(host).warnings)


# ---- what cannot be computed


def test_an_unknown_architecture_cannot_be_computed_and_says_what_to_set() -> None:
    error = refusal(model=UNKNOWN)
    assert "cannot compute" in error.what
    assert "NovelLM" in error.what
    assert "nobody read it" in error.what
    assert "APPLIANCE_GPU_MEMORY_UTILIZATION and APPLIANCE_MAX_MODEL_LEN" in error.hint
    assert sum(row.bytes for row in error.table) == SPARK.memory_total_bytes


@pytest.mark.parametrize(
    "chosen", [{"GPU_MEMORY_UTILIZATION": 0.85}, {"MAX_MODEL_LEN": 4096}, {"MEMORY_FORCE": "on"}]
)
def test_half_a_choice_does_not_make_up_for_what_cannot_be_computed(chosen: dict[str, Any]) -> None:
    assert "cannot compute" in refusal(model=UNKNOWN, **chosen).what


def test_with_utilization_and_context_chosen_the_engine_measures_for_itself() -> None:
    made = plan(model=UNKNOWN, GPU_MEMORY_UTILIZATION=0.85, MAX_MODEL_LEN=16_384)
    assert (made.gpu_memory_utilization, made.max_model_len) == (0.85, 16_384)
    assert (made.kv_is_computed, made.kv_tokens) == (False, 0)
    assert any("not computed" in warning for warning in made.warnings)


def test_what_cannot_be_computed_is_judged_by_the_floors_all_the_same() -> None:
    chosen: dict[str, Any] = {"GPU_MEMORY_UTILIZATION": 0.95, "MAX_MODEL_LEN": 16_384}
    assert "are missing" in refusal(model=UNKNOWN, **chosen).shortfalls[0].what


def test_a_utilization_without_room_for_any_cache_is_refused() -> None:
    chosen: dict[str, Any] = {"GPU_MEMORY_UTILIZATION": 0.5, "MAX_MODEL_LEN": 16_384}
    assert "does not hold" in refusal(model=UNKNOWN, **chosen).what


def test_the_cpu_engine_needs_the_context_alone() -> None:
    host = golden_host("demo-24g")
    strange = replace(DEMO, cache=(), cache_unknown="nobody read it")
    error = refusal(host, strange, PROFILE="demo")
    assert "set APPLIANCE_MAX_MODEL_LEN yourself" in error.hint
    assert not plan(host, strange, PROFILE="demo", MAX_MODEL_LEN=2048).kv_is_computed


# ---- warnings


def test_a_plan_below_its_profiles_context_says_what_more_would_take() -> None:
    first, *rest = plan().warnings
    assert first == "the profile would serve 49,152 tokens with 2.5 GiB more"
    assert all(warning.startswith("for that: ") for warning in rest)
    assert any("MEMORY_PROFILE=wide" in warning for warning in rest)


def test_a_chosen_context_is_not_argued_with() -> None:
    assert plan(MAX_MODEL_LEN=16_384).warnings == ()


def test_a_desktop_and_other_users_of_the_gpu_are_warned_of() -> None:
    host = replace(SPARK, desktop=("Xorg (9)",), gpu_users=("ollama (8)",))
    warnings = plan(host, MAX_MODEL_LEN=16_384).warnings
    assert any("Xorg (9)" in warning for warning in warnings)
    assert any("ollama (8)" in warning for warning in warnings)


@pytest.mark.parametrize(
    "flag",
    [
        "--speculative-config=x",
        "--cpu_offload_gb 4",
        "--spec x",
        "--speculative_config.model x",
        "--kv-off 3",
        "--tensor-par=2",
        "-tp 2",
    ],
)
def test_a_flag_that_the_plan_knows_nothing_of_is_warned_of(flag: str) -> None:
    warnings = plan(MAX_MODEL_LEN=16_384, ENGINE_EXTRA_ARGS=flag).warnings
    assert any(f"{flag.partition('=')[0].split()[0]} is not in" in text for text in warnings)


def test_a_flag_that_changes_nothing_of_the_plan_is_not_warned_of() -> None:
    flags = "--kv-cache-dtype-skip-layers 1 --kv-offloading-backend x -O3 --seed=1"
    assert plan(MAX_MODEL_LEN=16_384, ENGINE_EXTRA_ARGS=flags).warnings == ()


def test_a_utilization_for_the_cpu_engine_is_said_to_mean_nothing() -> None:
    made = plan(golden_host("demo-24g"), DEMO, PROFILE="demo", GPU_MEMORY_UTILIZATION=0.5)
    assert made.gpu_memory_utilization is None
    assert any("means nothing" in warning for warning in made.warnings)
