"""What is told to all who watch, as server-sent events: made once, however many they are.

``status`` (as ``GET status``) at once and on each change; ``log`` for each line of the engine;
``figures`` (see ``livefigures``) once a second; ``incident`` (without its lines and stacks) when
one is kept. Nobody watches: nothing is listened to, sampled or made.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from appliance.engine import Engine, Snapshot
from appliance.incidents import Incident, IncidentStore
from appliance.livefigures import EVERY_S, LiveFigures
from appliance.logs import LogLine

MOST_UNREAD = 1000
_INCIDENT = ("id", "at", "spawn", "state", "code", "grade", "what", "hint", "exit", "next")


@dataclass(eq=False)
class _Watcher:
    """One who reads: what is not read yet, the oldest lost first; None is the end."""

    wants_log: bool
    unread: asyncio.Queue[bytes | None] = field(
        default_factory=lambda: asyncio.Queue(maxsize=MOST_UNREAD)
    )

    def put(self, event: bytes | None) -> None:
        # A slow reader loses the oldest; it never makes the appliance keep them for it.
        if self.unread.full():
            self.unread.get_nowait()
        self.unread.put_nowait(event)


class EventStream:
    """The one source of events; ``follow`` is one watcher's part of it."""

    def __init__(
        self,
        engine: Engine,
        status: Callable[[], dict[str, Any]],
        figures: LiveFigures,
        incidents: IncidentStore | None,
    ) -> None:
        self._engine = engine
        self._status = status
        self._figures = figures
        self._incidents = incidents
        self._watchers: list[_Watcher] = []
        self._stops: list[Callable[[], object]] = []
        self._is_over = False

    def end(self) -> None:
        """End every stream: the appliance ends, and must not wait for its watchers."""
        self._is_over = True
        self.cut()

    def cut(self) -> None:
        """End the streams that are open: a key changed, and whoever may still watch comes back."""
        for watcher in self._watchers:
            watcher.put(None)

    async def follow(
        self, *, wants_log: bool, may_go_on: Callable[[], bool]
    ) -> AsyncIterator[bytes]:
        """Yield events until the end, or until ``may_go_on`` says no: it is asked before each."""
        watcher = _Watcher(wants_log)
        if self._is_over:
            return
        watcher.put(event_text("status", self._status()))
        self._add(watcher)
        try:
            while (event := await watcher.unread.get()) is not None and may_go_on():
                yield event
        finally:
            self._remove(watcher)

    def _add(self, watcher: _Watcher) -> None:
        self._watchers.append(watcher)
        if len(self._watchers) == 1:
            sampling = asyncio.create_task(self._sample())
            self._stops = [
                self._engine.listen(self._on_change),
                self._engine.log.listen(self._on_line),
                sampling.cancel,
            ]
            if self._incidents is not None:
                self._stops.append(self._incidents.listen(self._on_incident))

    def _remove(self, watcher: _Watcher) -> None:
        self._watchers.remove(watcher)
        if not self._watchers:
            for stop in self._stops:
                stop()
            self._stops = []

    def _tell(self, kind: str, value: Any) -> None:
        event = event_text(kind, value)
        for watcher in self._watchers:
            watcher.put(event)

    def _on_change(self, _snapshot: Snapshot) -> None:
        self._tell("status", self._status())

    def _on_line(self, line: LogLine) -> None:
        readers = [watcher for watcher in self._watchers if watcher.wants_log]
        if readers:
            event = event_text("log", asdict(line))
            for watcher in readers:
                watcher.put(event)

    def _on_incident(self, incident: Incident) -> None:
        self._tell("incident", {name: getattr(incident, name) for name in _INCIDENT})

    async def _sample(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            self._tell("figures", await self._figures.sample())
            await asyncio.sleep(max(EVERY_S / 4, began + EVERY_S - loop.time()))


def event_text(kind: str, value: Any) -> bytes:
    """Return one event as it goes over the wire."""
    return b"event: " + kind.encode() + b"\ndata: " + msgspec.json.encode(value) + b"\n\n"
