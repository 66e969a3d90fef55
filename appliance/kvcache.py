"""What a KV cache of so many tokens takes, counted as vLLM's block pool counts it. Pure.

Read in vLLM 0.32 and 0.33: v1/kv_cache_interface.py, v1/core/kv_cache_utils.py and the page
sizes of hybrid models in platforms/interface.py.
"""

from dataclasses import dataclass

from appliance.facts import CacheLayers, ModelFacts

BLOCK_TOKENS = 16  # vLLM's smallest block
# The states of a linear layer that a running sequence holds with prefix caching on: the one at
# the last whole block, and the one that is being written.
STATES = 2
BATCHES = 2  # scheduled ahead with --async-scheduling; a sliding window keeps their tokens too
BATCHED_TOKENS = 8192  # vLLM's own choice on a large GPU where none is given

_VALUE_BYTES = {
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "bfloat16": 2,
    "float16": 2,
    "float32": 4,
}


class NotComputable(ValueError):
    """The KV cache of this model and type cannot be computed: the text says why."""


@dataclass(frozen=True)
class CacheShape:
    """What a model keeps: ``token_bytes`` for each token, ``sequence_bytes`` for each sequence.

    Tokens are held in blocks of ``block_tokens``; one block of the pool is never used.
    """

    token_bytes: int
    sequence_bytes: int
    block_tokens: int
    arithmetic: str

    def bytes_for(self, tokens: int, sequences: int) -> int:
        """Return what ``tokens`` take in all, with ``sequences`` running at once."""
        blocks = -(-tokens // self.block_tokens) + 1
        return blocks * self.block_tokens * self.token_bytes + sequences * self.sequence_bytes

    def tokens_in(self, size_bytes: int, sequences: int) -> int:
        """Return how many tokens fit into ``size_bytes``, with ``sequences`` running at once."""
        room = size_bytes - sequences * self.sequence_bytes
        blocks = room // (self.block_tokens * self.token_bytes) - 1
        return max(0, blocks * self.block_tokens)


def cache_shape(model: ModelFacts, cache_dtype: str, batched_tokens: int | None) -> CacheShape:
    """Return what the model's layers keep with a cache of this type. Raises NotComputable."""
    if not model.cache:
        why = model.cache_unknown or "its config was not read"
        raise NotComputable(f"the KV cache of {model.architecture} cannot be computed: {why}")
    name, value = _values(model, cache_dtype)
    full = _full(model)
    group = _group(model.cache)
    layer_bytes = full.values_per_token * value  # of one token in one layer
    block = BLOCK_TOKENS
    for layers in model.cache:
        if layers.kind == "linear":  # a page must hold a state: its blocks grow until they do
            block = max(
                block, BLOCK_TOKENS * -(-layers.state_bytes // (BLOCK_TOKENS * layer_bytes))
            )
        elif layers.values_per_token != full.values_per_token:
            raise NotComputable(f"the layers of {model.architecture} keep different amounts")
    page = block * layer_bytes
    ahead = BATCHES * (batched_tokens or BATCHED_TOKENS)
    sequence = sum(
        _padded(layers.count, group) * page * _pages(layers, block, ahead)
        for layers in model.cache
        if layers.kind != "full"
    )
    token = _padded(full.count, group) * layer_bytes
    return CacheShape(token, sequence, block, _words(model.cache, full, name, value))


def bytes_read(model: ModelFacts, cache_dtype: str, tokens: int) -> int:
    """Return what one decoded token reads of the cache when ``tokens`` of its sequence are in it.

    Raises NotComputable as ``cache_shape`` does for an unknown type.
    """
    value = _values(model, cache_dtype)[1]
    return sum(layers.count * _seen(layers, tokens, value) for layers in model.cache)


def _seen(layers: CacheLayers, tokens: int, value: int) -> int:
    if layers.kind == "linear":
        return layers.state_bytes  # the same however long the sequence is
    if layers.kind == "sliding":
        tokens = min(tokens, layers.window)
    return tokens * layers.values_per_token * value


def _values(model: ModelFacts, cache_dtype: str) -> tuple[str, int]:
    """Return the type of the cache's values and the bytes of one."""
    name = model.cache_dtype if cache_dtype == "auto" else cache_dtype
    if name not in _VALUE_BYTES:
        raise NotComputable(f"the KV cache of the type {name or 'auto'!r} cannot be computed")
    return name, _VALUE_BYTES[name]


def _full(model: ModelFacts) -> CacheLayers:
    """Return the layers that keep every token: the blocks of the pool are made by them."""
    full = [layers for layers in model.cache if layers.kind == "full"]
    if len(full) != 1:
        raise NotComputable(f"{model.architecture} has {len(full)} kinds of layers that keep all")
    if not full[0].values_per_token:
        raise NotComputable(f"the layers of {model.architecture} that keep all keep 0 values")
    for layers in model.cache:
        if not layers.count:
            raise NotComputable(f"{model.architecture} has a count of 0 {layers.kind} layers")
    return full[0]


def _pages(layers: CacheLayers, block: int, ahead: int) -> int:
    if layers.kind == "linear":
        return STATES
    return -(-(layers.window - 1 + ahead) // block) + 1  # a window may begin inside a block


def _group(cache: tuple[CacheLayers, ...]) -> int:
    """Return how many layers share a block: vLLM pads each kind to a multiple of it."""
    counts = [layers.count for layers in cache]
    return max(counts) if 2 * max(counts) < 3 * min(counts) else min(counts)


def _padded(count: int, group: int) -> int:
    return -(-count // group) * group


def _words(cache: tuple[CacheLayers, ...], full: CacheLayers, name: str, value: int) -> str:
    words = f"{full.count} layers x {full.values_per_token} values x {value} B ({name}) a token"
    for layers in cache:
        if layers.kind == "sliding":
            words += f"; {layers.count} layers keep {layers.window} tokens of a sequence"
        elif layers.kind == "linear":
            words += f"; {layers.count} layers keep a state of a sequence"
    return words
