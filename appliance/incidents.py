"""The last incidents, for the morning after: a bounded file each, newest kept.

An incident holds plain values, redacted before they come here. Each part has its share of the
file, so that none can push out the others; the log's excerpt takes what is left.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from appliance.listeners import Listeners
from appliance.statefile import to_json, write_private

T = TypeVar("T")
log = structlog.get_logger()

KEEP = 5
LIMIT_BYTES = 256 * 1024
LINE_CHARS = 2000
_WORD_CHARS = 200
_STACKS_BYTES = 128 * 1024
_STACKS_COUNT = 32
_PLAN_BYTES = 32 * 1024
_NUMBERS_BYTES = 8 * 1024
_CUT = "(cut)\n"
_WORDS = ("at", "state", "code", "grade", "phase", "exit")
_TEXTS = ("what", "hint", "next")
_ID = re.compile(r"([0-9]{8}T[0-9]{6})-([0-9]{1,18})")
_UNREADABLE = (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class IncidentPlan(msgspec.Struct, frozen=True):
    """What was executed: without keys, and without what was inherited."""

    argv: tuple[str, ...] = ()
    env: dict[str, str] = {}


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """One unwanted end of an engine, with what was known of it.

    ``at`` is UTC in ISO 8601; ``exit`` is "signal 9", "exit code 0" or ""; ``next`` is what the
    appliance did. ``memory`` has a row of the kernel's names in bytes for ``before`` and
    ``after``, and the plan's rows in ``plan``; ``stacks`` a text for each process; ``metrics`` a
    few numbers, None for NaN; ``processes`` the resident bytes of the machine's largest, where
    memory was short.
    """

    id: str
    at: str
    spawn: int
    state: str
    code: str
    grade: str
    what: str
    hint: str = ""
    phase: str = ""
    uptime_s: float = 0.0
    exit: str = ""
    next: str = ""
    memory: dict[str, dict[str, int]] = {}
    plan: IncidentPlan = IncidentPlan()
    requests_running: int = 0
    requests_waiting: int = 0
    lines: tuple[str, ...] = ()
    stacks: dict[str, str] = {}
    metrics: dict[str, float | None] = {}
    processes: dict[str, int] = {}


Incidents = list[Incident]
_Paths = list[Path]


def is_incident_id(text: str) -> bool:
    """Say whether ``text`` may name an incident: nothing else ever becomes part of a path."""
    return _ID.fullmatch(text) is not None


class IncidentStore:
    """The folder (0700) of the last ``keep`` incidents, a file (0600) each.

    It has one writer, the holder of the state folder. What cannot be read is not listed.
    """

    def __init__(self, folder: Path, keep: int = KEEP) -> None:
        self.folder = folder
        self.keep = keep
        self._said: set[int | None] = set()
        self._listeners = Listeners[Incident]()

    def listen(self, listener: Callable[[Incident], None]) -> Callable[[], None]:
        """Call ``listener`` with each incident that is kept; return how to stop that."""
        return self._listeners.add(listener)

    def new_id(self, at: datetime, spawn: int) -> str:
        """Return an id that sorts after all that are kept, even when the clock was set back.

        It is the moment in UTC and the spawn number; where that is not later than the newest,
        the newest's moment with a higher number.
        """
        key = (f"{at.astimezone(UTC):%Y%m%dT%H%M%S}", spawn)
        newest = max((_key(path.stem) for path in self._files()), default=("", 0))
        moment, number = key if key > newest else (newest[0], newest[1] + 1)
        return f"{moment}-{number}"

    def save(self, incident: Incident) -> str:
        """Keep ``incident``, delete the oldest; return "" or what went wrong.

        Raises ValueError when its id is none.
        """
        if not is_incident_id(incident.id):
            raise ValueError(f"{incident.id!r} is no incident id")
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            self.folder.chmod(0o700)
            write_private(self._path(incident.id), encode(incident))
            self._prune()
        except OSError as cause:
            what = f"the incident cannot be kept in {self.folder}: {cause.strerror}"
            if cause.errno not in self._said:
                self._said.add(cause.errno)
                log.warning("incident.not_written", what=what)
            return what
        self._listeners.tell(incident)
        return ""

    def list(self) -> Incidents:
        """Return what is kept, newest first. Never raises OSError."""
        found = (self.get(path.stem) for path in self._newest_first())
        return [incident for incident in found if incident is not None]

    def get(self, incident_id: str) -> Incident | None:
        """Return one incident; None when there is none of this id that can be read."""
        if not is_incident_id(incident_id):
            return None
        try:
            with self._path(incident_id).open("rb") as file:
                data = file.read(LIMIT_BYTES + 1)
            incident = msgspec.json.decode(data, type=Incident)
        except _UNREADABLE:
            return None
        is_whole = len(data) <= LIMIT_BYTES and incident.id == incident_id
        return incident if is_whole else None

    def _path(self, incident_id: str) -> Path:
        return self.folder / f"{incident_id}.json"

    def _files(self) -> Iterator[Path]:
        with suppress(OSError):
            for path in self.folder.iterdir():
                if path.suffix == ".json" and is_incident_id(path.stem):
                    yield path

    def _newest_first(self) -> _Paths:
        return sorted(self._files(), key=lambda path: _key(path.stem), reverse=True)

    def _prune(self) -> None:
        for path in self._newest_first()[self.keep :]:
            path.unlink(missing_ok=True)
        for left in self.folder.glob(".*.json.tmp"):  # of an appliance killed while it wrote
            left.unlink(missing_ok=True)


def _key(incident_id: str) -> tuple[str, int]:
    moment, _, number = incident_id.partition("-")
    return moment, int(number)


def encode(incident: Incident) -> bytes:
    """Return the incident as JSON of at most ``LIMIT_BYTES``: what is too long is cut."""
    bare = _without_lines(incident)
    room = LIMIT_BYTES - len(to_json(bare))
    kept: list[str] = []
    for line in reversed(incident.lines):
        text = _head(line, LINE_CHARS)
        room -= len(to_json(text)) + 1  # its comma
        if room < 0:
            break
        kept.append(text)
    return to_json(msgspec.structs.replace(bare, lines=tuple(reversed(kept))))


def _without_lines(incident: Incident) -> Incident:
    words = {name: _head(getattr(incident, name), _WORD_CHARS) for name in _WORDS}
    texts = {name: _head(getattr(incident, name), LINE_CHARS) for name in _TEXTS}
    return msgspec.structs.replace(
        incident,
        **words,
        **texts,
        lines=(),
        stacks=_bounded_stacks(incident.stacks),
        plan=_fitting(incident.plan, _PLAN_BYTES, IncidentPlan(("(too long to keep)",))),
        memory=_fitting(incident.memory, _NUMBERS_BYTES, {}),
        metrics=_fitting(incident.metrics, _NUMBERS_BYTES, {}),
        processes=_fitting(incident.processes, _NUMBERS_BYTES, {}),
    )


def _bounded_stacks(stacks: dict[str, str]) -> dict[str, str]:
    some = list(stacks.items())[:_STACKS_COUNT]
    share = _STACKS_BYTES // max(len(some), 1)
    named = ((_head(name, _WORD_CHARS), text) for name, text in some)
    # the colon and the comma are part of the share
    return {name: _tail(text, share - len(to_json(name)) - 2) for name, text in named}


def _fitting(value: T, size_bytes: int, otherwise: T) -> T:
    return value if len(to_json(value)) <= size_bytes else otherwise


def _head(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "…"


def _tail(text: str, size_bytes: int) -> str:
    """Return the end of ``text`` that fits as JSON: the main thread stands last in its stacks."""
    if len(to_json(text)) <= size_bytes:
        return text
    # No character takes less than a byte; how much more, only writing it tells.
    cut = text[-size_bytes:]
    while len(to_json(_CUT + cut)) > size_bytes:
        cut = cut[len(cut) // 8 + 1 :]
    return _CUT + cut
