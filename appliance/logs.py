"""The appliance's own log, and the engine's last lines."""

import logging
import re
import sys
import time
from collections import deque
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, TextIO

import structlog
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer

from appliance.diagnosis import known_words
from appliance.listeners import Listeners
from appliance.redaction import RedactionGate


@dataclass(frozen=True)
class LogLine:
    """One line of the engine: a running number, and its redacted text."""

    number: int
    text: str


class EngineLog:
    """The engine's last ``capacity`` lines, as ``gate`` lets them through."""

    def __init__(self, capacity: int = 2000) -> None:
        self.gate = RedactionGate(known=known_words)
        self._lines: deque[LogLine] = deque(maxlen=capacity)
        self.count = 0
        self._listeners = Listeners[LogLine]()

    def append(self, text: str) -> LogLine:
        """Keep ``text``, redacted, and tell the listeners."""
        self.count += 1
        line = LogLine(self.count, self.gate.pass_line(text.rstrip()))
        self._lines.append(line)
        self._listeners.tell(line)
        return line

    def tail(self, count: int, after: int = 0) -> list[LogLine]:
        """Return at most ``count`` of the last lines whose number is greater than ``after``."""
        fresh = [line for line in self._lines if line.number > after]
        return fresh[-count:] if count > 0 else []

    def listen(self, listener: Callable[[LogLine], None]) -> Callable[[], None]:
        """Call ``listener`` for each new line; return how to stop that."""
        return self._listeners.add(listener)


class _UnfinishedReply(logging.Filter):
    """Drop uvicorn's complaint about a reply that we broke off on purpose."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "without completing response" not in record.getMessage()


# structlog's own dict_tracebacks shows each frame's variables: a prompt may be among them.
_TRACEBACKS = ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


EVENT_WIDTH = 24
_BEYOND_PLAIN = frozenset({"exc_info", "exception", "stack", "stack_info", "logger", "logger_name"})
_ASKS_FOR_QUOTES = re.compile(r"""[ \t=\r\n"']""")


class Stamp:
    """Adds the time in UTC, in ISO 8601; what stands before the dot is made once a second."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._second = -1
        self._text = ""

    def __call__(
        self, _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Add ``timestamp`` to an event."""
        now = self._clock()
        second = int(now)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        event["timestamp"] = f"{self._text}.{int((now - second) * 1e6):06d}Z"
        return event


class PlainRenderer:
    """What ConsoleRenderer says without colours, for a thirtieth of its cost.

    One line a request is the largest part of what a request costs otherwise. A line with a
    traceback is left to ``full``.
    """

    def __init__(self, full: structlog.dev.ConsoleRenderer) -> None:
        self._full = full

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        """Return the line of one event."""
        if not _BEYOND_PLAIN.isdisjoint(event):
            return self._full(logger, method, event)
        when, level = event.pop("timestamp"), event.pop("level")
        name = event.pop("event")
        words = [f"{key}={_word(event[key])}" for key in sorted(event)]
        return f"{when} [{level:<9}] {name:<{EVENT_WIDTH}} " + " ".join(words)


def _word(value: object) -> str:
    if type(value) is str:
        return repr(value) if _ASKS_FOR_QUOTES.search(value) else value
    return repr(value)


def configure(log_format: str, file: TextIO = sys.stderr) -> None:
    """Send one line per event to ``file``: readable on a terminal, or JSON for machines."""
    console = structlog.dev.ConsoleRenderer(
        colors=file.isatty(),
        pad_event_to=EVENT_WIDTH,
        # the default draws each frame's variables: a prompt may be among them
        exception_formatter=structlog.dev.plain_traceback,
    )
    renderer: Any = console if file.isatty() else PlainRenderer(console)
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            Stamp(time.time),
            _TRACEBACKS if log_format == "json" else _keep,
            renderer,
        ],
        logger_factory=structlog.WriteLoggerFactory(file),
        cache_logger_on_first_use=True,
    )
    # uvicorn's own lines: only what goes wrong; requests are logged by the relay, with keys
    logging.basicConfig(
        format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING, stream=file
    )
    logging.getLogger("uvicorn.error").addFilter(_UnfinishedReply())


def _keep(_logger: Any, _method: str, event: Any) -> Any:
    return event
