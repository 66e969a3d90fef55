"""The runner's own arithmetic and its promise: a step that fails is a finding, not an end."""

import asyncio
import json
import math
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkpointbox import Shape, tensors_of
from tests.gpu import miniature, record, run, stage, streams, tap
from tests.gpu.record import Outcome, Report, Skip, Unmet, attempt
from tests.gpu.streams import Stream

TINY = Shape(form="nvfp4", layers=2, experts=8, hidden=64, inner=32, shards=2, heads=2,
             head_dim=32, vocabulary=1024)  # fmt: skip


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A folder with what a miniature takes of the demo's checkpoint."""
    folder = tmp_path / "demo"
    folder.mkdir()
    for name in (*miniature.TOKENIZER, "config.json"):
        (folder / name).write_text('{"scoring_func": "sigmoid", "num_local_experts": 8}')
    return folder


def raises(cause: Exception) -> Callable[[Outcome], None]:
    def step(_outcome: Outcome) -> None:
        raise cause

    return step


@pytest.mark.parametrize(
    ("cause", "verdict"),
    [(ValueError("why"), record.FAILED), (Unmet("why"), record.FAILED), (Skip("why"), "skipped")],
    ids=["ValueError", "Unmet", "Skip"],
)
def test_what_a_step_raises_is_its_outcome(cause: Exception, verdict: str) -> None:
    outcome = attempt("step", raises(cause), 5, lambda: {"engine": "its end"})
    assert (outcome.verdict, "why" in outcome.reason) == (verdict, True)
    assert ("engine" in outcome.tails) == (verdict == record.FAILED)


def test_a_step_that_takes_too_long_is_cut() -> None:
    def endless(_outcome: Outcome) -> None:
        threading.Event().wait(30)

    outcome = attempt("step", endless, 0.2, dict)
    assert outcome.reason.startswith("OutOfTime")
    assert outcome.seconds < 20


def test_a_step_that_waits_for_a_stream_is_cut_too() -> None:
    def endless(_outcome: Outcome) -> None:
        asyncio.run(asyncio.Event().wait())  # a loop that took signals for itself would go on

    outcome = attempt("step", endless, 0.2, dict)
    assert outcome.reason.startswith("OutOfTime")


def test_what_was_found_before_a_failure_is_kept(tmp_path: Path) -> None:
    def step(outcome: Outcome) -> None:
        outcome.show("half")
        outcome.facts["half"] = 1
        raise Unmet("the other half")

    report = Report(tmp_path / "report.json", {}, ["run"])
    report.outcomes.append(attempt("step", step, 5, dict))
    report.write()
    kept = json.loads((tmp_path / "report.json").read_text())["steps"][0]
    assert (kept["facts"], kept["shown"]) == ({"half": 1}, ["half"])
    assert "the other half" in report.table()


def test_a_quantile_is_a_value_of_the_sample() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [record.quantile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 51, 100, 100]
    assert record.quantile([], 0.99) == 0


def test_every_step_has_a_limit_and_every_limit_a_step() -> None:
    assert set(run.LIMITS) == set(run.STEPS)


def test_a_miniature_has_the_true_names_positive_scales_and_no_offsets(
    tmp_path: Path, demo: Path
) -> None:
    folder = miniature.build(tmp_path / "mini", TINY, demo)
    tensors = tensors_of(folder)
    expert = "model.layers.1.block_sparse_moe.experts.7."
    assert tensors[f"{expert}w1.weight"][:2] == ("U8", (32, 32))
    assert tensors[f"{expert}w1.weight_scale_2"] == tensors[f"{expert}w3.weight_scale_2"]
    scales = b"".join(data for name, (dtype, _, data) in tensors.items() if dtype == "F8_E4M3")
    assert set(scales) <= set(range(miniature.FP8_HALF, miniature.FP8_TWO))
    (k_scale,) = struct.unpack("<f", tensors["model.layers.0.self_attn.k_proj.k_scale"][2])
    assert 0 < k_scale < 1
    assert not [name for name in tensors if name.endswith(("k_bias", "v_bias"))]
    config = json.loads((folder / "config.json").read_text())
    assert config["num_local_experts"] == 8
    assert config["scoring_func"] == "sigmoid"
    assert "model.layers.1.self_attn*" in config["quantization_config"]["ignore"]


def test_a_miniature_is_the_same_each_time(tmp_path: Path, demo: Path) -> None:
    first = miniature.build(tmp_path / "one", TINY, demo)
    second = miniature.build(tmp_path / "two", TINY, demo)
    assert tensors_of(first) == tensors_of(second)


def test_a_stream_is_timed_from_its_first_piece_and_not_from_the_role() -> None:
    stream = Stream(1.0, [1.2, 1.5, 1.6, 1.6, 1.8])
    assert math.isclose(stream.ttft_s, 0.5)
    assert [round(gap, 6) for gap in stream.gaps_s] == [0.1, 0.2]


def test_events_are_counted_in_pieces_of_any_size() -> None:
    text = b'data: {"a": 1}\n\ndata: {"b": 2}\n\ndata: [DONE]\n\n'
    for size in (1, 3, 7, len(text)):
        moments = streams.Moments()
        for at in range(0, len(text), size):
            moments.see(text[at : at + size], float(at))
        first, second = (text.index(event) + 6 for event in (b'data: {"a', b'data: {"b'))
        assert moments.each == [first // size * size, second // size * size]


def test_the_way_is_what_lies_between_client_and_tap() -> None:
    stream = Stream(1.0, [1.5, 2.25, 3.5, 4.5], seed=7)
    notes = {7: tap.Note(7, 1.125, [1.25, 2.0, 3.0, 4.25])}
    found = tap.between([stream], notes)
    assert found == {"ttft_s": [0.375], "gap_s": [0.25, -0.25]}
    with pytest.raises(KeyError):
        tap.between([Stream(1.0, [1.5], seed=8)], notes)
    with pytest.raises(ValueError, match="argument 2 is longer"):
        tap.between([Stream(1.0, [1.5], seed=7)], notes)


def test_a_torn_stream_is_an_error() -> None:
    whole = b'HTTP/1.1 200 OK\r\n\r\ndata: {"choices": []}\n\ndata: [DONE]\n\n'
    streams._finish(Stream(0.0), whole)
    for torn in (whole.replace(b"200", b"500"), whole.removesuffix(b"data: [DONE]\n\n")):
        with pytest.raises(RuntimeError, match="no whole stream"):
            streams._finish(Stream(0.0), torn)


def test_a_relative_error_is_that_of_the_norms() -> None:
    assert stage.relative_error([1.0, 2.0], [1.0, 2.0]) == 0
    assert math.isclose(stage.relative_error([3.0, 4.0], [0.0, 4.0]), 0.75)


def test_the_last_telling_line_of_a_log_says_why(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("ok\nValueError: no such kernel\nINFO bye\n")
    assert stage.last_error(log) == "ValueError: no such kernel"
