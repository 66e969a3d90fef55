"""Is the engine wedged, or only busy? The rule, pure: ``look(watch, vitals) -> watch, verdict``.

``/health`` answers 200 for days while an engine makes nothing, and a probe sent to a busy engine
waits in its queue and calls it dead. So a busy engine is judged by its progress alone: silence
longer than an allowance, which grows with the prompt being read, and where the GPU's power can be
read, by that too. An engine that computes draws power; a deadlocked one shows full utilisation,
but little power. Only an idle engine is probed.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

BYTES_PER_TOKEN = 4  # expected of JSON with English text or code, not measured
_LONGEST_READ_S = 5.0
_LONGEST_PAUSE_S = 2.0


class Verdict(StrEnum):
    """What a look says of the engine."""

    FINE = "fine"
    SUSPECT = "suspect"  # the allowance has passed, but the GPU still works: wait for twice
    WEDGED = "wedged"  # save the evidence, then kill it


@dataclass(frozen=True)
class WedgePolicy:
    """How long a busy engine may be silent, and how often an idle one is probed.

    ``prefill_tokens_per_s`` is a floor, expected and not measured: the slowest figure published
    for these boxes is several times that. ``max_prompt_tokens``, the served context, bounds what
    a body can cost: a longer one is refused, and an image is bytes but few tokens.
    ``power_floor_w`` None: power does not count.
    """

    quiet_s: float = 180.0
    prefill_tokens_per_s: float = 200.0
    power_floor_w: float | None = None
    probe_every_s: float = 60.0
    max_prompt_tokens: int | None = None

    def allowance_s(self, prompt_bytes: int) -> float:
        """Return the silence, in seconds, that is allowed with a body of that size in flight."""
        tokens = prompt_bytes / BYTES_PER_TOKEN
        if self.max_prompt_tokens is not None:
            tokens = min(tokens, self.max_prompt_tokens)
        return self.quiet_s + tokens / self.prefill_tokens_per_s

    @property
    def blind_s(self) -> float:
        """The gap between two looks after which nothing is known of the time between."""
        return self.quiet_s / 2

    @property
    def look_every_s(self) -> float:
        """The pause between two looks; with two reads to their ends it is shorter than blind."""
        return min(_LONGEST_PAUSE_S, self.quiet_s / 10)

    @property
    def read_within_s(self) -> float:
        """The timeout of one read of the vitals."""
        return min(_LONGEST_READ_S, self.quiet_s / 10)


@dataclass(frozen=True)
class Vitals:
    """What was seen of one engine at one moment.

    ``at``: monotonic seconds. ``in_flight``: our requests, a probe among them, that wait for the
    engine; one that waits for its own client to read is not among them, or a sleeping laptop
    would look like a wedged engine. ``engine_load``: running and waiting by its own gauges;
    ``heartbeat``: its progress counters; both None when it did not answer. ``chunks``: how many
    the relay has had from the engine. ``prompt_bytes``: the largest body in flight, 0 if unknown.
    ``power_w``: of all GPUs, None when not readable or not asked.
    """

    at: float
    in_flight: int = 0
    engine_load: int | None = None
    heartbeat: tuple[float, ...] | None = None
    chunks: int = 0
    prompt_bytes: int = 0
    power_w: float | None = None


@dataclass(frozen=True)
class Watch:
    """What is remembered between looks at one engine. Start a new one with each spawn.

    ``silent_since``: since when it is busy without a sign of life, None while idle.
    ``prompt_bytes``: the largest body since then. ``active_at``: the last sign of life, busy
    moment, or probe. Times are monotonic seconds.
    """

    at: float | None = None
    silent_since: float | None = None
    active_at: float = 0.0
    heartbeat: tuple[float, ...] | None = None
    chunks: int = 0
    load: int = 0
    prompt_bytes: int = 0

    @property
    def silence_s(self) -> float:
        """How long the engine was silent while busy, at the last look."""
        if self.at is None or self.silent_since is None:
            return 0.0
        return self.at - self.silent_since


def look(watch: Watch, vitals: Vitals, policy: WedgePolicy) -> tuple[Watch, Verdict]:
    """Take one look: return what to remember, and what it says of the engine."""
    lives = _lives(watch, vitals)
    is_busy = _is_busy(watch, vitals)
    afresh = lives or watch.silent_since is None or _is_blind(watch, vitals, policy)
    silent_since = vitals.at if afresh else watch.silent_since
    # A large prompt whose client leaves must not shorten the allowance at once: the step that
    # reads it runs on. It counts until the next sign of life.
    prompt_bytes = vitals.prompt_bytes if afresh else max(watch.prompt_bytes, vitals.prompt_bytes)
    is_active = lives or is_busy or watch.at is None
    now = Watch(
        at=vitals.at,
        silent_since=silent_since if is_busy else None,
        active_at=vitals.at if is_active else watch.active_at,
        heartbeat=watch.heartbeat if vitals.heartbeat is None else vitals.heartbeat,
        chunks=vitals.chunks,
        load=watch.load if vitals.engine_load is None else vitals.engine_load,
        prompt_bytes=prompt_bytes,
    )
    return now, _judge(now, vitals.power_w, policy)


def probe_due(watch: Watch, vitals: Vitals, policy: WedgePolicy) -> bool:
    """Tell whether to send a probe: only to an engine that is idle, and was for long enough."""
    if watch.at is None or _is_busy(watch, vitals) or _lives(watch, vitals):
        return False
    return vitals.at - watch.active_at >= policy.probe_every_s


def probed(watch: Watch, at: float) -> Watch:
    """Remember a probe begun at ``at``: it may come and go between two looks, unseen."""
    return replace(watch, active_at=at)


def power_due(watch: Watch, policy: WedgePolicy) -> bool:
    """Tell whether the next look wants the GPU's power; before that, asking is wasted work."""
    if policy.power_floor_w is None:
        return False
    return watch.silence_s >= policy.allowance_s(watch.prompt_bytes) / 2


def _judge(watch: Watch, power_w: float | None, policy: WedgePolicy) -> Verdict:
    allowance_s = policy.allowance_s(watch.prompt_bytes)
    if watch.silent_since is None or watch.silence_s < allowance_s:
        return Verdict.FINE
    floor_w = policy.power_floor_w
    works = floor_w is not None and power_w is not None and power_w >= floor_w
    return Verdict.SUSPECT if works and watch.silence_s < 2 * allowance_s else Verdict.WEDGED


def _is_busy(watch: Watch, vitals: Vitals) -> bool:
    load = watch.load if vitals.engine_load is None else vitals.engine_load
    return vitals.in_flight > 0 or load > 0


def _lives(watch: Watch, vitals: Vitals) -> bool:
    """Tell whether anything moved since the last look; an answer without news is no life."""
    beats = vitals.heartbeat is not None and vitals.heartbeat != watch.heartbeat
    return beats or vitals.chunks != watch.chunks


def _is_blind(watch: Watch, vitals: Vitals, policy: WedgePolicy) -> bool:
    """Tell whether we did not watch: we were stopped, starved of CPU, or the clock jumped."""
    return watch.at is None or not 0 <= vitals.at - watch.at <= policy.blind_s
