"""The engine's last lines, and the appliance's own log."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from appliance.logs import EngineLog, LogLine, PlainRenderer, Stamp, configure


def filled(*texts: str, capacity: int = 2000) -> EngineLog:
    log = EngineLog(capacity)
    for text in texts:
        log.append(text)
    return log


# ---- the engine's lines


@given(st.integers(0, 40), st.integers(1, 10), st.integers(-1, 50), st.integers(0, 50))
def test_the_tail_is_the_last_of_the_fresh_lines(
    lines: int, capacity: int, count: int, after: int
) -> None:
    log = filled(*map(str, range(1, lines + 1)), capacity=capacity)
    kept = range(max(1, lines - capacity + 1), lines + 1)
    fresh = [n for n in kept if n > after]
    expected = fresh[max(0, len(fresh) - max(count, 0)) :]
    assert log.tail(count, after) == [LogLine(n, str(n)) for n in expected]


def test_a_line_keeps_its_number_when_earlier_ones_are_dropped() -> None:
    assert filled("a", "b", "c", capacity=2).tail(5) == [LogLine(2, "b"), LogLine(3, "c")]


def test_a_line_is_redacted_before_anybody_sees_it() -> None:
    log = EngineLog()
    log.gate.secrets = ("spawn-key",)
    seen: list[LogLine] = []
    log.listen(seen.append)
    line = log.append("listening with spawn-key and api_key=other  \n")
    assert line.text == "listening with (hidden) and api_key=(hidden)"
    assert seen == [line] == log.tail(1)


def test_nobody_hears_what_the_gate_holds_back() -> None:
    log = EngineLog()
    log.gate.strict = True
    seen: list[LogLine] = []
    log.listen(seen.append)
    line = log.append("the words of a prompt")
    dead = log.append("RuntimeError: CUDA out of memory with the words of a prompt")
    assert (line.text, dead.text) == ("(hidden line)", "CUDA out of memory (hidden)")
    assert seen == [line, dead] == log.tail(2)
    assert log.count == 2


def test_a_listener_hears_until_it_stops() -> None:
    log = EngineLog()
    seen: list[str] = []
    stop = log.listen(lambda line: seen.append(line.text))
    log.append("one")
    stop()
    log.append("two")
    assert seen == ["one"]


def test_a_listener_may_stop_while_it_hears() -> None:
    log = EngineLog()
    seen: list[str] = []
    stops = [log.listen(lambda _line: stops[0]()), log.listen(lambda line: seen.append(line.text))]
    log.append("one")
    log.append("two")
    assert seen == ["one", "two"]


# ---- the appliance's own log


@pytest.fixture
def own_log() -> Iterator[io.StringIO]:
    """Log into a text; put everything back afterwards."""
    uvicorn = logging.getLogger("uvicorn.error")
    filters, root = list(uvicorn.filters), list(logging.getLogger().handlers)
    yield io.StringIO()
    uvicorn.filters[:] = filters
    logging.getLogger().handlers[:] = root
    structlog.reset_defaults()


def test_json_is_one_object_a_line(own_log: io.StringIO) -> None:
    configure("json", own_log)
    structlog.get_logger().info("engine.transition", to="ready", spawn=3)
    (line,) = own_log.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["level"], entry["to"]) == ("engine.transition", "info", "ready")
    assert entry["timestamp"].endswith("Z")


def test_json_holds_a_traceback_as_data(own_log: io.StringIO) -> None:
    configure("json", own_log)
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        structlog.get_logger().exception("relay.fault")
    (line,) = own_log.getvalue().splitlines()
    assert json.loads(line)["exception"][0]["exc_type"] == "ZeroDivisionError"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("own_log")
@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("file", [io.StringIO, Terminal])
def test_a_traceback_shows_no_variable_of_any_frame(
    log_format: str, file: type[io.StringIO]
) -> None:
    own_log = file()
    configure(log_format, own_log)
    prompt = "-".join(["the", "words", "of", "a", "prompt"])  # the source line must not hold it
    try:
        raise ZeroDivisionError(f"by {len(prompt)}")
    except ZeroDivisionError:
        structlog.get_logger().exception("relay.fault")
    assert "ZeroDivisionError" in own_log.getvalue()
    assert prompt not in own_log.getvalue()


def test_the_console_reads_in_one_line_without_colours_into_a_file(own_log: io.StringIO) -> None:
    configure("console", own_log)
    structlog.get_logger().warning("engine.transition", to="failed", what="two words")
    (line,) = own_log.getvalue().splitlines()
    assert "engine.transition" in line
    assert "to=failed what='two words'" in line
    assert "\x1b" not in line


@given(st.lists(st.floats(0, 4e9), min_size=1, max_size=5))
def test_a_stamp_is_the_time_of_its_event(moments: list[float]) -> None:
    stamp = Stamp(iter(moments).__next__)
    for moment in moments:
        told = datetime.fromisoformat(stamp(None, "info", {})["timestamp"])
        assert abs(told.timestamp() - moment) < 2e-6
        assert told.utcoffset() == timedelta(0)


KEYS = st.text("abcdez_", min_size=1, max_size=6)
VALUES = st.one_of(
    st.text(max_size=8), st.sampled_from(["a b", "a=b", 'a"b', ""]), st.integers(), st.none()
)
FULL = structlog.dev.ConsoleRenderer(colors=False, pad_event_to=24)


@given(st.text("abc.", max_size=30), st.dictionaries(KEYS, VALUES | st.floats() | st.lists(VALUES)))
def test_a_file_gets_what_a_terminal_shows_but_for_the_colours(
    name: str, values: dict[str, object]
) -> None:
    event = {"timestamp": "2026-11-22T10:00:00Z", "level": "info", "event": name, **values}
    said = PlainRenderer(FULL)(None, "info", dict(event))
    assert said.rstrip() == str(FULL(None, "info", dict(event))).rstrip()


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        ("ASGI callable returned without completing response.", False),
        ("Exception in ASGI application", True),
    ],
)
def test_a_reply_broken_off_on_purpose_is_no_complaint(
    own_log: io.StringIO, message: str, passes: bool
) -> None:
    configure("console", own_log)
    record = logging.LogRecord("uvicorn.error", logging.ERROR, "x", 1, message, (), None)
    assert bool(logging.getLogger("uvicorn.error").filter(record)) is passes
