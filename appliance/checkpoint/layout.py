"""A checkpoint's frame: config, index, the names of its shards and of the files beside them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.folder import INDEX, SINGLE
from appliance.checkpoint.plain import plain_name
from appliance.checkpoint.source import Source

CONFIG = "config.json"
QUANTISATION = "hf_quant_config.json"
JSON_LIMIT = 64_000_000  # bytes: an index of the largest known checkpoints has some 20 MB
JSON_DEPTH = 40  # levels: what walks or writes such content again recurses
# What a config calls the number of experts; all that are there say the same.
EXPERT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts")


@dataclass(frozen=True)
class Layout:
    """What a checkpoint's JSON files say. ``index`` is None for a checkpoint of one file.

    ``shard_of`` maps tensors to shards and is empty without an index.
    """

    config: Mapping[str, Any]
    layers: int
    experts: int
    shards: tuple[str, ...]
    index: Mapping[str, Any] | None
    shard_of: Mapping[str, str]
    others: tuple[str, ...]


def read_layout(source: Source) -> Layout:
    """Return the frame of the checkpoint in ``source``. Raises CheckpointError."""
    names = source.names()
    config = read_json(source, CONFIG)
    shards, index, shard_of = _shards(source, names)
    inner = text_config(config)
    others = tuple(
        plain_name(name, source.label, folders=True)
        for name in names
        if name not in {*shards, CONFIG, INDEX}
    )
    return Layout(
        config=config,
        layers=_count(inner, ("num_hidden_layers",)),
        experts=_count(inner, EXPERT_KEYS),
        shards=shards,
        index=index,
        shard_of=shard_of,
        others=others,
    )


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a config that describes the text model."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def read_json(source: Source, name: str) -> dict[str, Any]:
    """Return a JSON object of the checkpoint. Raises CheckpointError when it is none."""
    size = source.size(name)
    if size > JSON_LIMIT:
        raise _broken(f"{source.label}/{name} has {size:,} bytes: no such file is so long")
    try:
        content = json.loads(source.read(name, 0, size))
    except (ValueError, RecursionError) as cause:
        raise _broken(f"{source.label}/{name} is no JSON: {cause}") from cause
    if not isinstance(content, dict):
        raise _broken(f"{source.label}/{name} is no JSON object")
    if not _shallow(content, JSON_DEPTH):
        raise _broken(f"{source.label}/{name} is too deep: {JSON_DEPTH} levels would be enough")
    return content


def _shallow(content: Any, depth: int) -> bool:
    if not isinstance(content, (dict, list)):
        return True
    inner = content.values() if isinstance(content, dict) else content
    return depth > 0 and all(_shallow(item, depth - 1) for item in inner)


def _shards(
    source: Source, names: list[str]
) -> tuple[tuple[str, ...], Mapping[str, Any] | None, Mapping[str, str]]:
    if INDEX not in names:
        if SINGLE not in names:
            raise _broken(f"{source.label} holds neither {SINGLE} nor {INDEX}")
        return (SINGLE,), None, {}
    index = read_json(source, INDEX)
    shard_of = index.pop("weight_map", None)
    if not isinstance(shard_of, dict) or not shard_of:
        raise _broken(f"{source.label}/{INDEX} has no weight_map")
    if not all(isinstance(shard, str) for shard in shard_of.values()):
        raise _broken(f"{source.label}/{INDEX} maps a tensor to what is no name")
    shards = set(shard_of.values())
    for shard in shards:
        plain_name(shard, f"{source.label}/{INDEX}")
        if not shard.endswith(".safetensors"):
            raise _broken(f"{source.label}/{INDEX} names {shard}, which is no safetensors file")
    if missing := sorted(shards - {*names}):
        raise _broken(
            f"{source.label} lacks {len(missing)} of {len(shards)} shards: {', '.join(missing[:3])}"
        )
    return tuple(sorted(shards)), index, shard_of


def _count(config: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    said: set[int] = {config[key] for key in keys if type(config.get(key)) is int}
    if len(said) != 1 or not 0 < min(said) <= 100_000:
        raise _broken(f"{CONFIG} says {sorted(said)[:3]} for {' or '.join(keys)}")
    return said.pop()


def _broken(what: str) -> CheckpointError:
    return CheckpointError(
        what, "name a complete checkpoint in Hugging Face's layout", code="model_not_a_checkpoint"
    )
