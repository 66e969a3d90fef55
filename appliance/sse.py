"""Server-sent events as bytes: cut a stream into whole events, and read one's data. Pure."""

_BLANK_LINES = (b"\n\n", b"\r\n\r\n")


class EventSplitter:
    """Cuts a byte stream, in any chunking, into whole events with their blank line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events that ``data`` completes, each with its terminator."""
        buffer = self._rest + data
        events = []
        start = 0
        while (end := _end_of_event(buffer, start)) > 0:
            events.append(buffer[start:end])
            start = end
        self._rest = buffer[start:]
        return events

    def rest(self) -> bytes:
        """Return what came after the last whole event."""
        rest, self._rest = self._rest, b""
        return rest


class Framer:
    """Passes a byte stream on, in any chunking, as far as its events are whole.

    What comes in whole events, as an engine writes them, passes as the object that it came in.
    """

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._tail = b""  # the last held bytes: a blank line may begin in them

    @property
    def holds(self) -> bool:
        """Whether an event has begun that is not whole yet."""
        return bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """Return the whole events that ``data`` completes, or nothing."""
        if not self._held and data.endswith((b"\n\n", b"\r\n\r\n")):
            return data
        self._held.append(data)
        seen = self._tail + data
        end = max(_after_last(seen, mark) for mark in _BLANK_LINES)
        if not end:
            self._tail = seen[-3:]
            return b""
        whole = b"".join(self._held)
        cut = len(whole) - (len(seen) - end)
        rest = whole[cut:]
        self._held = [rest] if rest else []
        self._tail = rest[-3:]
        return whole[:cut]

    def rest(self) -> bytes:
        """Return what came after the last whole event."""
        rest = b"".join(self._held)
        self._held, self._tail = [], b""
        return rest


def split_events(whole: bytes) -> list[bytes]:
    """Return the events of bytes that hold whole ones alone."""
    splitter = EventSplitter()
    events = splitter.feed(whole)
    rest = splitter.rest()
    return [*events, rest] if rest else events


def event_start(whole: bytes, at: int) -> int:
    """Return where the event begins that the byte at ``at`` stands in."""
    return max(_after_last(whole[:at], mark) for mark in _BLANK_LINES)


def _after_last(data: bytes, mark: bytes) -> int:
    found = data.rfind(mark)
    return found + len(mark) if found >= 0 else 0


def _end_of_event(buffer: bytes, start: int) -> int:
    """Return the index after the next blank line, or 0 when there is none yet."""
    ends = []
    for mark in _BLANK_LINES:
        found = buffer.find(mark, start)
        if found >= 0:
            ends.append(found + len(mark))
    return min(ends, default=0)


def event_data(event: bytes) -> bytes:
    """Return an event's data: its ``data:`` lines, joined with newlines."""
    lines = []
    for line in event.splitlines():
        if line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))
    return b"\n".join(lines)


def with_data(event: bytes, data: bytes) -> bytes:
    """Return ``event`` with its data replaced, its other fields kept. ``data`` is one line."""
    other = [line for line in event.splitlines() if line and not line.startswith(b"data:")]
    return b"\n".join([*other, b"data: " + data]) + b"\n\n"
