"""What moves while one looks: speeds, waits, memory, once a second for all who listen.

A sample is JSON values: ``at`` (ISO 8601), ``prompt_tokens_per_s`` and ``completion_tokens_per_s``
(the engine's own counters, which move while a stream runs; of a prompt what was read, without
what the prefix cache had of it), ``ttft_s`` (``p50``, ``p90`` of the
last minute), ``running``, ``waiting``, ``places``, ``kv_cache_used`` and ``prefix_cache_hit`` (0
to 1), ``memory`` (``total``, ``available``, ``free``, ``swap_free``, ``floor``: where the guards
end the engine; bytes), ``glitches`` (by kind, then by what was done), ``keepalives``, ``spawns``,
``exits`` (by cause), the last four since the appliance began. What is not known is null.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from prometheus_client import Counter

from appliance import figures
from appliance.admission import Gate
from appliance.engine import Engine
from appliance.errors import EngineNotReady
from appliance.figures import Reading
from appliance.host import memory_snapshot
from appliance.metrics import Metrics
from appliance.settings import Settings
from appliance.vitals import sums_of

EVERY_S = 1.0
KEPT = 300
READ_S = 0.8  # for the engine's answer: the next second has a sample of its own
_PROMPT = b"vllm:prompt_tokens_total"
_CACHED = b"vllm:prompt_tokens_cached_total"
_COMPLETION = b"vllm:generation_tokens_total"
_QUERIES = b"vllm:prefix_cache_queries_total"
_HITS = b"vllm:prefix_cache_hits_total"
_KV = b"vllm:kv_cache_usage_perc"
_NAMES = frozenset((_PROMPT, _CACHED, _COMPLETION, _QUERIES, _HITS, _KV))
_MEMORY = {
    "total": "MemTotal",
    "available": "MemAvailable",
    "free": "MemFree",
    "swap_free": "SwapFree",
}


class LiveFigures:
    """Takes samples, and keeps the last ``KEPT``. ``clock`` gives monotonic seconds."""

    def __init__(
        self,
        engine: Engine,
        gate: Gate,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._gate = gate
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._readings: deque[Reading] = deque(maxlen=KEPT)
        self.kept: deque[dict[str, Any]] = deque(maxlen=KEPT)

    async def sample(self) -> dict[str, Any]:
        """Take one sample, keep it and return it."""
        told = await self._engine_tells()
        bounds, counts = self._metrics.ttft_s.merged()
        self._readings.append(
            Reading(
                self._clock(),
                self._engine.snapshot.spawn,
                told[_PROMPT] - told.get(_CACHED, 0.0) if _PROMPT in told else None,
                told.get(_COMPLETION),
                told.get(_QUERIES),
                told.get(_HITS),
                counts or (0,) * (len(bounds) + 1),
            )
        )
        readings = list(self._readings)
        waits = figures.ttft_s(readings, bounds)
        used = told.get(_KV)
        sample = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "prompt_tokens_per_s": figures.per_s(readings, "prompt_tokens", figures.PROMPT_S),
            "completion_tokens_per_s": figures.per_s(readings, "completion_tokens", figures.RATE_S),
            "ttft_s": dict(zip(("p50", "p90"), waits, strict=True)) if waits else None,
            "running": self._gate.running,
            "waiting": self._gate.waiting,
            "places": self._settings.max_num_seqs,
            "kv_cache_used": None if used is None else round(min(1.0, used), 4),
            "prefix_cache_hit": figures.hit_share(readings),
            "memory": self._memory(),
            **self._counts(),
        }
        self.kept.append(sample)
        return sample

    async def _engine_tells(self) -> dict[bytes, float]:
        try:
            async with asyncio.timeout(READ_S):
                return sums_of(await self._engine.upstream.metrics(), _NAMES)
        except (EngineNotReady, TimeoutError):
            return {}

    def _memory(self) -> dict[str, int | None]:
        rows = memory_snapshot()
        plan = self._engine.plan
        memory = plan.memory if plan else None
        return {
            **{name: rows.get(row) for name, row in _MEMORY.items()},
            "floor": memory.floors.kill_bytes if memory else None,
        }

    def _counts(self) -> dict[str, Any]:
        metrics = self._metrics
        glitches: dict[str, dict[str, int]] = {}
        for (kind, action), count in metrics.path_glitches.values().items():
            glitches.setdefault(kind, {})[action] = int(count)
        return {
            "glitches": glitches,
            "keepalives": int(metrics.keepalives.values()[()]),
            "spawns": sum(_totals(metrics.spawns).values()),
            "exits": _totals(metrics.exits),
            "nodes": _nodes(metrics),
        }


def _nodes(metrics: Metrics) -> dict[str, bool]:
    """Return of each box whether its part of the engine runs; nothing where one box serves."""
    samples = [sample for family in metrics.node_up.collect() for sample in family.samples]
    return {sample.labels["node"]: bool(sample.value) for sample in samples}


def _totals(counter: Counter) -> dict[str, int]:
    """Return a counter of the client library by its one label, "" where it has none."""
    return {
        next(iter(sample.labels.values()), ""): int(sample.value)
        for family in counter.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }
