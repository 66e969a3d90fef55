"""The control API: what an operator sees of the appliance and tells it, for CLI and console.

Under ``/appliance/v1``: ``GET status``, ``GET plan``, ``GET logs``, ``GET events`` (a stream),
``GET incidents``, ``GET incidents/ID``, and ``POST`` of ``start``, ``stop``, ``drain``,
``restart``, ``reset``.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from appliance import __version__
from appliance.admission import Gate
from appliance.engine import Engine, Request, Snapshot
from appliance.enginefacts import EngineFacts
from appliance.errors import RequestError
from appliance.incidents import IncidentStore
from appliance.keys import Access
from appliance.logs import LogLine
from appliance.openai import CONTROL_PREFIX
from appliance.settings import Settings

VERBS = (Request.START, Request.STOP, Request.DRAIN, Request.RESTART, Request.RESET)
HEARTBEAT_S = 15.0
RETRY_AFTER_S = 5


def health_json(snapshot: Snapshot, access: Access) -> dict[str, Any]:
    """Return the engine's health, as much of it as ``access`` may see.

    Anybody sees state, progress and reason code. The values behind a reason (paths, the
    engine's words) are for key holders.
    """
    health: dict[str, Any] = {
        "status": "ready" if is_admitting(snapshot) else "not_ready",
        "state": snapshot.state,
        "reason": snapshot.reason.code,
        "since": _iso(snapshot.since),
        "spawn": snapshot.spawn,
        "phase": snapshot.progress or None,
        "progress": snapshot.fraction,
        "degraded": list(snapshot.degraded),
        "next": snapshot.next or None,
        "next_at": _iso(snapshot.next_at),
    }
    if access >= Access.CLIENT:
        health["message"] = snapshot.reason.what or None
        health["hint"] = snapshot.reason.hint or None
        health["memory"] = snapshot.memory
    if access >= Access.OPERATOR:
        health["last_lines"] = list(snapshot.last_lines)
    return health


def is_admitting(snapshot: Snapshot) -> bool:
    """Tell whether a request would be let in: an engine that serves, and memory for it."""
    return snapshot.is_ready and not snapshot.is_short


def _iso(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Control:
    """The control API over one engine.

    ``incidents`` is None where nobody keeps any, ``build`` (what the engine was made from) where
    the engine is somebody else's.
    """

    engine: Engine
    gate: Gate
    settings: Settings
    incidents: IncidentStore | None = None
    build: EngineFacts | None = None
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self) -> None:
        """End every event stream: the appliance ends, and must not wait for its watchers."""
        self._ended.set()

    def health(self, access: Access) -> dict[str, Any]:
        """Return what ``/health`` tells a client of this access."""
        health = health_json(self.engine.snapshot, access)
        if access >= Access.CLIENT:
            health["engine_build"] = self.build.as_json() if self.build else None
        return health

    def status(self) -> dict[str, Any]:
        """Return everything that ``appliance status`` shows."""
        snapshot = self.engine.snapshot
        return {
            **self.health(Access.OPERATOR),
            "version": __version__,
            "profile": self.settings.profile,
            "model": self.settings.served_model_name,
            "engine": self.settings.engine,
            "max_model_len": snapshot.max_model_len,
            "safer_plans": snapshot.rung,
            "expected_s": round(self.engine.expected_s(), 1),
            "requests": {
                "running": self.gate.running,
                "waiting": self.gate.waiting,
                "places": self.settings.max_num_seqs,
                "by_key": {
                    key: {"running": running, "waiting": waiting}
                    for key, (running, waiting) in self.gate.by_key().items()
                },
            },
        }

    def plan(self) -> dict[str, Any]:
        """Return the current spawn's command, without its key."""
        plan = self.engine.plan
        command = None if plan is None else {"argv": list(plan.argv), "env": plan.own_env()}
        settings = self.settings.model_dump(mode="json")
        return {"settings": settings, "command": command}

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter(prefix=CONTROL_PREFIX)
        router.add_api_route("/status", self._status, methods=["GET"])
        router.add_api_route("/plan", self._plan, methods=["GET"])
        router.add_api_route("/logs", self._logs, methods=["GET"])
        router.add_api_route("/events", self._events, methods=["GET"], response_model=None)
        router.add_api_route("/incidents", self._incidents, methods=["GET"])
        router.add_api_route("/incidents/{incident}", self._incident, methods=["GET"])
        for verb in VERBS:
            router.add_api_route(f"/{verb}", self._verb(verb), methods=["POST"], status_code=202)
        return router

    async def _status(self) -> dict[str, Any]:
        return self.status()

    async def _plan(self) -> dict[str, Any]:
        return self.plan()

    async def _logs(
        self,
        lines: Annotated[int, Query(ge=1, le=2000)] = 100,
        after: Annotated[int, Query(ge=0)] = 0,
    ) -> dict[str, Any]:
        return {"lines": [asdict(line) for line in self.engine.log.tail(lines, after)]}

    def _verb(self, verb: Request) -> Callable[[], Awaitable[dict[str, Any]]]:
        async def change() -> dict[str, Any]:
            self.engine.request(verb)
            return {"accepted": verb.value, **self.status()}

        return change

    async def _incidents(self) -> dict[str, Any]:
        kept = await asyncio.to_thread(self.incidents.list) if self.incidents else []
        return {"incidents": [msgspec.to_builtins(incident) for incident in kept]}

    async def _incident(self, incident: str) -> dict[str, Any]:
        found = await asyncio.to_thread(self.incidents.get, incident) if self.incidents else None
        if found is None:
            raise RequestError(
                404, "no_such_incident", f"no incident {incident!r} is kept", "appliance incidents"
            )
        told: dict[str, Any] = msgspec.to_builtins(found)
        return told

    async def _events(self) -> StreamingResponse:
        return StreamingResponse(
            self._event_stream(),
            media_type="text/event-stream",
            headers={"x-accel-buffering": "no", "cache-control": "no-cache"},
        )

    async def _event_stream(self) -> AsyncIterator[bytes]:
        """Yield ``status`` events on each change and ``log`` events for engine lines."""
        # A slow reader loses the oldest; it never makes the appliance keep them for it.
        queue: asyncio.Queue[tuple[str, Any]] = asyncio.Queue(maxsize=1000)

        def put(kind: str, value: Any) -> None:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait((kind, value))

        def on_change(_snapshot: Snapshot) -> None:
            put("status", self.status())

        def on_line(line: LogLine) -> None:
            put("log", asdict(line))

        stops = [self.engine.listen(on_change), self.engine.log.listen(on_line)]
        ended = asyncio.create_task(self._ended.wait())
        ended.add_done_callback(lambda _task: put("end", None))
        try:
            yield _event("status", self.status())
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        kind, value = await queue.get()
                except TimeoutError:
                    yield b": alive\n\n"
                    continue
                if kind == "end":
                    return
                yield _event(kind, value)
        finally:
            ended.cancel()
            for stop in stops:
                stop()


def _event(kind: str, value: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + msgspec.json.encode(value) + b"\n\n"
