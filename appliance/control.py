"""The control API: what an operator sees of the appliance and tells it, for CLI and console.

Under ``/appliance/v1``: ``GET status``, ``plan``, ``logs``, ``budget`` (the memory plan beside
what was taken), ``kilo`` (Kilo Code's configuration, and what prints its key), ``incidents``,
``incidents/ID``, ``events`` (a stream, see ``eventstream``; ``?log=0`` leaves the engine's lines
out) and ``figures`` (what of the last five minutes was sampled for it: ``{"figures": [...],
"newest"}``); ``POST`` of ``start``, ``stop``, ``drain``, ``restart``, ``reset``. The log-in of
browsers is in ``loginroutes``.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse

from appliance import __version__
from appliance.admission import Gate
from appliance.browsers import may_go_on
from appliance.budgetjson import budget_json
from appliance.engine import Engine, Request, Snapshot
from appliance.enginefacts import EngineFacts
from appliance.errors import RequestError
from appliance.eventstream import EventStream
from appliance.host import memory_snapshot
from appliance.hostcheck import Hosts
from appliance.incidents import IncidentStore
from appliance.keys import Access
from appliance.kilo import KEY_VARIABLE, kilo_config
from appliance.livefigures import LiveFigures
from appliance.metrics import Metrics
from appliance.openai import CONTROL_PREFIX
from appliance.settings import Settings

VERBS = (Request.START, Request.STOP, Request.DRAIN, Request.RESTART, Request.RESET)
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


@dataclass
class Control:
    """The control API over one engine.

    ``incidents`` is None where nobody keeps any, ``build`` (what the engine was made from) where
    the engine is somebody else's.
    """

    engine: Engine
    gate: Gate
    settings: Settings
    metrics: Metrics
    hosts: Hosts
    incidents: IncidentStore | None = None
    build: EngineFacts | None = None

    def __post_init__(self) -> None:
        self._live = LiveFigures(self.engine, self.gate, self.settings, self.metrics)
        self._stream = EventStream(self.engine, self.status, self._live, self.incidents)

    def end(self) -> None:
        """End every event stream: the appliance ends, and must not wait for its watchers."""
        self._stream.end()

    def cut(self) -> None:
        """End the event streams that are open; their readers may come again."""
        self._stream.cut()

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

    def kilo(self, scheme: str, host: str) -> dict[str, Any]:
        """Return Kilo Code's configuration for who asks by this Host header, without the key.

        Raises RequestError for a name that is not ours: it must not send a key elsewhere.
        """
        base_url = self.hosts.base_url(scheme, host)
        if base_url is None:
            raise RequestError(
                400,
                "host_not_allowed",
                "the Host header names none of this appliance's hosts",
                "ask by its address, or set APPLIANCE_ALLOWED_HOSTS to the name that you use",
            )
        context = self.engine.snapshot.max_model_len
        return kilo_config(base_url, self.settings.served_model_name, context)

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter(prefix=CONTROL_PREFIX)
        router.add_api_route("/status", self._status, methods=["GET"])
        router.add_api_route("/plan", self._plan, methods=["GET"])
        router.add_api_route("/logs", self._logs, methods=["GET"])
        router.add_api_route("/events", self._events, methods=["GET"], response_model=None)
        router.add_api_route("/figures", self._figures, methods=["GET"])
        router.add_api_route("/budget", self._budget, methods=["GET"])
        router.add_api_route("/kilo", self._kilo, methods=["GET"])
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

    async def _events(
        self, request: HttpRequest, log: Annotated[int, Query(ge=0, le=1)] = 1
    ) -> StreamingResponse:
        def may_listen() -> bool:
            return may_go_on(request.scope, time.monotonic())

        return StreamingResponse(
            self._stream.follow(wants_log=bool(log), may_go_on=may_listen),
            media_type="text/event-stream",
            headers={"x-accel-buffering": "no"},
        )

    async def _figures(self) -> dict[str, Any]:
        kept = list(self._live.kept)
        return {"figures": kept, "newest": kept[-1] if kept else None}

    async def _budget(self) -> dict[str, Any]:
        actual = {
            sample.labels["part"]: int(sample.value)
            for family in self.metrics.actual_bytes.collect()
            for sample in family.samples
        }
        plan = self.engine.plan
        return budget_json(plan.memory if plan else None, actual, memory_snapshot())

    async def _kilo(self, request: HttpRequest) -> dict[str, Any]:
        return {
            "config": self.kilo(request.url.scheme, request.headers.get("host", "")),
            "key_variable": KEY_VARIABLE,
            "key_command": "appliance key",
            "whole_command": "appliance kilo",
        }
