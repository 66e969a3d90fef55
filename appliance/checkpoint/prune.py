"""The whole plan of a new checkpoint: every file of it, and what is wrong with the source."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import NamedTuple

from appliance.checkpoint.bar import Bar
from appliance.checkpoint.census import Census
from appliance.checkpoint.failures import CheckpointError, MaskError, SourceError
from appliance.checkpoint.folder import INDEX
from appliance.checkpoint.headers import Header, read_headers
from appliance.checkpoint.jobs import in_order
from appliance.checkpoint.layout import CONFIG, QUANTISATION, Layout, read_json
from appliance.checkpoint.mixed import mixed_config, mixed_file, section_of
from appliance.checkpoint.plan import Range, Rules, ShardPlan, plan_shard
from appliance.checkpoint.rewrite import (
    left_out,
    render_index,
    render_json,
    renumber,
    rewrite_config,
    rewrite_index,
    without_code,
)
from appliance.checkpoint.source import Source
from appliance.checkpoint.surveyed import Survey
from appliance.checkpoint.tensornames import roles_of

TOKENIZER = "tokenizer_config.json"
_VERSION = 1  # of what is written: a run interrupted before a change of it cannot be resumed


class Wanted(NamedTuple):
    """What the command asks for."""

    rules: Rules
    keep_code: bool = False
    survey: Survey | None = None  # of what is quantised: the rules have its recipes


@dataclass
class Summary:
    """What the shards' plans add up to."""

    source: Census
    plans: dict[str, ShardPlan] = field(default_factory=dict)
    offsets: list[str] = field(default_factory=list)
    tensors: int = 0
    data_bytes: int = 0


@dataclass(frozen=True)
class PrunePlan:
    """All that will be written.

    ``files`` has every file that is copied, whole or in part, without its list of tensors: ten
    thousand ranges take little memory, and 150,000 names do not. ``texts`` has every file that is
    written anew, in order. ``left`` says why a file does not come along. ``stamps`` are of the
    source's files; ``digest`` changes with them and with the wish.
    """

    wanted: Wanted
    shards: Summary
    files: Mapping[str, ShardPlan]
    texts: Mapping[str, bytes]
    left: Mapping[str, str]
    stamps: Mapping[str, str]
    digest: str

    @property
    def copied_bytes(self) -> int:
        """Return the length of all files that are copied."""
        return sum(plan.size for plan in self.files.values())

    @property
    def total_bytes(self) -> int:
        """Return what the destination will take."""
        return self.copied_bytes + sum(map(len, self.texts.values()))


def make_plan(source: Source, layout: Layout, wanted: Wanted, jobs: int = 1) -> PrunePlan:
    """Read all headers, ``jobs`` at a time, and return the plan.

    Raises CheckpointError for a source that is broken.
    """
    mask = wanted.rules.mask
    if layout.experts != mask.original or layout.layers != len(mask.deleted):
        raise MaskError(
            f"the mask is for {len(mask.deleted)} layers of {mask.original} experts, and "
            f"{source.label} has {layout.layers} of {layout.experts}",
            "--num-original-experts must be what config.json says",
        )
    stamps = _stamps(source, layout, jobs)  # before the headers: a change since then is seen
    with Bar("reading headers", len(layout.shards), unit="shards") as bar:
        summary, shard_of = _summarise(source, layout, wanted.rules, bar, jobs)
    left = {name: why for name in layout.others if (why := _left_out(name, wanted.keep_code))}
    texts = _texts(source, layout, wanted, summary.source.parts())
    if layout.index is not None:
        index = rewrite_index(layout.index, shard_of, summary.data_bytes)
        texts[INDEX] = render_index(index)  # the last: with it the checkpoint is whole
    carried = [name for name in layout.others if name not in left and name not in texts]
    return PrunePlan(
        wanted=wanted,
        shards=summary,
        files=summary.plans | {name: _whole(name, source.size(name)) for name in carried},
        texts=texts,
        left=left,
        stamps=stamps,
        digest=_digest(stamps, wanted),
    )


def _whole(name: str, size: int) -> ShardPlan:
    return ShardPlan(name, b"", (Range(0, size),) if size else (), (), ())


