"""``appliance top``'s picture: whole at 80 columns and at 140, and right about what it shows."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from appliance.topframe import HISTORY, LINES, Frame, told
from appliance.topview import render, spark

GOLDEN = Path(__file__).parents[1] / "golden"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC).timestamp()
GIB = 2**30
STATUS = {
    "status": "ready",
    "state": "ready",
    "reason": "serving",
    "message": None,
    "hint": None,
    "since": "2026-11-23T09:00:00+00:00",
    "spawn": 3,
    "phase": None,
    "progress": None,
    "degraded": ["safer_plan"],
    "next": None,
    "next_at": None,
    "model": "Nikola",
    "max_model_len": 49152,
    "requests": {"running": 2, "waiting": 1, "places": 4},
}
LOADING = STATUS | {
    "state": "starting",
    "message": "memory ran out while loading",
    "hint": "lower APPLIANCE_MAX_MODEL_LEN",
    "phase": "loading weights",
    "progress": 0.37,
    "next": "restart",
    "next_at": "2026-11-23T12:00:30+00:00",
}
BUDGET = {
    "total_bytes": 128 * GIB,
    "available_bytes": 6 * GIB,
    "floor_bytes": 2 * GIB,
    "parts": [
        {"name": "weights", "plan_bytes": 96 * GIB, "actual_bytes": 96 * GIB, "note": ""},
        {"name": "kv_cache", "plan_bytes": 8 * GIB, "actual_bytes": None, "note": ""},
        {"name": "overhead", "plan_bytes": 4 * GIB, "actual_bytes": 5 * GIB, "note": ""},
        {"name": "system", "plan_bytes": 6 * GIB, "actual_bytes": None, "note": ""},
    ],
}
INCIDENT = {
    "at": "2026-11-23T08:41:07Z",
    "code": "out_of_memory",
    "what": "the engine ended while loading (exit code 0): memory ran out\nsecond line",
}


def figures(second: int) -> dict[str, object]:
    return {
        "at": f"2026-11-23T11:59:{second % 60:02}Z",
        "prompt_tokens_per_s": 1916.0 if second % 20 < 4 else 0.0,
        "completion_tokens_per_s": 20.0 + second % 8,
        "ttft_s": {"p50": 0.49, "p90": 1.2} if second > 5 else None,
        "running": 2,
        "waiting": 1,
        "places": 4,
        "kv_cache_used": second / 100,
        "prefix_cache_hit": 0.81,
        "memory": {
            "total": 128 * GIB,
            "available": 7 * GIB,
            "free": 3 * GIB,
            "swap_free": 0,
            "floor": 2 * GIB,
        },
        "glitches": {
            "case": {"repaired": 2, "seen": 1},
            "inserted_space": {"seen": 1},
            "other": {},
        },
        "keepalives": 12,
        "spawns": 3,
        "exits": {"out_of_memory": 2},
    }


def full() -> Frame:
    frame = Frame()
    for name, value in (("status", STATUS), ("budget", BUDGET), ("incidents", [INCIDENT, {}])):
        frame = told(frame, name, value)
    for second in range(40):
        frame = told(frame, "figures", figures(second))
        frame = told(frame, "log", {"number": second, "text": f"(EngineCore) INFO step {second}"})
    return frame


def drawn(frame: Frame, width: int, height: int) -> str:
    """Return what a terminal of this size would show, without its colours."""
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, color_system=None, highlight=False)
    console.print(render(frame, width, height, NOW))
    return out.getvalue()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 40)])
def test_the_picture_is_the_golden_one(width: int, height: int) -> None:
    assert drawn(full(), width, height) == (GOLDEN / f"top-{width}.txt").read_text()


def test_a_start_that_goes_on_shows_its_progress_and_what_comes_next() -> None:
    picture = drawn(told(full(), "status", LOADING), 80, 24)
    assert picture.startswith("STARTING")
    assert "37% loading weights" in picture
    assert "type: lower APPLIANCE_MAX_MODEL_LEN" in picture
    assert "next: restart in 30 s" in picture


def test_a_lost_appliance_is_said_above_what_was_known_and_forgotten_when_it_answers() -> None:
    lost = told(full(), "lost", "it has ended")
    assert drawn(lost, 80, 24).startswith("lost the appliance: it has ended\nREADY")
    assert "lost" not in drawn(told(lost, "status", STATUS), 80, 24)


def test_a_frame_of_which_nothing_is_known_can_be_drawn() -> None:
    assert "waiting for" in drawn(Frame(), 80, 24)


def test_an_appliance_without_a_budget_still_shows_its_memory() -> None:
    picture = drawn(replace(full(), budget=None), 80, 24)
    assert "budget" not in picture
    assert "available 7.0, floor 2.0" in picture


def test_what_the_engine_says_does_nothing_to_the_terminal() -> None:
    frame = told(full(), "log", {"number": 99, "text": "\x1b[2J\x07bad [red]markup[/red]"})
    frame = told(frame, "status", STATUS | {"message": "\x1b]0;title\x07"})
    picture = drawn(frame, 80, 24)
    assert "\x1b" not in picture
    assert "\x07" not in picture
    assert "bad [red]markup[/red]" in picture


@given(st.integers(20, 300), st.integers(1, 80), st.booleans())
def test_no_picture_is_larger_than_its_terminal(width: int, height: int, starts: bool) -> None:
    frame = told(full(), "log", {"number": 1, "text": "x" * 500})
    picture = drawn(told(frame, "status", LOADING) if starts else frame, width, height)
    lines = picture.split("\n")[:-1]
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


@given(st.lists(st.none() | st.floats(0, 1e9), max_size=60), st.integers(-3, 80))
def test_a_sparkline_has_a_column_for_each_of_the_last_values(
    values: list[float | None], columns: int
) -> None:
    bars = spark(values, columns)
    shown = values[-columns:] if columns > 0 else []
    assert len(bars) == len(shown)
    assert [bar == " " for bar in bars] == [value is None for value in shown]


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=40))
def test_a_sparkline_is_as_high_as_its_values(values: list[float]) -> None:
    bars = spark(values, len(values))
    pairs = sorted(zip(values, bars, strict=True))
    assert [bar for _, bar in pairs] == sorted(bars)


def test_what_is_kept_has_an_end() -> None:
    frame = Frame()
    for second in range(HISTORY + 5):
        frame = told(frame, "figures", figures(second))
        frame = told(frame, "log", {"number": second, "text": str(second)})
    assert (len(frame.figures), len(frame.lines)) == (HISTORY, LINES)
    assert frame.lines[-1] == str(HISTORY + 4)


def test_an_event_of_a_later_version_changes_nothing() -> None:
    assert told(full(), "weather", {"rain": True}) == full()


def test_each_box_of_a_cluster_has_its_word() -> None:
    nodes = {"head": True, "worker": False}
    frame = told(full(), "figures", {**figures(41), "nodes": nodes})
    assert "head runs, worker does not run" in drawn(frame, 80, 24)
