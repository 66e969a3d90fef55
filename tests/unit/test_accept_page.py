"""The report's page: whole, escaped, alone in the world, and silent about whose box it is."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.accept.anonymous import Who, hide_all
from appliance.accept.charts import Bar, bars, memory_bars, timeline
from appliance.accept.page import page
from appliance.accept.report import make_report, samples
from appliance.accept.steps import STEPS, Outcome, failed, passed, skipped
from appliance.overheads import GIB

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m&<!--'
VOID = {"meta", "br", "img", "link", "hr", "input"}
SHAPES = {"rect", "line", "circle", "polygon", "polyline"}


class Reader(HTMLParser):
    """Reads a page: its texts, its tags, its attributes; fails on what is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SHAPES
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def memory(name: str = "weights") -> dict[str, Any]:
    rows = [{"name": name, "bytes": 90 * GIB, "how": "its tensors"},
            {"name": "left", "bytes": 31 * GIB, "how": "what remains"}]  # fmt: skip
    floors = {"warn_bytes": 8 * GIB, "stop_bytes": 6 * GIB, "kill_bytes": 4 * GIB}
    return {"rows": rows, "floors": floors, "warnings": ["little room"]}


def evidence(text: str = "word") -> dict[str, Any]:
    incident = {"id": "1", "at": "2026-11-23T01:02:03Z", "code": text, "what": text, "hint": text,
                "state": "ready", "uptime_s": 3.0, "memory": {"before": {"MemFree": 7}},
                "lines": [text], "spawn": 1}  # fmt: skip
    return {
        "answers": True,
        "versions": {"appliance": "0.1.0", "kernel": text},
        "host": {"MemTotal": 121 * GIB, "MemAvailable": 20 * GIB},
        "status": {"model": text, "profile": "spark", "state": "ready", "max_model_len": 49_152,
                   "degraded": [text], "engine_build": {"source": text, "patches": [text]}},
        "memory": memory(text),
        "settings": [{"name": "served_model_name", "value": text, "origin": text},
                     {"name": "port", "value": 9000, "origin": "default"}],
        "command": {"argv": ["vllm", "serve", text, "--flag", text], "env": {"A": text}},
        "incidents": [incident],
        "log": [text, "another line"],
        "metrics": {f"appliance_up {text}": 1.0},
    }  # fmt: skip


def outcomes(text: str = "word") -> dict[str, Outcome]:
    speed = {"prompt_tokens": 20_000, "completion_tokens": 64, "ttft_s": 10.5,
             "prefill_tok_s": 1900.0, "decode_tok_s": 17.5}  # fmt: skip
    rate = {"count": 9, "of": 18, "share": 0.5, "low": 0.3, "high": 0.7}
    figures: dict[str, dict[str, Any]] = {
        "doctor": {"rows": [{"name": text, "level": "warn", "value": text, "next": text}]},
        "smoke": {"checks": [{"name": text, "passed": True, "seconds": 0.1, "detail": text}]},
        "plan": {"memory": memory(text)},
        "speeds": {"alone": speed, "prompts": [speed],
                   "together": {"streams": 2, "decode_tok_s": 31.0, "decode_each_tok_s": 16.0}},
        "paths": {"exact": rate, "glitched": rate, "other_path": 0, "no_path": 0,
                  "kinds": {text: 1}},
        **{f"prefill-{share}": {**speed, "share": share, "low_water_bytes": 9 * GIB}
           for share in (25, 50, 90)},
    }  # fmt: skip
    found = {}
    for number, step in enumerate(STEPS):
        told = figures.get(step.name, {})
        finding = (passed(text, **told), failed(text, text, **told), skipped(text))[number % 3 % 2]
        points = ((0.0, 30 * GIB), (1.0, 25 * GIB))
        found[step.name] = Outcome(step.name, finding, "2026-11-23T01:02:03Z", 2.0, points)
    return found


def shown(kind: str = "acceptance", text: str = "word", **more: Any) -> str:
    found = outcomes(text) if kind == "acceptance" else {}
    tree = make_report(kind, "2026-11-23T01:02:03+00:00", found, {**evidence(text), **more})
    return page(tree)


@pytest.mark.parametrize("kind", ["acceptance", "bundle"])
def test_the_page_is_whole_and_every_section_is_there(kind: str) -> None:
    reader = read(shown(kind))
    wanted = {"Memory", "Incidents", "Settings", "Log and metrics", "Versions and state"}
    if kind == "acceptance":
        wanted |= {"Steps", "Long prompts", "Speeds", "Paths", "Host", "Smoke checks"}
    missing = {title for title in wanted if title not in reader.text}
    assert missing == set()


