"""How fast a model can decode on a box: computed from what each token reads of its memory. Pure.

One sequence decodes as fast as its weights pass through the memory, once for each token; the rest
is small beside it. All is computed from stored sizes, nothing is measured here.
"""

from dataclasses import dataclass

from appliance.facts import ModelFacts, WeightPart
from appliance.kvcache import NotComputable, bytes_read, cache_shape
from appliance.settings import Settings
from appliance.sizes import LARGEST

GB = 10**9  # as the makers of memory count: bandwidths are in GB a second
# What of the roofline to expect: 27 to 29 tok/s of 39.8, of this model with attention in NVFP4
# (card of saricles/MiniMax-M2.5-REAP-172B-A10B-NVFP4-GB10, one Spark).
EXPECTED = 0.7
_MAY_BE_QUANTISED = ("attention", "head")


@dataclass(frozen=True)
class DecodeRate:
    """One sequence that decodes with ``context`` tokens in its KV cache.

    A token reads ``bytes`` in all. ``tokens_per_s`` is the roofline, ``expected_per_s`` 70 % of it;
    both are None where the memory's bandwidth is not known.
    """

    context: int
    bytes: int
    tokens_per_s: float | None
    expected_per_s: float | None


@dataclass(frozen=True)
class Drafting:
    """What ``tokens`` drafts a step cost: its bytes, and how many tokens a step must then give.

    The experts of the drafts are counted as if they were chosen at random, each draft for itself.
    """

    tokens: int
    bytes: int
    pays_from: float


@dataclass(frozen=True)
class DecodePlan:
    """What a decoded token reads by part, and the speed that follows, all of it computed.

    ``rates`` are for an empty KV cache and, where it can be computed, for a full context.
    ``saved_bytes`` is what attention and head take less than in bf16, ``more_kv_tokens`` the KV
    cache that this is.
    """

    parts: tuple[WeightPart, ...]
    bandwidth_gb_s: float | None
    rates: tuple[DecodeRate, ...]
    saved_bytes: int
    more_kv_tokens: int
    drafting: Drafting | None = None

    @property
    def token_bytes(self) -> int:
        """What one token reads of the weights."""
        return sum(part.token_bytes for part in self.parts)


def plan_decode(
    settings: Settings, model: ModelFacts, context: int | None = None
) -> DecodePlan | None:
    """Return what a token reads, with up to ``context`` tokens before it; None: with the longest.

    Returns None for a model whose parts are not known, or which reads nothing of its weights.
    """
    if context is None:
        context = settings.max_model_len or model.max_position_embeddings
    weights = sum(part.token_bytes for part in model.parts)
    if not weights:
        return None
    quantised = [part for part in model.parts if part.name in _MAY_BE_QUANTISED]
    saved = max(0, sum(part.bf16_bytes - part.bytes for part in quantised))
    rates = (
        _rate(settings, tokens, weights + cache)
        for tokens, cache in _caches(settings, model, context)
    )
    return DecodePlan(
        parts=model.parts,
        bandwidth_gb_s=settings.memory_bandwidth_gb_s,
        rates=tuple(rates),
        saved_bytes=saved,
        more_kv_tokens=_kv_tokens(settings, model, saved),
        drafting=_drafting(settings, model, weights),
    )


def _kv_tokens(settings: Settings, model: ModelFacts, size: int) -> int:
    """Return the tokens whose KV cache takes so many bytes; 0 where it cannot be computed."""
    try:
        shape = cache_shape(model, settings.kv_cache_dtype, settings.max_num_batched_tokens)
    except NotComputable:
        return 0
    return size // shape.token_bytes


def _caches(settings: Settings, model: ModelFacts, context: int) -> list[tuple[int, int]]:
    """Return the contexts to speak of, each with the bytes that a token reads of its cache."""
    contexts = (0, context) if model.cache and context > 0 else (0,)
    try:
        found = [(n, bytes_read(model, settings.kv_cache_dtype, n)) for n in contexts]
    except NotComputable:
        found = []
    # a stranger's config may say any number
    return [(n, size) for n, size in found if size <= LARGEST] or [(0, 0)]


def _rate(settings: Settings, context: int, size: int) -> DecodeRate:
    bandwidth = settings.memory_bandwidth_gb_s
    if bandwidth is None:
        return DecodeRate(context, size, None, None)
    roofline = bandwidth * GB / size
    return DecodeRate(context, size, roofline, EXPECTED * roofline)


def _drafting(settings: Settings, model: ModelFacts, weights: int) -> Drafting | None:
    """Return what a step reads that checks drafts: more experts, and all else once."""
    if settings.speculation == "off":
        return None
    drafts = settings.speculation_tokens
    step = weights
    if 0 < model.experts_per_token < model.num_experts:
        own = sum(part.token_bytes for part in model.parts if part.name == "experts")
        share = model.experts_per_token / model.num_experts  # of all experts, that one token visits
        distinct = 1 - (1 - share) ** (1 + drafts)
        step += round(own * (distinct / share - 1)) if share else 0
    return Drafting(drafts, step, step / weights)
