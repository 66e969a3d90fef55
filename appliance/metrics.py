"""The appliance's own metrics. The engine's are appended to them as text, unparsed."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from appliance.hostmetrics import HostMetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_GAPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60)


class Metrics:
    """Every ``appliance_*`` family. A registry of its own: no ``process_*`` or ``python_*``,
    which the engine's text already holds.
    """

    def __init__(self, host: HostMetrics | None = None) -> None:
        registry = self._registry = CollectorRegistry()
        self._host = host
        if host is not None:
            registry.register(host)
        self.requests = Counter(
            "appliance_requests",
            "Requests relayed, by how they ended: ok, refused, failed, broken, hang_up",
            ("route", "outcome"),
            registry=registry,
        )
        self.hang_ups = Counter(
            "appliance_hang_ups",
            "Clients that left before the end, by what they left in: queue, head, prefill, stream",
            ("window",),
            registry=registry,
        )
        self.injected = Counter(
            "appliance_prompt_injected",
            "Requests into which the path-preservation prompt was put",
            ("route",),
            registry=registry,
        )
        self.ttft_s = Histogram(
            "appliance_ttft_seconds",
            "From a request's arrival to the first byte of its answer",
            ("route",),
            registry=registry,
            buckets=_SECONDS,
        )
        self.chunk_gap_s = Histogram(
            "appliance_inter_chunk_seconds",
            "Between two chunks of a stream; a chunk is not a token",
            registry=registry,
            buckets=_GAPS,
        )
        self.request_s = Histogram(
            "appliance_request_seconds",
            "From a request's arrival to its last byte",
            ("route",),
            registry=registry,
            buckets=_SECONDS,
        )
        self.running = Gauge(
            "appliance_requests_running", "Requests that hold a place", registry=registry
        )
        self.waiting = Gauge(
            "appliance_requests_waiting", "Requests in the queue", registry=registry
        )
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
        self.keepalives = Counter(
            "appliance_keepalives",
            "Keep-alives sent to clients of streams that wait for a place",
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
        self.actual_bytes = Gauge(
            "appliance_memory_actual_bytes",
            "What the engine logged of the plan's parts, and MemAvailable when it was ready",
            ("part",),
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
