"""The appliance's own metrics. The engine's are appended to them as text, unparsed."""

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest

from appliance.hostmetrics import HostMetrics
from appliance.relaymetrics import RelayMetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics(RelayMetrics):
    """Every ``appliance_*`` family. A registry of its own: no ``process_*`` or ``python_*``,
    which the engine's text already holds; our own process is ``appliance_process_*``.
    """

    def __init__(self, host: HostMetrics | None = None) -> None:
        registry = self._registry = CollectorRegistry()
        super().__init__(registry)
        self._host = host
        if host is not None:
            registry.register(host)
        ProcessCollector(namespace="appliance", registry=registry)
        self.state = Gauge(
            "appliance_engine_state",
            "1 for the state the engine is in",
            ("state",),
            registry=registry,
        )
        self.degraded = Gauge(
            "appliance_engine_degraded",
            "1 while the engine serves, but not as it should",
            ("kind",),
            registry=registry,
        )
        self.spawns = Counter("appliance_engine_spawns", "Engine starts", registry=registry)
        self.exits = Counter(
            "appliance_engine_exits",
            "Engine ends, by cause; an exit that nobody asked for counts whatever its code",
            ("cause",),
            registry=registry,
        )
        self.wedges = Counter(
            "appliance_engine_wedges", "Engines that hung and were killed for it", registry=registry
        )
        self.probes = Counter(
            "appliance_engine_probes",
            "One-token probes of an idle engine, by how they ended: ok, failed",
            ("outcome",),
            registry=registry,
        )
        self.guard_actions = Counter(
            "appliance_memory_guard_actions",
            "What the memory guards did: warn, stop_admission, resume, terminate, kill, drop_cache",
            ("action",),
            registry=registry,
        )
        self.freed_bytes = Counter(
            "appliance_memory_freed_bytes",
            "Bytes that force_swap freed before or after a load, by mechanism",
            ("mechanism",),
            registry=registry,
        )
        self.plan_bytes = Gauge(
            "appliance_memory_plan_bytes",
            "The memory plan of the current engine, by part",
            ("part",),
            registry=registry,
        )
        self.floor_bytes = Gauge(
            "appliance_memory_floor_bytes",
            "MemAvailable below which the guards act: warn, stop (admission), kill, emergency",
            ("floor",),
            registry=registry,
        )
        self.actual_bytes = Gauge(
            "appliance_memory_actual_bytes",
            "What the engine logged of the plan's parts, and MemAvailable when it was ready",
            ("part",),
            registry=registry,
        )
        self.tokenizer_mismatches = Gauge(
            "appliance_tokenizer_mismatches",
            "Paths that the engine reads in other tokens than tokenizer.json; NaN: not compared",
            registry=registry,
        )
        self.tokenizer_mismatches.set(math.nan)
        self.node_up = Gauge(
            "appliance_node_up",
            "1 while a box of a cluster runs its part of the engine: head, worker",
            ("node",),
            registry=registry,
        )
        self.start_s = Gauge(
            "appliance_engine_start_seconds", "How long the last start took", registry=registry
        )

    def enter_state(self, state: str, states: tuple[str, ...]) -> None:
        """Show ``state`` as the one that holds, of all ``states``."""
        for name in states:
            self.state.labels(name).set(name == state)

    async def refresh(self) -> None:
        """Read what takes long to read, before ``text``."""
        if self._host is not None:
            await self._host.refresh()

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)