def _summarise(
    source: Source, layout: Layout, rules: Rules, bar: Bar, jobs: int
) -> tuple[Summary, dict[str, str]]:
    """Return what the plans add up to, and the new index's map."""
    summary = Summary(Census(layout.layers, layout.experts))
    shard_of: dict[str, str] = {}
    headers = read_headers(source, layout.shards, jobs)
    for name, header in zip(layout.shards, headers, strict=True):
        check_index(source, layout, name, header)
        roles = roles_of(header.tensors, layout.experts)
        summary.source.add(header.tensors, roles)
        plan = plan_shard(name, header, roles, rules)
        summary.plans[name] = replace(plan, tensors=())
        summary.data_bytes += plan.data_bytes
        summary.offsets += plan.offsets
        summary.tensors += len(plan.tensors)
        if layout.index is not None:
            shard_of.update(dict.fromkeys((tensor.name for tensor in plan.tensors), name))
        bar.add(1)
    problems = summary.source.problems()
    if lacking := len(layout.shard_of) - summary.source.tensors if layout.shard_of else 0:
        problems.insert(0, f"{INDEX} names {lacking} tensors that no shard has")
    if problems:
        raise CheckpointError(
            f"{source.label} is not whole: {'; '.join(problems[:3])}"
            + (f"; and {len(problems) - 3} more" if len(problems) > 3 else ""),
            "fetch it again; appliance model check names everything",
            code="checkpoint_census",
        )
    return summary, shard_of


def check_index(source: Source, layout: Layout, name: str, header: Header) -> None:
    """Raise CheckpointError when a shard has a tensor that the index places elsewhere."""
    if layout.index is None:
        return
    for tensor in header.tensors:
        if (said := layout.shard_of.get(tensor.name)) != name:
            raise CheckpointError(
                f"{source.label}/{name} has {tensor.name}, which {INDEX} "
                + (f"places in {said!a}" if said else "does not name"),
                "fetch the index and this shard again",
                code="checkpoint_index",
            )


def _left_out(name: str, keep_code: bool) -> str:
    why = left_out(name)
    return "" if keep_code and not name.endswith(".safetensors") else why


def _texts(
    source: Source, layout: Layout, wanted: Wanted, parts: frozenset[str]
) -> dict[str, bytes]:
    """Return the files that are written anew, but for the index; config.json is the last."""
    mask, texts = wanted.rules.mask, {}
    config = rewrite_config(layout.config, mask, keep_code=wanted.keep_code)
    has_file = QUANTISATION in layout.others
    file = renumber(read_json(source, QUANTISATION), mask) if has_file else {}
    if wanted.survey and wanted.survey.quantised:
        section = mixed_config(section_of(config, file), parts, wanted.survey, layout.layers)
        config["quantization_config"] = section
        file = mixed_file(file, section)
    if file:
        texts[QUANTISATION] = render_json(file)
    if TOKENIZER in layout.others and not wanted.keep_code:
        content = read_json(source, TOKENIZER)
        if without_code(content) != content:
            texts[TOKENIZER] = render_json(without_code(content))
    texts[CONFIG] = render_json(config)
    return texts


def require_unchanged(source: Source, plan: PrunePlan) -> None:
    """Raise SourceError when a file of the source is not what it was when the plan was made."""
    changed = [name for name, stamp in plan.stamps.items() if source.stamp(name) != stamp]
    if changed:
        raise SourceError(
            f"{source.label} has changed while it was read: {', '.join(changed[:3])}"
            + (f" and {len(changed) - 3} more" if len(changed) > 3 else ""),
            "what was written is a mixture: remove it, and begin anew when the source is whole",
            code="source_changed",
        )


def _stamps(source: Source, layout: Layout, jobs: int) -> dict[str, str]:
    names = (*layout.shards, *layout.others, CONFIG, *([INDEX] if layout.index else []))
    return dict(zip(names, in_order(source.stamp, names, jobs, source.stop), strict=True))


def _digest(stamps: Mapping[str, str], wanted: Wanted) -> str:
    rules = wanted.rules
    what = [_VERSION, stamps, rules.mask.deleted, rules.keep_kv_bias, wanted.keep_code]
    what += [[name, *astuple(recipe)] for name, recipe in sorted(rules.recipes.items())]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
