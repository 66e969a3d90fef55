"""The gateway put together as the settings ask: bodies in, replies out, and the relay between."""

import math
from collections.abc import Callable

from appliance.admission import Gate
from appliance.bodies import Bodies
from appliance.deadlines import Deadlines
from appliance.engine import Engine
from appliance.exchange import Exchange
from appliance.keepalive import Waits
from appliance.media import MediaPolicy
from appliance.metrics import Metrics
from appliance.pathconstraint import PathConstraints
from appliance.pathrepair import Mode
from appliance.pathwatch import PathGuards
from appliance.prompt import PromptPolicy
from appliance.relay import Relay
from appliance.reply import Replies
from appliance.runaway import RunawayPolicy, RunawayWatch
from appliance.settings import Settings
from appliance.stream import Care


def build_relay(
    settings: Settings, engine: Engine, gate: Gate, policy: PromptPolicy, metrics: Metrics
) -> Relay:
    """Return the relay in front of an engine."""
    bodies = Bodies(
        policy,
        metrics,
        served_model=settings.served_model_name,
        max_body_bytes=settings.max_body_bytes,
        media=MediaPolicy(settings.media_input, frozenset(map(str.lower, settings.media_hosts))),
        fit_output=settings.fit_output,
        path_mode=Mode(settings.path_guard),
    )
    waits = Waits(
        settings.queue_timeout_s,
        settings.admit_wait_s,
        settings.whole_wait_s,
        math.inf if settings.keepalive == "off" else settings.head_after_s,
        settings.keepalive_s,
        settings.keepalive,
    )
    guards = PathGuards(metrics, shows_paths=settings.path_guard_debug)
    return Relay(
        engine,
        gate,
        bodies,
        Replies(
            metrics,
            _care(settings),
            _watch(settings, metrics),
            guards.watch,
            PathConstraints(metrics, guards.reader).make,
        ),
        waits,
        metrics,
        expected_s=engine.expected_s,
        on_keepalive=metrics.keepalives.inc,
    )


def _care(settings: Settings) -> Care:
    deadlines = Deadlines(
        settings.first_byte_timeout_s, settings.idle_timeout_s, settings.total_timeout_s
    )
    return Care(settings.keepalive, settings.keepalive_s, deadlines)


def _watch(settings: Settings, metrics: Metrics) -> Callable[[Exchange], RunawayWatch | None]:
    policy = RunawayPolicy(settings.runaway_repeats, settings.thinking_budget)

    def count(kind: str) -> None:
        metrics.runaways.labels(kind).inc()

    return lambda exchange: policy.watch(exchange.route.path, count)
