"""The quantisation sections of config.json and hf_quant_config.json when formats are mixed. Pure.

vLLM looks a layer's format up in ``quantized_layers``, by the names of its own modules: it calls
MiniMax-M2's experts ``mlp.experts``, and the checkpoint calls them ``block_sparse_moe.experts``.
Found under neither, experts of 4 bits would be loaded as unquantised ones. Both names are written.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from typing import Any

from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.formats import ALGORITHMS, GROUPS, Format
from appliance.checkpoint.layout import text_config
from appliance.checkpoint.projections import FUSED
from appliance.checkpoint.surveyed import Survey

MIXED = "MIXED_PRECISION"
_EXPERTS = {"NVFP4": 16, "W4A16_NVFP4": 16}  # formats of experts, and the numbers under a scale
_BLOCKS = ("block_sparse_moe", "mlp")
_FUSED_NAMES = tuple(f".{kind}_proj" for kind in FUSED)
Section = dict[str, Any]


def mixed_config(section: Any, parts: frozenset[str], survey: Survey, layers: int) -> Section:
    """Return config.json's ``quantization_config``; ``section`` is the source's, None for none.

    ``parts`` is what each expert has, as a census tells it.
    Raises CheckpointError when that is not ModelOpt's.
    """
    old = readable(section)
    new = {key: value for key, value in old.items() if key != "config_groups"}
    new |= {"quant_method": "modelopt", "quant_algo": MIXED}
    entries = _entries(old, "ignore") or _entries(old, "exclude_modules")
    new.pop("exclude_modules", None)
    new["ignore"] = excluded(entries, survey)
    new["quantized_layers"] = quantized_layers(old, parts, survey, layers)
    return new


def mixed_file(content: Mapping[str, Any], config: Section) -> Section:
    """Return hf_quant_config.json's content, which says the same as the section of config.json.

    ``content`` is the source's, empty for none.
    """
    inner = content.get("quantization")
    scheme = config.get("kv_cache_scheme")
    is_fp8 = isinstance(scheme, dict) and scheme.get("num_bits") == 8
    new = {
        "kv_cache_quant_algo": "FP8" if is_fp8 else None,
        "group_size": config.get("group_size", 16),
        **(inner if isinstance(inner, dict) else {}),
        "quant_algo": MIXED,
        "exclude_modules": config["ignore"],
        "quantized_layers": config["quantized_layers"],
    }
    return {"producer": {"name": "modelopt"}, **content, "quantization": new}


def section_of(config: Mapping[str, Any], file: Mapping[str, Any]) -> Any:
    """Return the quantisation section, wherever a checkpoint has it, in config.json's spelling.

    ``file`` is hf_quant_config.json's content, in which older checkpoints alone have it.
    """
    section = config.get("quantization_config") or text_config(config).get("quantization_config")
    holder = section if isinstance(section, dict) and "quantization" in section else file
    inner = holder.get("quantization")
    if not isinstance(inner, dict) or (isinstance(section, dict) and holder is file):
        return section
    new = {"quant_method": "modelopt", **inner}
    if str(new.pop("kv_cache_quant_algo", None)).upper() == "FP8":
        new["kv_cache_scheme"] = {"dynamic": False, "num_bits": 8, "type": "float"}
    return new


def quantized_layers(
    old: Section, parts: frozenset[str], survey: Survey, layers: int
) -> dict[str, Section]:
    """Return the format of each module that has one."""
    known = old.get("quantized_layers")
    found: dict[str, Section] = dict(known) if isinstance(known, dict) else {}
    if algorithm := _experts_format(old, parts):
        stems = sorted({name.rpartition("layers.")[0] for name in _modules(survey)}) or ["model."]
        for layer in range(layers):
            for block in _BLOCKS:
                name = f"{stems[0]}layers.{layer}.{block}.experts"
                entry = {"quant_algo": algorithm, "group_size": _EXPERTS[algorithm]}
                found.setdefault(name, entry)
    for one in survey.quantised:
        found[one.projection.module] = _entry(one.recipe.format)
    return found


def excluded(entries: Iterable[str], survey: Survey) -> list[str]:
    """Return the list of what is not quantised, without what is quantised now.

    An entry that covers several modules is replaced by those of them that stay as they are.
    """
    quantised = [one.projection.module for one in survey.quantised]
    new: dict[str, None] = {}
    for entry in entries:
        if any(_covers(entry, module) for module in quantised):
            new |= dict.fromkeys(module for module in survey.left if _covers(entry, module))
        else:
            new[entry] = None
    return [*(new | dict.fromkeys(survey.left))]


def _covers(entry: str, module: str) -> bool:
    """Tell whether an entry excludes a module: vLLM takes it as a pattern, or as a part."""
    fused = module.rpartition(".")[0] + ".qkv_proj" if module.endswith(_FUSED_NAMES) else module
    return any(entry in name or fnmatch(name, entry) for name in (module, fused))


def _modules(survey: Survey) -> list[str]:
    every = [one.projection.module for one in survey.measured] + [*survey.others]
    return [name for name in every if "layers." in name]


def _entry(kind: Format) -> Section:
    entry: Section = {"quant_algo": ALGORITHMS[kind]}
    return entry | {"group_size": GROUPS[kind]} if GROUPS[kind] > 1 else entry


def _entries(section: Section, key: str) -> list[str]:
    entries = section.get(key)
    return [entry for entry in entries if isinstance(entry, str)] if entries else []


def readable(section: Any) -> Section:
    """Return a section that ModelOpt wrote, or {}. Raises CheckpointError for another's."""
    if section is None:
        return {}
    if isinstance(section, dict):
        method = str(section.get("quant_method", "")).lower()
        algorithm = str(section.get("quant_algo", "")).upper()
        if method.startswith("modelopt") and algorithm in (*_EXPERTS, MIXED):
            return section
        said = algorithm or method or "another kind"
    else:
        said = type(section).__name__
    raise CheckpointError(
        f"the checkpoint is quantised by {said[:40]!a}, and only ModelOpt's NVFP4 can be added to",
        "name a checkpoint whose experts are ModelOpt's NVFP4, or one that is not quantised",
        code="checkpoint_quantization",
    )


def _experts_format(old: Section, parts: frozenset[str]) -> str:
    """Return the format of experts of these tensors, "" when they are not quantised."""
    if "w1.weight_scale_2" not in parts:
        return ""
    groups = old.get("config_groups")
    weights_only = (
        isinstance(groups, dict)
        and bool(groups)
        and all(
            isinstance(group, dict) and group.get("input_activations") is None
            for group in groups.values()
        )
    )
    return "W4A16_NVFP4" if weights_only or "w1.input_scale" not in parts else "NVFP4"
