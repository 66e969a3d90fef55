"""What the figures of an acceptance run are worth."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.accept import judge
from appliance.accept.figures import Timing, alone, together
from appliance.accept.steps import (
    BY_NAME,
    STEPS,
    Finding,
    Outcome,
    Verdict,
    blocker,
    failed,
    overall,
    passed,
    skipped,
)
from appliance.kilo import kilo_config
from appliance.overheads import GIB

FLOORS = {"warn_bytes": 8 * GIB, "stop_bytes": 6 * GIB, "kill_bytes": 4 * GIB}
MEMORY: dict[str, Any] = {
    "rows": [{"name": "weights", "bytes": 90 * GIB, "how": "its tensors"}],
    "floors": FLOORS,
    "max_model_len": 49_152,
    "max_num_seqs": 2,
    "kv_bytes": 6 * GIB,
    "is_forced": False,
}
READ = {"prompt_tokens": 40_000, "prefill_tok_s": 1500.0, "ttft_s": 26.7}


def outcome(step: str, finding: Finding) -> Outcome:
    return Outcome(step, finding, "2026-11-23T00:00:00+00:00", 1.0)


# ---- the steps


def test_every_step_needs_only_what_comes_before_it() -> None:
    for place, step in enumerate(STEPS):
        assert {BY_NAME[name] for name in step.needs} <= set(STEPS[:place])


def test_a_step_is_held_up_by_what_failed_was_skipped_or_is_missing() -> None:
    smoke = BY_NAME["smoke"]
    assert blocker(smoke, {}) == "start"
    for bad in (failed("no"), skipped("no")):
        assert blocker(smoke, {"start": outcome("start", bad)}) == "start"
    assert blocker(smoke, {"start": outcome("start", passed("yes"))}) == ""
    assert blocker(BY_NAME["doctor"], {}) == ""


@given(st.lists(st.sampled_from(list(Verdict)), min_size=len(STEPS), max_size=len(STEPS)))
def test_a_whole_run_passes_exactly_when_nothing_failed(verdicts: list[Verdict]) -> None:
    found = [
        outcome(step.name, Finding(verdict, ""))
        for step, verdict in zip(STEPS, verdicts, strict=True)
    ]
    wanted = Verdict.FAILED if Verdict.FAILED in verdicts else Verdict.PASSED
    assert overall(found) is wanted


def test_a_run_that_is_not_whole_has_not_passed() -> None:
    assert overall([outcome(step.name, passed("")) for step in STEPS[:-1]]) is None
    assert overall([]) is None


# ---- the judges


def row(name: str, level: str, following: str = "") -> dict[str, str]:
    return {"name": name, "level": level, "value": f"{name} it is", "next": following}


def test_the_doctor_fails_with_what_failed_and_its_cure() -> None:
    found = judge.judge_doctor(
        [row("disk", "ok"), row("gpu", "fail", "reboot"), row("clock", "warn")]
    )
    assert (found.verdict, found.detail, found.next) == (Verdict.FAILED, "gpu: gpu it is", "reboot")
    found = judge.judge_doctor([row("disk", "ok"), row("clock", "warn")])
    assert found.verdict is Verdict.PASSED
    assert "to know of: clock" in found.detail


def test_a_plan_that_is_forced_refused_or_missing_is_not_accepted() -> None:
    assert judge.judge_plan(MEMORY, "spawn", GIB).verdict is Verdict.PASSED
    assert judge.judge_plan({**MEMORY, "is_forced": True}, "spawn", GIB).verdict is Verdict.FAILED
    short = {"rows": [], "shortfalls": [{"what": "8 GiB are missing"}]}
    assert judge.judge_plan(short, "spawn", GIB).detail == "8 GiB are missing"
    assert judge.judge_plan(None, "spawn", GIB).verdict is Verdict.FAILED
    assert judge.judge_plan(None, "attach", GIB).verdict is Verdict.SKIPPED


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, Verdict.PASSED),
        ({"status": "not_ready", "state": "starting"}, Verdict.FAILED),
        ({"degraded": ["output_suspect"]}, Verdict.FAILED),
    ],
)
def test_a_warm_up_passes_only_ready_and_sane(change: dict[str, Any], verdict: Verdict) -> None:
    status = {"status": "ready", "state": "ready", "since": "now", "spawn": 1, "degraded": [],
              "reason": "", "message": None, "hint": None}  # fmt: skip
    assert judge.judge_warmup({**status, **change}).verdict is verdict


def kilo(served: int | None = 49_152, **changes: str) -> Any:
    config = kilo_config("http://box:9000", "Nikola", served)
    config["provider"]["unglitched"]["options"] |= changes
    return config


def test_kilos_preset_must_fit_what_is_served_and_carry_no_key() -> None:
    assert judge.judge_kilo(kilo(), 49_152, "Nikola").verdict is Verdict.PASSED
    for config, served, model in (
        (kilo(), 32_768, "Nikola"),
        (kilo(), 49_152, "another"),
        (kilo(None), None, "Nikola"),
        (kilo(apiKey="k3y"), 49_152, "Nikola"),
        (kilo(baseURL="http://box:9000"), 49_152, "Nikola"),
        ({}, 49_152, "Nikola"),
        ([], 49_152, "Nikola"),
    ):
        assert judge.judge_kilo(config, served, model).verdict is Verdict.FAILED


def test_a_short_context_passes_with_a_word_of_warning() -> None:
    found = judge.judge_kilo(kilo(16_384), 16_384, "Nikola")
    assert found.verdict is Verdict.PASSED
    assert "compacts" in found.detail


@given(st.integers(0, 20 * GIB))
def test_a_prefill_passes_exactly_at_or_above_the_floor(low: int) -> None:
    found = judge.judge_prefill(READ, low, MEMORY)
    assert (found.verdict is Verdict.PASSED) == (low >= FLOORS["stop_bytes"])
    assert found.figures["low_water_bytes"] == low
    assert ("below the warning" in found.detail) == (
        FLOORS["stop_bytes"] <= low < FLOORS["warn_bytes"]
    )


def test_a_memory_that_nobody_sees_is_said_and_not_judged() -> None:
    found = judge.judge_prefill(READ, None, MEMORY)
    assert found.verdict is Verdict.PASSED
    assert "could not be seen" in found.detail


def bench(count: int, glitched: int, none: int, total: int = 18) -> dict[str, Any]:
    def rate(n: int) -> dict[str, Any]:
        return {"count": n, "of": total, "share": 0.0, "low": 0.0, "high": 1.0}

    arm = {"exact": rate(count), "glitched": rate(glitched), "no_path": none, "other_path": 0,
           "kinds": {}}  # fmt: skip
    return {"arms": [arm]}


@pytest.mark.parametrize(
    ("report", "profile", "verdict"),
    [
        (bench(18, 0, 0), "spark", Verdict.PASSED),
        (bench(17, 1, 0), "spark", Verdict.PASSED),
        (bench(14, 4, 0), "spark", Verdict.FAILED),
        (bench(0, 0, 18), "spark", Verdict.FAILED),
        (bench(0, 0, 18), "demo", Verdict.SKIPPED),
        (bench(0, 0, 0, total=0), "spark", Verdict.FAILED),
    ],
)
def test_paths_that_come_back_changed_fail(report: Any, profile: str, verdict: Verdict) -> None:
    assert judge.judge_paths(report, profile).verdict is verdict


def test_a_kill_that_no_incident_tells_of_fails() -> None:
    figures = {"noticed_s": 0.1, "ready_s": 30.0, "code": "engine_killed"}
    assert judge.judge_kill(figures).verdict is Verdict.PASSED
    assert judge.judge_kill({**figures, "code": ""}).verdict is Verdict.FAILED


def test_a_drain_that_cuts_an_answer_fails() -> None:
    assert judge.judge_drain({"whole": True, "drained_s": 2.0}).verdict is Verdict.PASSED
    assert judge.judge_drain({"whole": False, "drained_s": 2.0}).verdict is Verdict.FAILED


def test_smoke_fails_with_the_check_that_failed() -> None:
    good = {"name": "chat", "passed": True, "seconds": 0.1, "detail": "hello"}
    bad = {"name": "tool call", "passed": False, "seconds": 0.1, "detail": "0 tool calls"}
    assert judge.judge_smoke([good]).detail == "1 of 1 passed"
    assert judge.judge_smoke([good, bad]).detail == "tool call: 0 tool calls"


# ---- speeds


def test_speeds_are_reckoned_from_the_first_token() -> None:
    figures = alone(
        Timing(sent=10.0, first=12.0, last=14.0, prompt_tokens=3000, completion_tokens=41)
    )
    assert figures["ttft_s"] == 2.0
    assert figures["prefill_tok_s"] == 1500.0
    assert figures["decode_tok_s"] == 20.0


def test_streams_at_once_are_counted_over_the_time_that_any_of_them_ran() -> None:
    first = Timing(0.0, 1.0, 3.0, 10, 41)
    second = Timing(0.0, 2.0, 5.0, 10, 41)
    figures = together([first, second])
    assert figures["streams"] == 2
    assert figures["decode_tok_s"] == 20.0  # 80 tokens in 4 s
    assert figures["slowest_ttft_s"] == 2.0


MOMENTS = st.floats(0, 1e6, allow_nan=False)


@given(MOMENTS, MOMENTS, MOMENTS, st.integers(0, 10**6), st.integers(0, 10**6))
def test_no_timing_makes_a_speed_that_is_none(a: float, b: float, c: float, p: int, n: int) -> None:
    sent, first, last = sorted((a, b, c))
    timing = Timing(sent, first, last, p, n)
    for value in (*alone(timing).values(), *together([timing]).values()):
        assert value >= 0


def test_an_answer_without_tokens_is_no_speed() -> None:
    none = alone(Timing(0.0, 1.0, 1.0, 10, 1))
    many = together([Timing(0.0, 1.0, 1.0, 10, 1)])
    assert judge.judge_speeds({"alone": none, "together": many}).verdict is Verdict.FAILED
