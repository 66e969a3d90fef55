"""The guard of paths in a reply: a stream's events, or the whole of one. Pure.

Only a value that may be mended is held back, and only until it is closed; all else passes as it
came. Where something cannot be read, everything passes from there on.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from appliance.patharguments import Closed, Opened, Scanner, raw_offsets, spelled_like, unspelled
from appliance.pathguard import Judged, PathGuard, mended
from appliance.pathrepair import Action, Mode, Why
from appliance.pathwire import (
    MARKS,
    CallKey,
    Fragment,
    Unreadable,
    fragments,
    has_mark,
    is_finish,
    whole,
)
from appliance.sse import split_events

MOST_HELD = 2**18  # bytes that are held back for one value

Tell = Callable[[Judged], None]


@dataclass(slots=True)
class Edit:
    """A change of a fragment's text, from one offset to another."""

    start: int
    end: int
    text: str


@dataclass(slots=True)
class _Held:
    """An event that is held back, and what will be changed in it: edits by fragment."""

    event: bytes
    edits: list[tuple[Fragment, Edit]] = field(default_factory=list)


@dataclass(slots=True)
class _Call:
    """A call whose arguments come in pieces; ``pieces`` are those of a value that is held back.

    ``passed``: one had to pass before its end, so that the call stays as it came.
    """

    name: str
    scanner: Scanner = field(default_factory=Scanner)
    pieces: list[tuple[_Held, Fragment, int, int]] | None = None
    passed: bool = False


class PathFilter:
    """Guards the paths in one stream.

    ``on_open`` is called once, when the reply opens a tool call: then the ledger is to be read,
    and given to ``know``. ``tell`` is called for each glitch.
    """

    def __init__(
        self, route: str, mode: Mode, on_open: Callable[[], None], tell: Tell = lambda _: None
    ) -> None:
        self._route = route
        self._mode = mode
        self._on_open = on_open
        self._tell = tell
        self._guard: PathGuard | None = None
        self._is_open = False
        self._marks = MARKS.get(route, ())
        self._is_off = mode is Mode.OFF or not self._marks
        self._waiting: list[bytes] = []
        self._calls: dict[CallKey, _Call] = {}
        self._held: list[_Held] = []
        self._held_bytes = 0
        self._open_values = 0
        self._told = 0
        self.mended = 0

    @property
    def holds(self) -> bool:
        """Whether some events are held back."""
        return bool(self._held or (self._waiting and self._mode.mends))

    def apply(self, events: bytes) -> bytes:
        """Take whole events; return those that may pass now, nothing while some are held."""
        if not self._is_open:  # as for each chunk of text
            for mark in self._marks:
                if events.find(mark) >= 0:
                    break
            else:
                return events
        if self._is_off:
            return events
        if self._guard is None:
            return self._wait(events)
        if not self._held and not has_mark(self._route, events):
            return events
        return self._read(events)

    def know(self, guard: PathGuard) -> bytes:
        """Take the guard, that knows the ledger now; return the events that waited for it."""
        self._guard = guard
        waited, self._waiting = b"".join(self._waiting), []
        passed = self._read(waited) if waited else b""
        return passed if self._mode.mends else b""

    def rest(self) -> bytes:
        """Return what is held back still, as it came: the stream has ended."""
        waiting = self._waiting if self._mode.mends else []
        held = [_edited(one.event, one.edits) for one in self._held]
        self._waiting, self._held, self._is_off = [], [], True
        return b"".join([*held, *waiting])

    def close(self) -> None:
        """Let go of who was to be called: it holds us, and neither would be freed."""
        self._on_open = _nothing

    def _wait(self, events: bytes) -> bytes:
        if not self._is_open:
            try:
                found = [one for e in split_events(events) for one in fragments(self._route, e)]
            except Unreadable:
                self._is_off = True
                return events
            if not found:
                return events
            self._is_open = True
            self._on_open()
            if self._guard is not None:
                return self._read(events)
        self._waiting.append(events)
        return b"" if self._mode.mends else events

    def _read(self, events: bytes) -> bytes:
        passed: list[bytes] = []
        for event in split_events(events):
            passed.append(self._read_event(event))
        whole_events = b"".join(passed)
        return events if not self._mode.mends or whole_events == events else whole_events

    def _read_event(self, event: bytes) -> bytes:
        if self._is_off:
            return event
        held = _Held(event)
        self._held.append(held)
        self._held_bytes += len(event)
        try:
            found = fragments(self._route, event) if has_mark(self._route, event) else []
        except Unreadable:
            return self.rest()
        for one in found:
            self._take(held, one)
        finished = is_finish(self._route, event)
        if finished or self._held_bytes > MOST_HELD:
            self._give_up()
        if self._open_values:
            return b""
        passed = [_edited(one.event, one.edits) for one in self._held]
        self._held, self._held_bytes = [], 0
        if finished and self.mended > self._told:
            self._told = self.mended
            passed[-1] = with_count(passed[-1], self.mended)
        return b"".join(passed)

    def _give_up(self) -> None:
        """Hold back no longer: what is open will not be closed."""
        for call in self._calls.values():
            call.passed = call.passed or call.pieces is not None
            call.pieces = None
        self._open_values = 0

    def _take(self, held: _Held, one: Fragment) -> None:
        known = self._calls.get(one.call)
        if one.is_whole:
            # A stream tells the whole once more behind the pieces: it is changed in the same way.
            name = one.name or (known.name if known else "")
            tell = self._tell if known is None else _nobody
            edits = self._judge_whole(name, one, tell, counts=known is None)
            if known is not None and known.passed:
                return
            held.edits += [(one, edit) for edit in edits]
            self._calls.setdefault(one.call, _Call(name))
            return
        if known is None:
            known = self._calls[one.call] = _Call(one.name)
        known.name = known.name or one.name
        if one.text:
            self._scan(held, known, one)

    def _scan(self, held: _Held, call: _Call, one: Fragment) -> None:
        base, begin = call.scanner.at, 0
        for mark in call.scanner.feed(one.text):
            if isinstance(mark, Opened):
                if self._guard is not None and self._guard.may_mend(call.name, mark.key):
                    call.pieces, begin = [], mark.at - base
                    self._open_values += 1
                continue
            pieces, call.pieces = call.pieces, None
            if pieces is not None:
                self._open_values -= 1
                pieces.append((held, one, begin, mark.at - base))
            meant = self._judge(call.name, mark, self._tell if pieces else self._tell_left)
            if meant is not None and pieces is not None:
                self.mended += 1
                _put(pieces, meant)
        if call.pieces is not None:
            call.pieces.append((held, one, begin, len(one.text)))

    def _tell_left(self, judged: Judged) -> None:
        """Tell of a glitch in a value that was not held back to its end."""
        found = judged.finding
        if found.action is Action.MENDED:
            found = replace(found, action=Action.LEFT, why=Why.PASSED)
        self._tell(replace(judged, finding=found))

    def _judge(self, name: str, value: Closed, tell: Tell) -> str | None:
        """Return what is to be spelled in the place of a value, None if it stays."""
        text = None if value.spelled is None else unspelled(value.spelled)
        if self._guard is None or not text:
            return None
        judged = self._guard.check(name, value.key, text)
        for one in judged:
            tell(one)
        meant = mended(text, judged)
        return None if meant is None else spelled_like(meant, value.spelled or "")

    def _judge_whole(
        self, name: str, one: Fragment, tell: Tell, *, counts: bool = True
    ) -> list[Edit]:
        edits: list[Edit] = []
        start = 0
        for mark in Scanner().feed(one.text):
            if isinstance(mark, Opened):
                start = mark.at
            elif (meant := self._judge(name, mark, tell)) is not None:
                edits.append(Edit(start, mark.at, meant))
        self.mended += len(edits) if counts else 0
        return edits

    def mend_whole(self, body: bytes, guard: PathGuard) -> bytes:
        """Return a reply that is no stream, its paths mended as far as may be."""
        self._guard = guard
        try:
            found = whole(self._route, body) if not self._is_off else []
        except Unreadable:
            return body
        judged = ((one, self._judge_whole(one.name, one, self._tell)) for one in found)
        edits = [(one, edit) for one, some in judged for edit in some]
        return with_count(_edited(body, edits), self.mended) if edits else body


