"""Makes a new checkpoint of an old one: fewer experts, attention in fewer bits, or both at once.

The steps behind delete_experts, quantize_attention and ``appliance model shrink``.
"""

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from appliance.checkpoint.bar import Bar
from appliance.checkpoint.destination import (
    Destination,
    is_finished,
    refuse_foreign,
    refuse_overlap,
)
from appliance.checkpoint.failures import CheckpointError, MaskError
from appliance.checkpoint.inputscales import input_scales
from appliance.checkpoint.journal import Journal
from appliance.checkpoint.layerchart import draw
from appliance.checkpoint.layout import Layout, read_layout
from appliance.checkpoint.mask import Found, find_mask
from appliance.checkpoint.maskfile import Mask, read_mask, render_mask
from appliance.checkpoint.opening import open_source
from appliance.checkpoint.outcome import Outcome, describe_mask, describe_plan, render_report
from appliance.checkpoint.plan import Rules
from appliance.checkpoint.projections import Choice
from appliance.checkpoint.prune import PrunePlan, Wanted, make_plan, require_unchanged
from appliance.checkpoint.saving import refuse_unwritable, save
from appliance.checkpoint.source import LocalSource, Source
from appliance.checkpoint.surveyed import Survey
from appliance.checkpoint.surveytext import describe_survey, kv_token_bytes, survey_view
from appliance.checkpoint.telling import tell
from appliance.checkpoint.verify import Verification, Verifier
from appliance.checkpoint.write import Writer, write_error

_AFTERWARDS = "DST is as it was said above; the same with --verify and another F reports anew"


@dataclass(frozen=True)
class Pruning:
    """Which experts go: those of ``file``, or those that the pruned ``reference`` lacks."""

    file: Path | None = None
    reference: str | None = None
    original: int | None = None
    retained: int | None = None
    save: Path | None = None
    allow_ambiguous: bool = False


@dataclass(frozen=True)
class Quantising:
    """What is quantised, but for what is further off than ``keep_above``.

    ``bandwidth`` is the memory's in GB/s, for the predictions.
    """

    choice: Choice
    keep_above: float | None
    chart: Path | None
    bandwidth: float


@dataclass(frozen=True)
class Job:
    """What a command asks for."""

    command: str
    source: str
    destination: Path
    pruning: Pruning | None = None
    quantising: Quantising | None = None
    jobs: int = 4
    dry_run: bool = False
    verify: bool = False
    resume: bool = False
    report: Path | None = None
    keep_kv_bias: bool = False
    keep_code: bool = False

    @property
    def small_files(self) -> list[Path]:
        """Return the files that are asked for beside the checkpoint."""
        save = self.pruning.save if self.pruning else None
        chart = self.quantising.chart if self.quantising else None
        return [path for path in (self.report, save, chart) if path]


def run(job: Job) -> int:
    """Do what is asked for; return the exit code.

    Raises ApplianceError, and OSError for what is not foreseen.
    """
    for path in job.small_files:
        refuse_unwritable(path)  # told now, and not after an hour
    if job.quantising:
        require_numpy()
    source = open_source(job.source)
    try:
        if isinstance(source, LocalSource):
            refuse_overlap(Path(job.source), job.destination)
        layout = read_layout(source)
        mask, found = _mask(job, source, layout)
        outcome = Outcome(source.label, job.destination, mask, found)
        if not (job.dry_run or (job.verify and is_finished(job.destination))):
            refuse_foreign(job.destination, resume=job.resume)  # told now, and not after a minute
        survey = _survey(job, source, layout, outcome)
        rules = Rules(mask, job.keep_kv_bias, survey.recipes if survey else {})
        wanted = Wanted(rules, job.keep_code, survey)
        outcome.plan = make_plan(source, layout, wanted, job.jobs)
        del layout  # 190,000 names are 40 MB
        _say(job, describe_plan(outcome.plan))
        if not job.dry_run:
            _write_and_verify(job, source, outcome.plan, outcome)
        if job.report:
            if job.pruning:
                outcome.input_scales = input_scales(source, outcome.plan, job.jobs)
            save(job.report, render_report(outcome), _AFTERWARDS)
    finally:
        source.close()
    return 1 if outcome.verification and outcome.verification.problems else 0


