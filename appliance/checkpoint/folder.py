"""Reads a checkpoint folder's config and its shards' headers, and says at once what is missing."""

import json
import stat
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from appliance.checkpoint.failures import CheckpointError, SourceError
from appliance.checkpoint.headers import read_header
from appliance.checkpoint.layers import NotUnderstood, cache_dtype, cache_layers, model_dtype
from appliance.checkpoint.source import LocalSource
from appliance.checkpoint.weigh import Scales, experts_per_token
from appliance.errors import ModelFolderError
from appliance.facts import CacheLayers, ModelFacts

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def read_model_facts(folder: Path) -> ModelFacts:
    """Return what the checkpoint in ``folder`` is.

    Raises ModelFolderError when the folder is missing, is no checkpoint, or lacks shards, or
    parts of them, that its index names.
    """
    if what := _no_folder(folder):
        raise ModelFolderError(
            f"the model folder {folder} {what}",
            "set APPLIANCE_MODEL_DIR to the folder that holds config.json and the shards, "
            "or fetch them: appliance model pull",
            code="model_missing",
        )
    config = _read_json(folder / "config.json")
    _described(folder, config)  # a config of something else is told before its shards' faults
    try:
        shards = _shards(folder)
    except OSError as cause:
        raise _broken(folder, f"cannot be read: {cause.strerror}") from cause
    return model_facts(folder, config, _weigh(folder, shards), len(shards))


def model_facts(
    folder: Path, config: dict[str, Any], weights: Scales, shard_count: int
) -> ModelFacts:
    """Return what a config, and the weighed tensors, say of a checkpoint.

    Raises ModelFolderError for a config that describes no model.
    """
    architecture, inner = _described(folder, config)
    experts = _count(inner, "num_local_experts") or _count(inner, "num_experts")
    visited = experts_per_token(inner)
    cache, unknown = _cache(architecture, {"torch_dtype": model_dtype(config), **inner})
    return ModelFacts(
        folder=folder,
        architecture=architecture,
        model_type=str(config.get("model_type", "")),
        num_layers=_count(inner, "num_hidden_layers"),
        num_experts=experts,
        max_position_embeddings=_count(inner, "max_position_embeddings"),
        quantization=_quantization(config) or _quantization(inner),
        shard_count=shard_count,
        weights_bytes=weights.by_dtype.total(),
        weights_by_dtype=tuple(weights.by_dtype.most_common()),
        cache=cache,
        cache_dtype=cache_dtype(config, inner),
        cache_unknown=unknown,
        experts_per_token=visited,
        parts=weights.parts(architecture, experts, visited),
    )


def _described(folder: Path, config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a model's architecture, and the config of what reads its text."""
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        raise _broken(folder / "config.json", "names no architectures")
    inner = config.get("text_config") or config
    if not isinstance(inner, dict):
        raise _broken(folder / "config.json", "has a text_config that is no JSON object")
    return str(architectures[0]), inner


def _cache(architecture: str, config: dict[str, Any]) -> tuple[tuple[CacheLayers, ...], str]:
    """Return the layers that keep something of a sequence, or why they are not known."""
    try:
        return cache_layers(architecture, config), ""
    except NotUnderstood as cause:
        return (), str(cause)


def _weigh(folder: Path, shards: Sequence[str]) -> Scales:
    scales = Scales()
    try:
        with closing(LocalSource(folder)) as source:
            for name in shards:
                scales.add(read_header(source, name).tensors)
    except SourceError as cause:
        raise _broken(folder, f"cannot be read: {cause.what}") from cause
    except CheckpointError as cause:
        hint = f"{cause.hint}, then appliance start"
        raise ModelFolderError(cause.what, hint, code=cause.code) from cause
    return scales


def _no_folder(folder: Path) -> str:
    """Return why ``folder`` is none, "" when it is one."""
    try:
        return "" if stat.S_ISDIR(folder.stat().st_mode) else "is a file"
    except FileNotFoundError:
        return "does not exist"
    except OSError as cause:
        return f"cannot be read: {cause.strerror}"


def _shards(folder: Path) -> list[str]:
    index = folder / INDEX
    if not index.exists():
        single = folder / SINGLE
        if not single.is_file():
            raise _broken(folder, f"holds neither {SINGLE} nor {INDEX}")
        return [SINGLE]
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise _broken(index, "has no weight_map")
    names = sorted({str(name) for name in weight_map.values()})
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise ModelFolderError(
            f"{folder} lacks {len(missing)} of {len(names)} shards: {shown}",
            "finish the download, then appliance start",
            code="model_incomplete",
        )
    return names


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _broken(path.parent, f"has no {path.name}") from None
    except (OSError, ValueError, RecursionError) as cause:
        raise _broken(path, f"cannot be read: {cause}") from cause
    if not isinstance(value, dict):
        raise _broken(path, "is no JSON object")
    return value


def _broken(path: Path, what: str) -> ModelFolderError:
    return ModelFolderError(
        f"{path} {what}",
        "set APPLIANCE_MODEL_DIR to a complete checkpoint in Hugging Face's layout",
        code="model_not_a_checkpoint",
    )


def _count(config: dict[str, Any], name: str) -> int:
    value = config.get(name, 0)
    return value if isinstance(value, int) else 0


def _quantization(config: dict[str, Any]) -> str:
    section = config.get("quantization_config")
    if not isinstance(section, dict):
        return ""
    return str(section.get("quant_algo") or section.get("quant_method") or "")
