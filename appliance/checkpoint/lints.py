"""Known traps: what keeps a checkpoint from loading, or makes it talk nonsense, told beforehand.

Each was met in public, or read in vLLM 0.33: the text says what happens, the hint what to do.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.findings import Finding, Level, in_order
from appliance.checkpoint.folder import INDEX
from appliance.checkpoint.headers import read_headers
from appliance.checkpoint.layout import QUANTISATION, Layout, read_json, read_layout
from appliance.checkpoint.mixedlints import MixedLints
from appliance.checkpoint.prune import TOKENIZER
from appliance.checkpoint.rewrite import left_out
from appliance.checkpoint.source import Source
from appliance.checkpoint.tensorlints import TensorLints

JOBS = 8  # headers at a time
# vLLM raises ValueError when one of them lacks.
_MODELOPT_KEYS = ("group_size", "kv_cache_quant_algo", "exclude_modules")


def lint(source: Source) -> list[Finding]:
    """Return every trap in a checkpoint, the worst first.

    Raises CheckpointError when it is none, or so broken that nothing can be told of it.
    """
    layout = read_layout(source)
    tensors = TensorLints(layout)
    file = read_json(source, QUANTISATION) if QUANTISATION in layout.others else {}
    mixed = MixedLints(layout, file)
    headers = read_headers(source, layout.shards, JOBS)
    for name, header in zip(layout.shards, headers, strict=True):
        tensors.look(source, name, header)
        mixed.look(source, name, header)
    return list(
        in_order(
            (
                *tensors.findings(),
                *mixed.findings(),
                *_index(layout, tensors),
                *_quantisation(layout, file, tensors),
                *_tokenizer(source, layout),
                *_files(layout),
            )
        )
    )


def _index(layout: Layout, tensors: TensorLints) -> Iterator[Finding]:
    if layout.index is None:
        return
    hint = "fetch the index again"
    if lacking := sorted(layout.shard_of.keys() - tensors.names):
        what = f"{INDEX} names {len(lacking)} tensors that no shard has, {lacking[0]} for one"
        yield Finding(Level.ERROR, "index_names_more", what, hint)
    if added := sorted(tensors.names - layout.shard_of.keys()):
        what = f"{INDEX} does not name {len(added)} tensors, {added[0]} for one"
        yield Finding(Level.WARNING, "index_names_less", what, hint)
    metadata = layout.index.get("metadata")
    said = metadata.get("total_size") if isinstance(metadata, dict) else None
    if said != tensors.census.data_bytes:
        what = f"{INDEX} says total_size {said}, and the tensors have {tensors.census.data_bytes}"
        yield Finding(Level.NOTE, "total_size", what, "vLLM does not read it")


def _quantisation(
    layout: Layout, file: Mapping[str, Any], tensors: TensorLints
) -> Iterator[Finding]:
    section = layout.config.get("quantization_config")
    caches = _has_fp8_cache(section)
    if QUANTISATION in layout.others:
        inner = file.get("quantization")
        if not isinstance(inner, dict) or (lacking := _lacking(inner)):
            keys = ", ".join(lacking) if isinstance(inner, dict) else "the section quantization"
            yield Finding(
                Level.ERROR,
                "modelopt_keys",
                f"{QUANTISATION} lacks {keys}: vLLM raises ValueError",
                "add what lacks; null and [] are allowed values",
            )
        else:
            caches = caches or _has_fp8_cache(inner)
    if caches and not tensors.cache_scales:
        yield Finding(
            Level.WARNING,
            "cache_scales_missing",
            "the KV cache is to be FP8, and no tensor has its scales: vLLM takes 1.0",
            "serve with --kv-cache-dtype auto if answers are worse",
        )


def _lacking(section: Mapping[str, Any]) -> list[str]:
    return [key for key in _MODELOPT_KEYS if key not in section]


def _has_fp8_cache(section: Any) -> bool:
    if not isinstance(section, dict):
        return False
    scheme, name = section.get("kv_cache_scheme"), section.get("kv_cache_quant_algo")
    return (isinstance(scheme, dict) and scheme.get("num_bits") == 8) or str(name).upper() == "FP8"


def _tokenizer(source: Source, layout: Layout) -> Iterator[Finding]:
    if TOKENIZER not in layout.others:
        return
    try:
        content = read_json(source, TOKENIZER)
    except CheckpointError as cause:
        yield Finding(Level.ERROR, "tokenizer_config", cause.what, cause.hint)
        return
    if str(content.get("tokenizer_class", "")).startswith("GPT2Tokenizer"):
        yield Finding(
            Level.NOTE,
            "tokenizer_class",
            "tokenizer_class is GPT2Tokenizer: transformers 5.0 to 5.3 then split text in another "
            "way than tokenizer.json says, and path names suffer",
            "serve with transformers 5.4 or later; vLLM 0.33 has it",
        )


def _files(layout: Layout) -> Iterator[Finding]:
    for name in layout.others:
        if why := left_out(name):
            yield Finding(
                Level.NOTE,
                "needless_file",
                f"{name}: {why}",
                "nothing of MiniMax-M2 needs it; delete_experts.py leaves it out",
            )
    automatic = layout.config.get("auto_map")
    for target in automatic.values() if isinstance(automatic, dict) else ():
        module = f"{str(target).rpartition('.')[0].rpartition('--')[2]}.py"
        if module not in layout.others and "--" not in str(target):
            yield Finding(
                Level.WARNING,
                "auto_map",
                f"config.json asks for {module}, which is not there: --trust-remote-code fails",
                "remove auto_map from config.json",
            )