def require_numpy() -> None:
    """Raise CheckpointError when numpy is not there."""
    if find_spec("numpy") is None:
        raise CheckpointError(
            f"quantising needs numpy, which {sys.executable} does not have",
            "pip install numpy there, or run this with the Python of the engine, which has it",
            code="numpy_missing",
        )


def _survey(job: Job, source: Source, layout: Layout, outcome: Outcome) -> Survey | None:
    asked = job.quantising
    if asked is None:
        return None
    # here, for it needs numpy, and pruning does not
    from appliance.checkpoint.quantise.survey import survey

    found = survey(source, layout, asked.choice, asked.keep_above, job.jobs)
    cache = kv_token_bytes(layout.config)
    _say(job, describe_survey(found, cache, asked.bandwidth))
    outcome.measured = survey_view(found, cache, asked.bandwidth)
    if asked.chart:
        save(asked.chart, draw(found), "name another file")
    return found


def _mask(job: Job, source: Source, layout: Layout) -> tuple[Mask, Found | None]:
    asked = job.pruning
    if asked is None:
        return Mask(layout.experts, ((),) * layout.layers), None
    original = asked.original or layout.experts
    if original != layout.experts:
        raise MaskError(
            f"{source.label} has {layout.experts} experts a layer, and not {original}",
            "leave --num-original-experts out, or name the checkpoint that has them all",
        )
    if asked.file:
        return read_mask(asked.file, layout.layers, original, asked.retained), None
    reference = open_source(str(asked.reference))
    try:
        found = find_mask(source, layout, reference, asked.retained, job.jobs)
    finally:
        reference.close()
    _say(job, describe_mask(found))
    if found.doubts and not asked.allow_ambiguous:
        raise MaskError(
            f"the mask is in doubt in {len(found.doubts)} of {layout.layers} layers: "
            f"{'; '.join(found.doubts[:3])}",
            "is REF pruned from this very model? --allow-ambiguous takes the best guess",
        )
    if asked.save:
        save(asked.save, render_mask(found.mask), "name another file")
    return found.mask, found


def _say(job: Job, lines: Iterable[str]) -> None:
    if why := tell("".join(f"{line}\n" for line in lines), sys.stdout):
        tell(f"{job.command}: stdout is lost ({why}); the work goes on\n", sys.stderr)


def _write_and_verify(job: Job, source: Source, plan: PrunePlan, outcome: Outcome) -> None:
    folder: Path = job.destination
    if not (job.verify and not job.resume and is_finished(folder)):
        began = time.monotonic()
        write(source, plan, folder, resume=job.resume, jobs=job.jobs)
        outcome.seconds = time.monotonic() - began
        _say(job, [f"wrote {plan.total_bytes:,} bytes in {outcome.seconds:.1f} s into {folder}"])
    if job.verify:
        outcome.verification = verify(source, plan, folder, job.jobs)
        problems = outcome.verification.problems
        _say(job, (f"WRONG: {line}" for line in problems[:20]))
        said = f"{len(problems)} problems" if problems else "all as in the source"
        counts = outcome.verification
        _say(job, [f"verified {counts.tensors:,} tensors, {counts.compared_bytes:,} bytes: {said}"])


def write(source: Source, plan: PrunePlan, folder: Path, *, resume: bool, jobs: int) -> None:
    """Write the pruned checkpoint into ``folder``.

    Raises DestinationError when it must not or cannot hold it, WriteError when the disk is full.
    """
    destination = Destination(folder, resume=resume)
    try:
        journal = Journal(destination, plan.digest)
        try:
            destination.require_room(plan.total_bytes)
            with Bar("writing", plan.copied_bytes) as bar:
                Writer(source, destination, journal, bar).write_files(plan.files.values(), jobs)
            require_unchanged(source, plan)
            for name, text in plan.texts.items():
                destination.put(name, text)
        finally:
            journal.close()
        destination.finish()
    except OSError as cause:
        raise write_error(destination, "what belongs to the checkpoint", cause) from cause
    finally:
        destination.close()


def verify(source: Source, plan: PrunePlan, folder: Path, jobs: int) -> Verification:
    """Compare the checkpoint in ``folder`` with its source."""
    pruned = LocalSource(folder)
    try:
        with Bar("comparing", plan.copied_bytes) as bar:
            return Verifier(source, pruned, plan, bar).verify(jobs)
    finally:
        pruned.close()
