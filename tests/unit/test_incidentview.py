"""What ``appliance incidents`` prints reads well, whole, and harms no terminal."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.incidents import Incident, IncidentPlan
from appliance.incidentview import NO_INCIDENT, Fields, print_incident, print_incidents
from appliance.plaintext import plain

INCIDENT = Incident(
    id="20261123T041500-3",
    at="2026-11-23T04:15:00.123Z",
    spawn=3,
    state="starting",
    code="out_of_memory",
    grade="memory",
    what="the engine ended while loading (exit code 0): memory ran out",
    hint="lower APPLIANCE_MAX_MODEL_LEN",
    phase="loading 37 %",
    uptime_s=212.4,
    exit="exit code 0",
    next="restart in 30 s",
    memory={
        "before": {"MemTotal": 128 * 2**30, "MemAvailable": 100 * 2**30},
        "after": {"MemTotal": 128 * 2**30, "MemFree": 2**30},
    },
    plan=IncidentPlan(("vllm", "serve", "/models/My Model"), {"B": "two words", "A": "1"}),
    requests_running=2,
    requests_waiting=5,
    lines=("INFO loading [shard] 1", "ERROR CUDA out of memory"),
    stacks={"12 VLLM::EngineCor": "Thread 0x1\n  File core.py"},
    metrics={"tokens": 1234567.0, "kv_cache_use": None},
)
NARROW = 60


@pytest.fixture(autouse=True)
def narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which nothing fits."""
    monkeypatch.setenv("COLUMNS", str(NARROW))


def fields(incident: Incident = INCIDENT, **changes: object) -> Fields:
    """Return an incident as the control API hands it over."""
    whole: dict[str, object] = msgspec.json.decode(msgspec.json.encode(incident))
    return {**whole, **changes}


def listed(capsys: pytest.CaptureFixture[str], *incidents: Fields) -> str:
    print_incidents(incidents)
    return capsys.readouterr().out


def shown(capsys: pytest.CaptureFixture[str], incident: Fields) -> str:
    print_incident(incident)
    return capsys.readouterr().out


def test_a_quiet_night_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys) == NO_INCIDENT + "\n"


def test_the_list_has_a_row_for_each_in_the_order_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = listed(capsys, fields(id="20261123T041500-3"), fields(id="20261122T000000-1"))
    head, first, what, *_ = out.splitlines()
    assert head.split() == ["id", "when", "code", "next"]
    cells = ("20261123T041500-3", "2026-11-23 04:15:00 UTC", "out_of_memory", "restart in 30 s")
    assert first == "  ".join(cells)
    assert what.strip() == INCIDENT.what
    assert out.index("20261123T041500-3") < out.index("20261122T000000-1")
    assert "appliance incidents show ID" in out.splitlines()[-1]


def test_the_columns_stand_under_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    out = listed(capsys, fields(next="A", code="x"), fields(next="B"), fields(next="C", id="1-2"))
    head, *rest = out.splitlines()
    for row, letter in zip(rest[0:6:2], "ABC", strict=True):
        assert row.rindex(letter) == head.index("next")


def test_one_incident_is_shown_with_all_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, fields())
    for text in (
        *(INCIDENT.id, INCIDENT.what, INCIDENT.hint, INCIDENT.next, INCIDENT.exit),
        *("2026-11-23 04:15:00 UTC", "out_of_memory (memory)", "starting, loading 37 %"),
        *("spawn 3, up 3 min", "2 running, 5 waiting", "1.23457e+06"),
        *("A=1 \\", "B='two words' \\", "vllm serve '/models/My Model'"),
        *("stacks of 12 VLLM::EngineCor", "  |   File core.py", "INFO loading [shard] 1"),
    ):
        assert text in out


def test_the_log_comes_last(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, fields())
    assert out.splitlines()[-1] == "  | ERROR CUDA out of memory"


def test_memory_stands_before_and_after_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line.split() for line in shown(capsys, fields()).splitlines()]
    assert ["before", "after"] in rows
    assert ["MemTotal", "128.0", "GiB", "128.0", "GiB"] in rows
    assert ["MemAvailable", "100.0", "GiB", "-"] in rows
    assert ["MemFree", "-", "1.0", "GiB"] in rows


def test_an_incident_of_few_words_has_no_empty_rows(capsys: pytest.CaptureFixture[str]) -> None:
    bare = Incident(id="20261123T041500-3", at="", spawn=1, state="", code="", grade="", what="")
    out = shown(capsys, fields(bare))
    for heading in ("memory", "metrics", "plan", "stacks", "type next", "exit"):
        assert heading not in out
    assert out.endswith("the engine had said nothing\n")


def test_what_another_version_left_out_is_no_crash(capsys: pytest.CaptureFixture[str]) -> None:
    assert "20261123T041500-3" in shown(capsys, {"id": "20261123T041500-3"})
    assert "20261123T041500-3" in listed(capsys, {"id": "20261123T041500-3"})
    shown(capsys, {"plan": None, "memory": None, "stacks": None, "lines": None, "metrics": None})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7260, "2 h 1 min")],
)
def test_a_length_reads_as_people_say_it(
    capsys: pytest.CaptureFixture[str], seconds: float, text: str
) -> None:
    assert f"spawn 3, up {text}\n" in shown(capsys, fields(uptime_s=seconds))


def test_an_engines_line_commands_no_terminal_and_is_no_markup(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = "\x1b]0;title\x07\x1b[2J[bold]loud[/bold]\tend\r"
    out = shown(capsys, fields(lines=[line], what=line, stacks={line: line}))
    assert not set(out) & {"\x1b", "\x07", "\r", "\t"}
    assert "[bold]loud[/bold]" in out


@given(text=st.text())
def test_whatever_is_shown_is_printable(text: str) -> None:
    assert all(char.isprintable() for char in plain(text))
