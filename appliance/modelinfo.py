"""What ``appliance model info`` tells: a checkpoint's kind, its sizes, and whether it fits here."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from appliance.checkpoint.opening import open_source
from appliance.checkpoint.sourcefacts import source_facts
from appliance.decode import DecodePlan, plan_decode
from appliance.decodeview import decode_text
from appliance.errors import DoesNotFit
from appliance.facts import ModelFacts
from appliance.kvcache import CacheShape, NotComputable, cache_shape
from appliance.memory import MemoryPlan, plan_memory
from appliance.observe import observe
from appliance.settings import Settings
from appliance.sizes import format_size


@dataclass(frozen=True)
class ModelInfo:
    """A checkpoint, its KV cache, and this box's memory plan for it: or ``trouble``, why not.

    ``decode`` is of the plan's context, or of the longest one where there is no plan.
    """

    label: str
    files: int
    file_bytes: int
    model: ModelFacts
    cache: CacheShape | None = None
    memory: MemoryPlan | None = None
    decode: DecodePlan | None = None
    trouble: str = ""
    remedy: str = ""


def read_info(text: str, settings: Settings) -> ModelInfo:
    """Look at the checkpoint that ``text`` names: of a remote one its config and headers.

    Raises SourceError, CheckpointError and ModelFolderError.
    """
    source = open_source(text)
    try:
        with Console(stderr=True).status("reading headers"):
            facts = source_facts(source)
        sizes = [source.size(name) for name in source.names()]
        label = source.label
    finally:
        source.close()
    return _placed(ModelInfo(label, len(sizes), sum(sizes), facts), settings)


def _placed(info: ModelInfo, settings: Settings) -> ModelInfo:
    """Return it with what it takes and reads on this box, or why that is not known."""
    model = info.model
    info = replace(info, decode=plan_decode(settings, model))
    try:
        cache = cache_shape(model, settings.kv_cache_dtype, settings.max_num_batched_tokens)
        info = replace(info, cache=cache)
        memory = plan_memory(settings, observe((), settings.cgroup_base), model)
    except NotComputable as cause:
        return replace(info, trouble=str(cause))
    except DoesNotFit as cause:
        return replace(info, trouble=cause.what, remedy=cause.hint)
    return replace(info, memory=memory, decode=memory.decode)


def print_info(text: str, settings: Settings, *, as_json: bool) -> int:
    """Print what the checkpoint is; return the exit code: 0, whether it fits here or not."""
    info = read_info(text, settings)
    if as_json:
        print(json.dumps(_view(info), indent=2))
        return 0
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _rows(info, settings):
        table.add_row(name, value)
    Console(soft_wrap=True, highlight=False, markup=False).print(table)
    if info.decode:
        print(f"\n{decode_text(info.decode)}")
    return 0


def _rows(info: ModelInfo, settings: Settings) -> Iterator[tuple[str, str]]:
    model = info.model
    types = ", ".join(f"{name} {format_size(size)}" for name, size in model.weights_by_dtype)
    experts = f"{model.num_experts} experts a layer" if model.num_experts else "dense"
    yield "checkpoint", info.label
    yield "architecture", f"{model.architecture} ({model.model_type})"
    yield "layers", f"{model.num_layers}, {experts}"
    yield "quantization", model.quantization or "none"
    yield "weights", f"{format_size(model.weights_bytes)} in {model.shard_count} shards: {types}"
    yield "files", f"{info.files}, {format_size(info.file_bytes)} ({info.file_bytes:,} bytes)"
    yield "longest context", f"{model.max_position_embeddings:,} tokens"
    if info.cache:
        yield "KV cache", f"{info.cache.token_bytes:,} bytes a token: {info.cache.arithmetic}"
    box = f"this box (profile {settings.profile})"
    if plan := info.memory:
        yield box, f"fits: context {plan.max_model_len:,}, {plan.max_num_seqs} requests at once"
        yield "", f"KV cache {format_size(plan.kv_bytes)} for {plan.kv_tokens:,} tokens"
        yield "", "-> appliance plan shows the whole budget once it is in its folder"
    else:
        yield box, info.trouble
        if info.remedy:
            yield "", f"-> {info.remedy}"


def _view(info: ModelInfo) -> dict[str, Any]:
    return {
        "checkpoint": info.label,
        "files": info.files,
        "file_bytes": info.file_bytes,
        "model": {**asdict(info.model), "folder": info.label},
        "kv_cache": asdict(info.cache) if info.cache else None,
        "fits": info.memory is not None,
        "memory": asdict(info.memory) if info.memory else None,
        "decode": asdict(info.decode) if info.decode else None,
        "problem": {"what": info.trouble, "hint": info.remedy} if info.trouble else None,
    }
