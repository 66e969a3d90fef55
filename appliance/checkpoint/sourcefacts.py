"""What a checkpoint is, seen through any source: a remote one costs its config and headers."""

from pathlib import Path

from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.folder import INDEX, SINGLE, model_facts
from appliance.checkpoint.headers import read_headers
from appliance.checkpoint.layout import CONFIG, read_json
from appliance.checkpoint.plain import plain_name
from appliance.checkpoint.source import Source
from appliance.checkpoint.weigh import Scales
from appliance.facts import ModelFacts

JOBS = 8  # headers at a time


def shard_names(source: Source) -> list[str]:
    """Return the names of the shards, sorted. Raises CheckpointError for an index that is none."""
    if INDEX not in source.names():
        return [SINGLE]
    shard_of = read_json(source, INDEX).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise CheckpointError(f"{source.label}/{INDEX} has no weight_map")
    return sorted({plain_name(str(name), f"{source.label}/{INDEX}") for name in shard_of.values()})


def source_facts(source: Source) -> ModelFacts:
    """Return what the checkpoint in ``source`` is. Raises CheckpointError, ModelFolderError."""
    config = read_json(source, CONFIG)
    names, there = shard_names(source), {*source.names()}
    if missing := [name for name in names if name not in there]:
        raise CheckpointError(
            f"{source.label} lacks {len(missing)} of {len(names)} shards: {', '.join(missing[:3])}",
            "name a whole checkpoint",
            code="model_incomplete",
        )
    weights = Scales()
    for header in read_headers(source, names, JOBS):
        weights.add(header.tensors)
    return model_facts(Path(source.label), config, weights, len(names))