def opens_call(route: str, body: bytes) -> bool:
    """Tell whether a reply that is no stream may hold a tool call."""
    return route in MARKS and has_mark(route, body)


def _nothing() -> None:
    """Call nobody."""


def _nobody(_judged: Judged) -> None:
    """Tell nobody: it was told before."""


def _put(pieces: list[tuple[_Held, Fragment, int, int]], meant: str) -> None:
    """Put a value's new spelling in the place of its pieces: all of it where it begins."""
    for held, one, start, end in pieces:
        held.edits.append((one, Edit(start, end, meant)))
        meant = ""


def _edited(data: bytes, edits: list[tuple[Fragment, Edit]]) -> bytes:
    """Return an event or a reply with the changes made, and no other byte touched."""
    changed: dict[Fragment, list[Edit]] = {}
    for one, edit in edits:
        changed.setdefault(one, []).append(edit)
    for one in sorted(changed, key=lambda fragment: fragment.start, reverse=True):
        spelled = data[one.start : one.end].decode()
        some = sorted(changed[one], key=lambda edit: edit.start)
        places = [place for edit in some for place in (edit.start, edit.end)]
        if one.is_text:
            places = raw_offsets(spelled, places)
        new, at = "", 0
        for edit, start, end in zip(some, places[::2], places[1::2], strict=True):
            new += spelled[at:start] + (spelled_like(edit.text, "") if one.is_text else edit.text)
            at = end
        data = data[: one.start] + (new + spelled[at:]).encode() + data[one.end :]
    return data


def with_count(data: bytes, count: int) -> bytes:
    """Return an event or a reply that says how many of its paths were mended."""
    end = data.rfind(b"}")
    return b'%b,"unglitched":{"paths_mended":%d}%b' % (data[:end], count, data[end:])
