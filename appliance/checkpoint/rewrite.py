"""What the files beside the shards become: config, index, lists of experts. Pure."""

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import PurePosixPath
from typing import Any

from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.layout import EXPERT_KEYS
from appliance.checkpoint.maskfile import Mask

# Nothing of these is needed to serve MiniMax-M2: vLLM has the model, and its tokenizer is JSON.
_CODE = {".py", ".so", ".sh", ".pyc", ".exe", ".dll", ".dylib", ".js", ".whl", ".jar"}
_PICKLES = {
    *(".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"),
    *(".h5", ".keras", ".pdparams", ".tar", ".zip", ".gz", ".7z"),
}
# One expert of one layer; only such an entry can be given its new number.
_ONE = re.compile(
    r"((?:[a-z_]+\.)*layers\.([0-9]+)\.(?:block_sparse_moe|mlp)\.experts\.)([0-9]+)(\.[^\[\](){}|]*)?"
)
_NAMES_EXPERT = re.compile(r"experts(?:\\?\.|\[\.\])\(?[0-9]")


def left_out(name: str) -> str:
    """Return why a file beside the shards does not come along, "" when it does."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _CODE:
        return "code"
    if suffix in _PICKLES:
        return "may hold pickles, which run code when they are read"
    if suffix == ".safetensors":
        return "weights that the index does not name"
    return ""


def rewrite_config(config: Mapping[str, Any], mask: Mask, *, keep_code: bool) -> dict[str, Any]:
    """Return config.json's content for the pruned checkpoint.

    Without its code the checkpoint must not ask for it: ``auto_map`` goes.
    """
    new = deepcopy(dict(config))
    for part in (new, new.get("text_config")):
        if isinstance(part, dict):
            counted = (key for key in EXPERT_KEYS if type(part.get(key)) is int)
            part.update(dict.fromkeys(counted, mask.retained))
            if "quantization_config" in part:
                part["quantization_config"] = renumber(part["quantization_config"], mask)
    return new if keep_code else without_code(new)


def without_code(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON file's content without its pointer to Python files."""
    return {key: value for key, value in content.items() if key != "auto_map"}


def renumber(content: Any, mask: Mask) -> Any:
    """Return a quantisation section with its experts renumbered, entries of deleted ones dropped.

    Raises CheckpointError for an entry, a pattern say, that names experts in another way.
    """
    if isinstance(content, dict):
        pairs = ((_renumbered(key, mask), value) for key, value in content.items())
        return {key: renumber(value, mask) for key, value in pairs if key is not None}
    if isinstance(content, list):
        texts = {item: _renumbered(item, mask) for item in content if isinstance(item, str)}
        kept = (item for item in content if not isinstance(item, str) or texts[item] is not None)
        return [texts[item] if isinstance(item, str) else renumber(item, mask) for item in kept]
    return content


def _renumbered(entry: str, mask: Mask) -> str | None:
    if match := _ONE.fullmatch(entry):
        head, layer, number, tail = match[1], int(match[2]), int(match[3]), match[4] or ""
        if layer < len(mask.deleted) and number < mask.original:
            new = mask.new_number(layer, number)
            return None if new is None else f"{head}{new}{tail}"
    if _NAMES_EXPERT.search(entry):
        raise CheckpointError(
            f"a quantisation list names experts in a way not known here: {entry[:200]!a}",
            "write the experts one by one, as model.layers.0.block_sparse_moe.experts.0",
            code="checkpoint_quantization",
        )
    return entry


def rewrite_index(
    index: Mapping[str, Any], shard_of: Mapping[str, str], data_bytes: int
) -> dict[str, Any]:
    """Return the index's content: its metadata but for the sizes, which are counted anew."""
    metadata = index.get("metadata")
    kept = dict(metadata) if isinstance(metadata, dict) else {}
    kept.pop("total_parameters", None)  # packed types do not tell how many there are
    kept["total_size"] = data_bytes
    return {**index, "metadata": kept, "weight_map": dict(sorted(shard_of.items()))}


def render_json(content: Mapping[str, Any]) -> bytes:
    """Return a JSON file's bytes, indented as the published ones are."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def render_index(content: Mapping[str, Any]) -> bytes:
    """Return the index's bytes, a line for each of its 150,000 tensors."""
    return (json.dumps(content, separators=(",\n  ", ": "), ensure_ascii=False) + "\n").encode()
