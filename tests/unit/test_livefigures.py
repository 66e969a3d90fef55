"""One sample of live figures: what the engine tells, what we count, and null for the unknown."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from appliance.admission import Gate
from appliance.errors import EngineNotReady
from appliance.livefigures import KEPT, LiveFigures
from appliance.metrics import Metrics

TOLD = b"""# HELP vllm:prompt_tokens_total x
vllm:prompt_tokens_total{engine="0"} %d
vllm:prompt_tokens_cached_total{engine="0"} %d
vllm:generation_tokens_total{engine="0"} %d
vllm:prefix_cache_queries_total{engine="0"} %d
vllm:prefix_cache_hits_total{engine="0"} %d
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc_other 7
"""


@dataclass
class FakeEngine:
    """What LiveFigures asks of an engine; ``text`` None is an engine that does not serve."""

    text: bytes | None = None
    is_hung: bool = False
    plan: None = None
    snapshot: Any = field(default_factory=lambda: SimpleNamespace(spawn=1))

    @property
    def upstream(self) -> "FakeEngine":
        if self.text is None:
            raise EngineNotReady("the engine is starting")
        return self

    async def metrics(self) -> bytes:
        if self.is_hung:
            await asyncio.Event().wait()
        return self.text or b""


class Box:
    """Live figures over a fake engine, and a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.engine, self.metrics = FakeEngine(), Metrics()
        settings = SimpleNamespace(max_num_seqs=4)
        engine, chosen = self.engine, settings
        self.live = LiveFigures(
            engine,  # type: ignore[arg-type]
            Gate(4, 4),
            chosen,  # type: ignore[arg-type]
            self.metrics,
            lambda: self.now,
        )

    async def after(self, seconds: float) -> dict[str, Any]:
        self.now += seconds
        return await self.live.sample()


async def test_speeds_are_the_engines_and_a_cached_prompt_is_not_read() -> None:
    box = Box()
    box.engine.text = TOLD % (1000, 100, 50, 1000, 100)
    first = await box.after(0)
    assert (first["prompt_tokens_per_s"], first["completion_tokens_per_s"]) == (None, None)
    box.engine.text = TOLD % (2000, 900, 150, 2000, 900)
    second = await box.after(2)
    assert (second["prompt_tokens_per_s"], second["completion_tokens_per_s"]) == (100, 50)
    assert (second["prefix_cache_hit"], second["kv_cache_used"]) == (0.8, 0.25)


async def test_an_engine_that_is_away_hangs_or_tells_nothing_is_null() -> None:
    box = Box()
    for text, is_hung in ((None, False), (b"other 1\n", False), (TOLD, True)):
        box.engine.text, box.engine.is_hung = text, is_hung
        told = await box.after(1)
        names = ("prompt_tokens_per_s", "completion_tokens_per_s", "kv_cache_used", "ttft_s")
        assert [told[name] for name in names] == [None] * 4
        assert told["memory"]["floor"] is None
        assert told["memory"]["total"] > 0


async def test_what_we_count_is_told_by_kind_and_by_cause() -> None:
    box = Box()
    await box.after(0)
    box.metrics.path_glitches.labels("case", "observed").inc(3)
    box.metrics.path_glitches.labels("case", "mended").inc()
    box.metrics.exits.labels("wedged").inc()
    box.metrics.spawns.inc(2)
    box.metrics.keepalives.inc()
    for seconds in (0.2, 0.2, 0.2, 4):
        box.metrics.ttft_s.labels("/v1/chat/completions").observe(seconds)
    told = await box.after(1)
    assert told["glitches"] == {"case": {"observed": 3, "mended": 1}}
    assert (told["exits"], told["spawns"], told["keepalives"]) == ({"wedged": 1}, 2, 1)
    assert 0.1 < told["ttft_s"]["p50"] < 0.25
    assert 2.5 < told["ttft_s"]["p90"] <= 5


async def test_each_box_of_a_cluster_is_told_and_a_single_one_is_none() -> None:
    box = Box()
    assert (await box.after(0))["nodes"] == {}
    box.metrics.node_up.labels("head").set(1)
    box.metrics.node_up.labels("worker").set(0)
    assert (await box.after(1))["nodes"] == {"head": True, "worker": False}


async def test_five_minutes_are_kept_and_no_more() -> None:
    box = Box()
    for _ in range(KEPT + 5):
        newest = await box.after(1)
    assert len(box.live.kept) == KEPT
    assert box.live.kept[-1] is newest
