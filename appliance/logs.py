"""The appliance's own log, and the engine's last lines."""

import logging
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import structlog

from appliance.diagnosis import redact


@dataclass(frozen=True)
class LogLine:
    """One line of the engine: a running number, and its redacted text."""

    number: int
    text: str


class EngineLog:
    """The engine's last ``capacity`` lines, redacted as they come in."""

    def __init__(self, capacity: int = 2000) -> None:
        self._lines: deque[LogLine] = deque(maxlen=capacity)
        self.count = 0
        self._listeners: list[Callable[[LogLine], None]] = []
        self.secrets: Sequence[str] = ()

    def append(self, text: str) -> LogLine:
        """Keep ``text``, redacted, and tell the listeners."""
        self.count += 1
        line = LogLine(self.count, redact(text.rstrip(), self.secrets))
        self._lines.append(line)
        for listener in list(self._listeners):
            listener(line)
        return line

    def tail(self, count: int, after: int = 0) -> list[LogLine]:
        """Return at most ``count`` of the last lines whose number is greater than ``after``."""
        fresh = [line for line in self._lines if line.number > after]
        return fresh[-count:] if count > 0 else []

    def listen(self, listener: Callable[[LogLine], None]) -> Callable[[], None]:
        """Call ``listener`` for each new line; return how to stop that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)


class _UnfinishedReply(logging.Filter):
    """Drop uvicorn's complaint about a reply that we broke off on purpose."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "without completing response" not in record.getMessage()


def configure(log_format: str, file: TextIO = sys.stderr) -> None:
    """Send one line per event to ``file``: readable on a terminal, or JSON for machines."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=file.isatty(), pad_event_to=24)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks if log_format == "json" else _keep,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(file),
        cache_logger_on_first_use=True,
    )
    # uvicorn's own lines: only what goes wrong; requests are logged by the relay, with keys
    logging.basicConfig(
        format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING, stream=file
    )
    logging.getLogger("uvicorn.error").addFilter(_UnfinishedReply())


def _keep(_logger: Any, _method: str, event: Any) -> Any:
    return event
