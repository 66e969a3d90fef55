"""A measurement of speed: its order, what batches come to, and what the report says of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bench.benchy import LOCK, VERSION
from appliance.bench.servingplan import Cell, Job, cells, make_jobs
from appliance.bench.servingreport import SpeedReport, least, make_report, spread
from appliance.bench.servingrun import published
from appliance.bench.servingsample import Sample, read_sample, sample_of
from appliance.bench.servingtable import markdown

GOLDEN = Path(__file__).parents[1] / "golden" / "speed-report.md"
CELL = Cell(512, 1)
GIB = 2**30


def metric(*values: float) -> dict[str, Any]:
    return {"mean": 0.0, "std": 0.0, "values": list(values)}


# One entry of the "benchmarks" that llama-benchy 0.4.0 writes.
TOLD = {
    "concurrency": 2,
    "context_size": 0,
    "prompt_size": 512,
    "response_size": 32,
    "is_context_prefill_phase": False,
    "pp_throughput": metric(920.0),
    "pp_req_throughput": metric(500.0, 480.0),
    "tg_throughput": metric(40.0),
    "tg_req_throughput": metric(21.0, 23.0),
    "peak_throughput": metric(44.0),
    "peak_req_throughput": metric(24.0, 25.0),
    "ttfr": metric(480.0, 490.0),
    "est_ppt": metric(470.0, 480.0),
    "e2e_ttft": metric(490.123, 500.0),
    "throughput_over_time": None,
    "requests_throughput_over_time": None,
}


def sample(arm: str, number: int, speed: float, cell: Cell = CELL) -> Sample:
    return Sample(
        arm=arm,
        prompt_tokens=cell.prompt_tokens,
        concurrency=cell.concurrency,
        round=number,
        prefill_tps=speed * 40,
        decode_tps=speed,
        decode_request_tps=speed / cell.concurrency,
        peak_tps=speed * 1.1,
        ttft_ms=(1000 / speed,) * cell.concurrency,
        low_water_bytes=round(7 * GIB - number * GIB / 2),
    )


def about(*arms: str, **changes: object) -> dict[str, Any]:
    told: dict[str, Any] = {
        "arms": list(arms),
        "endpoints": {
            arm: {"base_url": f"http://{arm}.example:9000/v1", "model": "Nikola"} for arm in arms
        },
        "rounds": 3,
        "decode_tokens": 128,
        "text": "book",
        "exact": True,
        "unfit": [],
        "demo": False,
        "begun": "2026-11-23",
        "tool": "llama-benchy 0.4.0",
        "version": "0.1.0",
    }
    return {**told, **changes}


def two_arms() -> SpeedReport:
    slow = [sample("plain", number, 20 + number) for number in range(3)]
    fast = [sample("ngram", number, 30 + 3 * number) for number in range(3)]
    wide = [sample("plain", 0, 36, Cell(4096, 2)), sample("ngram", 0, 27, Cell(4096, 2))]
    told = about("plain", "ngram", unfit=["pp65536 c1"])
    return make_report(told, [*slow, *fast, *wide], published(), missing=4)


# ---- the order


def test_the_arms_take_turns_and_every_other_round_is_reversed() -> None:
    jobs = make_jobs(["A", "B"], [CELL], 3)
    assert [job.arm for job in jobs] == ["A", "B", "B", "A", "A", "B"]
    assert [job.round for job in jobs] == [0, 0, 1, 1, 2, 2]


@given(st.integers(1, 2), st.lists(st.integers(1, 99), min_size=1, unique=True), st.integers(1, 6))
def test_each_batch_is_asked_once_and_cell_by_cell(
    arms: int, sizes: list[int], rounds: int
) -> None:
    names = ["A", "B"][:arms]
    grid = [Cell(size, 1) for size in sizes]
    jobs = make_jobs(names, grid, rounds)
    assert len({job.key for job in jobs}) == len(jobs) == arms * len(grid) * rounds
    assert list(dict.fromkeys(job.cell for job in jobs)) == grid


def test_what_does_not_fit_the_context_is_left_out_and_named() -> None:
    fit, unfit = cells((4096, 512), (2, 1), 128, 4096)
    assert fit == (Cell(512, 1), Cell(512, 2))
    assert [cell.name for cell in unfit] == ["pp4096 c1", "pp4096 c2"]
    assert cells((4096,), (1,), 128, None)[0] == (Cell(4096, 1),)


# ---- one batch


def test_a_batch_is_read_from_what_llama_benchy_tells() -> None:
    told = sample_of(Job("A", Cell(512, 2), 1, warm=False), TOLD, 5 * GIB)
    assert (told.prefill_tps, told.decode_tps, told.peak_tps) == (920.0, 40.0, 44.0)
    assert told.decode_request_tps == 22.0
    assert told.ttft_ms == (490.12, 500.0)
    assert told.low_water_bytes == 5 * GIB


def test_what_could_not_be_observed_is_none_and_not_0() -> None:
    one_piece = TOLD | dict.fromkeys(("tg_throughput", "tg_req_throughput", "e2e_ttft"))
    told = sample_of(Job("A", CELL, 0, warm=True), one_piece, None)
    assert (told.decode_tps, told.decode_request_tps, told.ttft_ms) == (None, None, ())


def test_another_format_of_llama_benchy_is_refused() -> None:
    with pytest.raises(KeyError):
        sample_of(Job("A", CELL, 0, warm=True), {"speed": 3}, None)


@given(
    st.floats(0.1, 1e6) | st.none(),
    st.lists(st.floats(0.1, 1e6)).map(tuple),
    st.integers(0, 2**40) | st.none(),
)
def test_a_sample_comes_back_from_the_journal_as_it_was(
    speed: float | None, waits: tuple[float, ...], low: int | None
) -> None:
    one = replace(sample("A", 1, 5), decode_tps=speed, ttft_ms=waits, low_water_bytes=low)
    assert read_sample(one.line()) == one


# ---- the report


def test_the_report_reads_as_the_golden_one() -> None:
    assert markdown(two_arms()) == GOLDEN.read_text()


def test_ratios_are_of_batches_that_ran_side_by_side() -> None:
    ratio = two_arms().ratios[0]
    assert (ratio.prompt_tokens, ratio.paired) == (512, True)
    assert ratio.decode == spread([30 / 20, 33 / 21, 36 / 22])
    assert ratio.ttft is not None
    assert ratio.ttft.median == pytest.approx(21 / 33)


def test_a_round_that_only_one_arm_has_is_in_no_ratio() -> None:
    samples = [sample("A", 0, 10), sample("B", 0, 20), sample("A", 1, 10)]
    ratio = make_report(about("A", "B"), samples, published()).ratios[0]
    assert ratio.decode is not None
    assert (ratio.decode.count, ratio.decode.median) == (1, 2.0)


def test_an_earlier_run_stands_beside_and_its_ratio_says_that_it_is_no_pair() -> None:
    first = make_report(about("plain"), [sample("plain", n, 20 + n) for n in range(3)], published())
    samples = [sample("ngram", n, 30 + n) for n in range(3)]
    report = make_report(about("ngram"), samples, published(), earlier=first.points)
    (ratio,) = report.ratios
    assert not ratio.paired
    assert ratio.decode is not None
    assert (ratio.decode.low, ratio.decode.median, ratio.decode.high) == (30 / 22, 31 / 21, 32 / 20)
    assert report.arms == ("plain", "ngram")
    assert any("two times" in note for note in report.notes)


@given(st.permutations([(arm, number) for arm in "AB" for number in range(3)]))
def test_the_order_in_which_batches_came_does_not_matter(order: list[tuple[str, int]]) -> None:
    samples = [sample(arm, number, 10 + number) for arm, number in order]
    ordered = sorted(samples, key=lambda one: one.key)
    told = about("A", "B")
    assert make_report(told, samples, published()) == make_report(told, ordered, published())


def test_the_low_water_is_the_least_of_all_batches() -> None:
    assert two_arms().low_water_bytes == 6 * GIB
    assert least([None, None]) is None


def test_a_demo_says_that_its_figures_mean_nothing() -> None:
    report = make_report(about("A", demo=True), [sample("A", 0, 10)], published())
    assert "say nothing about a Spark" in markdown(report)


def test_the_report_is_json_all_through() -> None:
    told = json.loads(json.dumps(two_arms().as_json()))
    assert told["points"][0]["decode_tps"] == {"median": 21, "low": 20, "high": 22, "count": 3}
    assert told["format"] == 1


@given(st.lists(st.floats(1, 1e6) | st.none()))
def test_a_spread_lies_between_its_ends(values: list[float | None]) -> None:
    found = spread(values)
    there = [value for value in values if value is not None]
    if found is None:
        assert there == []
    else:
        assert found.low <= found.median <= found.high
        assert (found.low, found.high, found.count) == (min(there), max(there), len(there))


# ---- the data beside it


def test_each_published_speed_has_its_source() -> None:
    rows = published()["rows"]
    assert len(rows) >= 5
    for row in rows:
        assert row["source"]
        assert row["what"]
        assert all(speed > 0 for speed in row["decode_tps"])


def test_the_lock_holds_the_version_that_the_report_names() -> None:
    lock = LOCK.read_text()
    assert f"llama-benchy=={VERSION} " in lock
    pinned = [line for line in lock.splitlines() if line and line[0] not in " #"]
    assert all("==" in line for line in pinned)
    assert lock.count("--hash=sha256:") >= len(pinned)
