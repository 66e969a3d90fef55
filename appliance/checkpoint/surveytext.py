"""What was measured, and what it is worth, for people and for programs. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from appliance.checkpoint.folder import model_facts
from appliance.checkpoint.projections import ATTENTION, HEAD
from appliance.checkpoint.surveyed import Measured, Survey
from appliance.checkpoint.weigh import Scales
from appliance.errors import ModelFolderError
from appliance.kvcache import NotComputable, cache_shape


def describe_survey(survey: Survey, kv_token_bytes: int, bandwidth: float) -> Iterator[str]:
    """Yield each layer's errors, and what one token reads before and after."""
    yield from _errors(survey)
    yield from _bytes(survey, kv_token_bytes, bandwidth)


def kv_token_bytes(config: Mapping[str, Any]) -> int:
    """Return what the KV cache of one token takes, 0 when the config does not tell."""
    try:
        facts = model_facts(Path(), dict(config), Scales(), 0)
        return cache_shape(facts, "auto", None).token_bytes
    except (ModelFolderError, NotComputable):
        return 0


def _errors(survey: Survey) -> Iterator[str]:
    by_layer: dict[int, dict[str, Measured]] = {}
    for one in survey.measured:
        by_layer.setdefault(one.projection.layer, {})[one.projection.kind] = one
    head = by_layer.pop(-1, None)
    if by_layer:
        yield f"|W - Q| / |W| of {survey.choice.kind}"
        yield "layer       q       k       v       o  least cosine  worst row"
    for layer, row in sorted(by_layer.items()):
        errors = "".join(f"  {row[kind].error.relative:.4f}" for kind in ATTENTION)
        least = min(one.error.cosine for one in row.values())
        yield f"{layer:5}{errors}  {least:12.6f}  {_worst(row)}{_kept(row)}"
    if head:
        error = head[HEAD].error
        yield f" head  {error.relative:.4f}{'':26}{error.cosine:12.6f}  {_worst(head)}{_kept(head)}"


def _worst(row: Mapping[str, Measured]) -> str:
    worst = max(row.values(), key=lambda one: one.error.worst)
    return f"{worst.projection.kind} {worst.error.worst_row}: {worst.error.worst:.4f}"


def _kept(row: Mapping[str, Measured]) -> str:
    kept = [kind for kind, one in row.items() if one.kept]
    return f"  stays BF16: {', '.join(kept)}" if kept else ""


def _bytes(survey: Survey, kv_bytes: int, bandwidth: float) -> Iterator[str]:
    views = [survey.before, survey.after(head=False), survey.after(head=True)]
    yield ""
    yield f"one token reads, computed{'':13}before   without head  with the head"
    for part in survey.before.parts():
        sizes = [view.parts()[part] / 1e9 for view in views]
        yield f"  {part:26}{sizes[0]:13.3f}{sizes[1]:15.3f}{sizes[2]:15.3f} GB"
    totals = [view.token_bytes / 1e9 for view in views]
    yield f"  {'in all':26}{totals[0]:13.3f}{totals[1]:15.3f}{totals[2]:15.3f} GB"
    rates = [view.roofline(bandwidth) for view in views]
    label = f"tokens/s at {bandwidth:g} GB/s"
    yield f"  {label:26}{rates[0]:13.1f}{rates[1]:15.1f}{rates[2]:15.1f} at most"
    if kv_bytes:
        saved = [(survey.before.token_bytes - view.token_bytes) // kv_bytes for view in views]
        label = f"KV tokens of {kv_bytes:,} B more"
        yield f"  {label:30}{saved[0]:9,}{saved[1]:15,}{saved[2]:15,}"
    yield f"this is {'with' if survey.has_head else 'without'} the head"
    yield ""


def survey_view(survey: Survey, kv_bytes: int, bandwidth: float) -> dict[str, Any]:
    """Return all that was measured, for programs."""
    views = {
        "before": survey.before,
        "without_head": survey.after(head=False),
        "with_head": survey.after(head=True),
    }
    return {
        "format": survey.choice.kind,
        "keep_above": survey.keep_above,
        "head": survey.has_head,
        "bytes": {
            "before": sum(one.projection.matrix.size for one in survey.quantised),
            "after": sum(one.recipe.size for one in survey.quantised),
        },
        "projections": {one.projection.module: _projection(one) for one in survey.measured},
        "computed": {
            name: {
                "token_bytes": view.parts() | {"all": view.token_bytes},
                "roofline_tokens_per_s": round(view.roofline(bandwidth), 2),
                "kv_tokens_gained": (survey.before.token_bytes - view.token_bytes) // kv_bytes
                if kv_bytes
                else None,
            }
            for name, view in views.items()
        },
        "bandwidth_gb_per_s": bandwidth,
        "kv_token_bytes": kv_bytes or None,
    }


def _projection(one: Measured) -> dict[str, Any]:
    return {
        **asdict(one.error),
        "bytes_before": one.projection.matrix.size,
        "bytes_after": one.projection.matrix.size if one.kept else one.recipe.size,
        "stays_bf16": one.kept or None,
    }
