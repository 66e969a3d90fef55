"""What a run found and did: for people, and as a JSON report."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from appliance.checkpoint.mask import Found
from appliance.checkpoint.maskfile import Mask
from appliance.checkpoint.prune import PrunePlan
from appliance.checkpoint.verify import Verification


@dataclass
class Outcome:
    """Filled step by step; a report has what there is."""

    source: str
    destination: Path
    mask: Mask
    found: Found | None = None
    plan: PrunePlan | None = None
    seconds: float | None = None
    verification: Verification | None = None
    input_scales: dict[int, tuple[float, float]] | None = None
    measured: dict[str, Any] | None = None


def describe_mask(found: Found) -> Iterator[str]:
    """Yield a line for each layer of a found mask."""
    yield "layer  matched by  farthest chosen  nearest other  in order  bias"
    for match in found.layers:
        yield (
            f"{match.layer:5}  {match.method:10}  {match.farthest:15.2e}  {match.nearest:13.2e}  "
            f"{'yes' if match.monotone else 'NO':8}  {match.bias}"
            + (f"  DOUBT: {match.doubt}" if match.doubt else "")
        )


def describe_plan(plan: PrunePlan) -> Iterator[str]:
    """Yield what the plan does, in a few lines."""
    mask, shards = plan.wanted.rules.mask, plan.shards
    yield (
        f"{shards.source.format_name()}: {len(mask.deleted)} layers, experts {mask.original} -> "
        f"{mask.retained}, tensors {shards.source.tensors:,} -> {shards.tensors:,}"
    )
    if survey := plan.wanted.survey:
        stays = f"; {len(survey.kept)} stay in BF16" if survey.kept else ""
        yield f"{len(survey.quantised)} matrices to {survey.choice.kind}{stays}"
    yield (
        f"weights {shards.source.data_bytes / 1e9:.1f} -> {shards.data_bytes / 1e9:.1f} GB in "
        f"{len(shards.plans)} shards; {plan.total_bytes:,} bytes in all"
    )
    if shards.offsets:
        yield f"left out: {len(shards.offsets)} KV offsets (k_bias, v_bias), which vLLM refuses"
    for name, why in plan.left.items():
        yield f"left out: {name} ({why})"


def render_report(outcome: Outcome) -> str:
    """Return the report as JSON."""
    content: dict[str, Any] = {
        "source": outcome.source,
        "destination": str(outcome.destination),
        "mask": {str(layer): ids for layer, ids in enumerate(outcome.mask.deleted)},
        "seconds": outcome.seconds,
    }
    if outcome.measured:
        content["quantised"] = outcome.measured
    if plan := outcome.plan:
        content["plan"] = {
            "format": plan.shards.source.format_name(),
            "tensors": {"source": plan.shards.source.tensors, "pruned": plan.shards.tensors},
            "weights_bytes": {
                "source": plan.shards.source.data_bytes,
                "pruned": plan.shards.data_bytes,
            },
            "files_bytes": plan.total_bytes,
            "left_out": dict(plan.left),
            "kv_offsets_left_out": plan.shards.offsets,
            "digest": plan.digest,
        }
    if outcome.found:
        content["found"] = [asdict(match) for match in outcome.found.layers]
    if outcome.verification:
        content["verification"] = asdict(outcome.verification)
    if outcome.input_scales:
        # some kernels take the largest of a layer for all its experts: pruning can change it
        content["largest_input_scale_before_and_after"] = outcome.input_scales
    return json.dumps(content, indent=1) + "\n"
