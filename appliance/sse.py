"""Server-sent events as bytes: cut a stream into whole events, and read one's data. Pure."""


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


def _end_of_event(buffer: bytes, start: int) -> int:
    """Return the index after the next blank line, or 0 when there is none yet."""
    ends = []
    for mark in (b"\n\n", b"\r\n\r\n"):
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
