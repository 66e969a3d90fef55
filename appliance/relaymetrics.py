"""The metric families of requests: what clients asked, what they got, and how fast."""

from prometheus_client import CollectorRegistry, Gauge

from appliance.histogram import Counter, Histogram

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_GAPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60)


class RelayMetrics:
    """Registers its families in ``registry``; labels never carry ids, paths or prompts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests(registry)
        self._traffic(registry)
        self._care(registry)

    def _requests(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "appliance_requests",
            "Requests relayed, by how they ended: ok, refused, failed, broken, hang_up",
            ("route", "outcome"),
            registry=registry,
        )
        self.responses = Counter(
            "appliance_responses",
            "Requests relayed, by the status that their client got; 0 is none",
            ("route", "code"),
            registry=registry,
        )
        self.requests_by_key = Counter(
            "appliance_requests_by_key",
            "Requests relayed, by the name of the client's key and how they ended",
            ("key", "outcome"),
            registry=registry,
        )
        self.key_failures = Counter(
            "appliance_key_failures",
            "Requests with a wrong API key, or with none where one is needed",
            registry=registry,
        )
        self.hang_ups = Counter(
            "appliance_hang_ups",
            "Clients that left before the end, by when: body (it was not here yet), queue, head, "
            "prefill, stream",
            ("window",),
            registry=registry,
        )
        self.path_glitches = Counter(
            "appliance_path_glitches",
            "Paths in tool calls that the model changed, by kind, and by what was done: observed, "
            "mended, left (to mend it was not safe)",
            ("kind", "action"),
            registry=registry,
        )
        self.path_constraints = Counter(
            "appliance_path_constraints",
            "Requests in the mode constrain, by what became of them: added; or not, as unfit (the "
            "client chose a format or a tool), none (no fresh listing), incomplete (a listing), "
            "many (paths), windows, late (first byte, once), refused (by the engine)",
            ("outcome",),
            registry=registry,
        )
        self.running = Gauge(
            "appliance_requests_running", "Requests that hold a place", registry=registry
        )
        self.waiting = Gauge(
            "appliance_requests_waiting", "Requests in the queue", registry=registry
        )
        self.limit = Gauge(
            "appliance_requests_limit",
            "The most that may be: running (sequences, one a request, or its n), waiting",
            ("what",),
            registry=registry,
        )
        self.request_s = Histogram(
            "appliance_request_seconds",
            "From a request's arrival to its last byte",
            ("route",),
            registry=registry,
            buckets=_SECONDS,
        )

    def _traffic(self, registry: CollectorRegistry) -> None:
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
        self.bytes_in = Counter(
            "appliance_request_body_bytes", "Bytes of the bodies sent upstream", registry=registry
        )
        self.bytes_out = Counter(
            "appliance_response_body_bytes",
            "Bytes of the bodies sent to clients",
            registry=registry,
        )
        self.tokens = Counter(
            "appliance_tokens",
            "Tokens as the engine's usage tells them: prompt, completion, and cached, a part of "
            "prompt",
            ("kind",),
            registry=registry,
        )
        self.keepalives = Counter(
            "appliance_keepalives",
            "Keep-alives sent to clients of streams that wait for a place, or in a silence",
            registry=registry,
        )

    def _care(self, registry: CollectorRegistry) -> None:
        self.injected = Counter(
            "appliance_prompt_injected",
            "Requests into which the path-preservation prompt was put",
            ("route",),
            registry=registry,
        )
        self.clamps = Counter(
            "appliance_clamps",
            "Requests whose output limit was changed to what fits: removed (or made the context), "
            "lowered",
            ("kind",),
            registry=registry,
        )
        self.context_refusals = Counter(
            "appliance_context_refusals",
            "Requests refused because the prompt alone does not fit the context",
            ("route",),
            registry=registry,
        )
        self.media_refusals = Counter(
            "appliance_media_refusals",
            "Requests refused for media that the engine may not fetch, or cannot read",
            registry=registry,
        )
        self.history_repairs = Counter(
            "appliance_history_repairs",
            "Requests whose messages were changed to what the template reads, by what was changed",
            ("kind",),
            registry=registry,
        )
        self.runaways = Counter(
            "appliance_runaways",
            "Replies ended because they would not: loop, thinking",
            ("kind",),
            registry=registry,
        )