@pytest.mark.parametrize("kind", ["acceptance", "bundle"])
def test_no_text_becomes_markup(kind: str) -> None:
    calm, hostile = read(shown(kind)), read(shown(kind, HOSTILE))
    assert hostile.tags == calm.tags
    assert "alert(1)" in hostile.text
    assert "\x1b" not in shown(kind, HOSTILE)


@given(st.text(max_size=30))
def test_whatever_a_model_is_named_the_page_stays_whole(text: str) -> None:
    assert read(shown("bundle", f"name {text}")).tags == read(shown("bundle")).tags


@pytest.mark.parametrize("kind", ["acceptance", "bundle"])
def test_the_page_asks_for_nothing_and_runs_nothing(kind: str) -> None:
    text = shown(kind)
    reader = read(text)
    assert not {"script", "img", "link", "iframe", "object", "form", "a", "base"} & set(reader.tags)
    names = {name for name, _ in reader.attributes}
    assert not {name for name in names if name.startswith("on")}
    assert not {"src", "href", "srcset", "action", "style"} & names
    assert not re.search(r"https?:|//[a-z]|url\(|@import", text)
    assert "default-src 'none'" in text


def test_an_appliance_that_does_not_answer_has_a_page_too() -> None:
    bare = {"answers": False, "trouble": "nobody answers", "versions": {"appliance": "0.1.0"}}
    text = page(make_report("bundle", "2026-11-23T01:02:03+00:00", {}, bare))
    assert "nobody answers" in read(text).text


def test_the_demos_speeds_do_not_stand_beside_those_of_boxes() -> None:
    boxes = read(shown()).text
    assert "not comparable" not in boxes
    demo = {**evidence()["status"], "profile": "demo"}
    assert "not comparable" in read(shown(status=demo)).text


def test_nothing_planted_reaches_the_page() -> None:
    planted = ("k3y-of-the-box", "spark-7f3a", "alice", "192.168.17.23", "de:ad:be:ef:00:17")
    who = Who(secrets=planted[:1], hosts=planted[1:2], users=planted[2:3])
    text = " then ".join((*planted, "/home/alice/x", "http://spark-7f3a:9000"))
    tree = make_report("acceptance", "2026-11-23T01:02:03+00:00", outcomes(text), evidence(text))
    seen = page(tree)
    assert all(canary in seen for canary in planted)  # it would be there, were it not hidden
    hidden = page(hide_all(tree, who))
    assert [canary for canary in planted if canary in hidden] == []


# ---- the charts


SIZES = st.integers(0, 2**40)


@given(st.lists(st.tuples(st.text(max_size=9), SIZES), max_size=12), SIZES, SIZES)
def test_the_memory_chart_is_drawn_for_any_plan(
    parts: list[tuple[str, int]], total: int, available: int
) -> None:
    rows = [{"name": name, "bytes": size} for name, size in parts]
    host = {"MemTotal": total, "MemAvailable": min(total, available)}
    _inside(memory_bars(rows, host))


@given(st.lists(st.lists(st.tuples(st.floats(0, 1e4), SIZES), max_size=5), max_size=6))
def test_the_timeline_is_drawn_for_any_run(steps: list[list[tuple[float, int]]]) -> None:
    told = [
        {"step": "x", "title": "X", "from_s": n * 10.0, "to_s": n * 10.0 + 10,
         "points": sorted((n * 10 + at % 10, size) for at, size in points)}
        for n, points in enumerate(steps)
    ]  # fmt: skip
    _inside(timeline(told, {"stop": 6 * GIB}))


@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)), max_size=6))
def test_bars_are_drawn_for_any_values(values: list[tuple[float, float]]) -> None:
    rows = [Bar("one", min(pair), max(pair), "1", "note") for pair in values]
    _inside(bars("title", rows, (5.0, "floor")))


def _inside(svg: str) -> None:
    reader = read(svg)
    for name, value in reader.attributes:
        if name in ("x", "width", "x1", "x2", "cx"):
            assert -1 <= float(value or 0) <= 721, (name, value)
        if name in ("height", "y", "y1", "y2", "cy"):
            assert float(value or 0) >= -1, (name, value)


def test_the_samples_of_a_run_go_on_where_the_last_step_ended() -> None:
    rows = samples(outcomes())
    assert [row["from_s"] for row in rows] == [2.0 * n for n in range(len(STEPS))]
    ats = [at for row in rows for at, _ in row["points"]]
    assert ats == sorted(ats)
