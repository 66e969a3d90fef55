"""The command behind extras/delete_experts.py: find or read the mask, prune, verify, report."""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from appliance.checkpoint.bar import Bar
from appliance.checkpoint.destination import Destination, is_finished, refuse_overlap
from appliance.checkpoint.failures import DestinationError, MaskError, WriteError
from appliance.checkpoint.inputscales import input_scales
from appliance.checkpoint.journal import Journal
from appliance.checkpoint.layout import Layout, read_layout
from appliance.checkpoint.mask import Found, find_mask
from appliance.checkpoint.maskfile import Mask, read_mask, render_mask
from appliance.checkpoint.opening import open_source
from appliance.checkpoint.outcome import Outcome, describe_mask, describe_plan, render_report
from appliance.checkpoint.plan import Rules
from appliance.checkpoint.prune import PrunePlan, Wanted, make_plan, require_unchanged
from appliance.checkpoint.source import LocalSource, Source
from appliance.checkpoint.telling import tell
from appliance.checkpoint.verify import Verification, Verifier
from appliance.checkpoint.write import Writer, write_error
from appliance.errors import ApplianceError

_EXAMPLES = """\
examples:
  delete_experts.py MiniMax-M2.7-NVFP4 Nikola --deleted-experts-file deleted_experts.json
  delete_experts.py SRC DST --compare-with REF --save-deleted-experts deleted_experts.json
                       find the mask: which experts of SRC does the pruned REF still have?
                       (with --dry-run the mask is all that is written)
  delete_experts.py SRC DST --deleted-experts-file F --dry-run    say what would be written
  delete_experts.py SRC DST --deleted-experts-file F --resume     after an interruption
  delete_experts.py SRC DST --deleted-experts-file F --verify     a finished DST is only checked
SRC and REF are folders; they may also be hf://owner/name[@revision] or an https address: then
only what stays is fetched. --verify of such a SRC fetches all of it a second time.
environment: HF_ENDPOINT is the hub (default https://huggingface.co); HF_TOKEN, HF_TOKEN_PATH or
HF_HOME/token has the token, which is sent to that host alone, over https; HTTPS_PROXY and NO_PROXY
name a proxy, SSL_CERT_FILE the certificates to trust.
exit codes:
  0 done                                        1 the mask is in doubt, or DST differs from SRC
  2 wrong flags                                 65 SRC is broken, hostile or not understood
  66 SRC cannot be read, or has changed         73 DST or another file may not or cannot be made
  74 writing failed (--resume goes on)          75 the server does not answer (--resume goes on)
  76 the server breaks the rules, or SRC changed    77 a token or a licence is missing
  130 interrupted (--resume goes on)
"""
_AFTERWARDS = "DST is as it was said above; the same with --verify and another F reports anew"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code. Errors are one message on stderr, no traceback."""
    options = build_parser().parse_args(arguments)
    try:
        return _run(options)
    except ApplianceError as error:
        tell(f"delete_experts: {error}\n", sys.stderr)
        return error.exit_code
    except OSError as cause:
        tell(f"delete_experts: {cause}\n  -> mend this, then --resume goes on\n", sys.stderr)
        return WriteError.exit_code
    except KeyboardInterrupt:
        tell("delete_experts: interrupted; --resume goes on\n", sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="delete_experts.py",
        description="Delete experts of a MiniMax-M2 checkpoint: copy what stays, byte by byte, "
        "into a new folder. Nothing is decoded; any quantisation, little memory.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SRC", help="the checkpoint with all experts")
    parser.add_argument("destination", metavar="DST", type=Path, help="an empty or new folder")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument(
        "--deleted-experts-file", metavar="F", type=Path, help="the mask, as JSON by layer"
    )
    mode.add_argument("--compare-with", metavar="REF", help="find the mask by a pruned checkpoint")
    add = parser.add_argument
    add("--num-original-experts", metavar="N", type=_positive, help="experts a layer of SRC")
    add("--num-retained-experts", metavar="N", type=_positive, help="experts a layer of DST")
    add("--save-deleted-experts", metavar="F", type=Path, help="write the found mask there")
    add("--allow-ambiguous", action="store_true", help="use a found mask that is in doubt")
    add("--dry-run", action="store_true", help="say what would be written, and write nothing")
    add("--verify", action="store_true", help="compare DST with SRC, byte by byte, at the end")
    add("--resume", action="store_true", help="go on with an interrupted run")
    add("--jobs", metavar="N", type=_positive, default=4, help="files at a time (default 4)")
    add("--report", metavar="F", type=Path, help="write what was done and found, as JSON")
    add("--keep-kv-bias", action="store_true", help="keep k_bias and v_bias (vLLM refuses them)")
    add("--keep-code", action="store_true", help="carry Python files and pickles over, too")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _run(options: argparse.Namespace) -> int:
    for path in filter(None, (options.report, options.save_deleted_experts)):
        refuse_unwritable(path)  # told now, and not after an hour
    source = open_source(options.source)
    try:
        if isinstance(source, LocalSource):
            refuse_overlap(Path(options.source), options.destination)
        layout = read_layout(source)
        mask, found = _mask(options, source, layout)
        outcome = Outcome(source.label, options.destination, mask, found)
        wanted = Wanted(Rules(mask, options.keep_kv_bias), options.keep_code)
        outcome.plan = make_plan(source, layout, wanted, options.jobs)
        del layout  # 190,000 names are 40 MB
        _say(describe_plan(outcome.plan))
        if not options.dry_run:
            _write_and_verify(options, source, outcome.plan, outcome)
        if options.report:
            outcome.input_scales = input_scales(source, outcome.plan, options.jobs)
            save(options.report, render_report(outcome), _AFTERWARDS)
    finally:
        source.close()
    return 1 if outcome.verification and outcome.verification.problems else 0


def _mask(options: argparse.Namespace, source: Source, layout: Layout) -> tuple[Mask, Found | None]:
    original = options.num_original_experts or layout.experts
    if original != layout.experts:
        raise MaskError(
            f"{source.label} has {layout.experts} experts a layer, and not {original}",
            "leave --num-original-experts out, or name the checkpoint that has them all",
        )
    retained = options.num_retained_experts
    if options.deleted_experts_file:
        path = options.deleted_experts_file
        return read_mask(path, layout.layers, original, retained), None
    reference = open_source(options.compare_with)
    try:
        found = find_mask(source, layout, reference, retained, options.jobs)
    finally:
        reference.close()
    _say(describe_mask(found))
    if found.doubts and not options.allow_ambiguous:
        raise MaskError(
            f"the mask is in doubt in {len(found.doubts)} of {layout.layers} layers: "
            f"{'; '.join(found.doubts[:3])}",
            "is REF pruned from this very model? --allow-ambiguous takes the best guess",
        )
    if options.save_deleted_experts:
        save(options.save_deleted_experts, render_mask(found.mask), "name another file")
    return found.mask, found


def refuse_unwritable(path: Path) -> None:
    """Raise DestinationError when a file that is asked for surely cannot be written."""
    if not path.parent.is_dir():
        raise DestinationError(f"there is no folder for {path}", "make it, or name another")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise DestinationError(f"{path} cannot be written", "name a file in a folder of yours")


def save(path: Path, text: str, hint: str) -> None:
    """Write a small file that was asked for: whole, or what was there stays.

    Raises DestinationError with ``hint`` when it cannot be.
    """
    path = path.resolve()
    is_plain = path.is_file() or not path.exists()  # and no /dev/stdout
    part = path.with_name(f"{path.name}.part") if is_plain else path
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as cause:
        if is_plain:
            with suppress(OSError):
                part.unlink()
        raise DestinationError(f"{path} cannot be written: {cause.strerror}", hint) from cause


def _say(lines: Iterable[str]) -> None:
    if why := tell("".join(f"{line}\n" for line in lines), sys.stdout):
        tell(f"delete_experts: stdout is lost ({why}); the work goes on\n", sys.stderr)


def _write_and_verify(
    options: argparse.Namespace, source: Source, plan: PrunePlan, outcome: Outcome
) -> None:
    folder: Path = options.destination
    if not (options.verify and not options.resume and is_finished(folder)):
        began = time.monotonic()
        write(source, plan, folder, resume=options.resume, jobs=options.jobs)
        outcome.seconds = time.monotonic() - began
        _say([f"wrote {plan.total_bytes:,} bytes in {outcome.seconds:.1f} s into {folder}"])
    if options.verify:
        outcome.verification = verify(source, plan, folder, options.jobs)
        problems = outcome.verification.problems
        _say(f"WRONG: {line}" for line in problems[:20])
        said = f"{len(problems)} problems" if problems else "all as in the source"
        counts = outcome.verification
        _say([f"verified {counts.tensors:,} tensors, {counts.compared_bytes:,} bytes: {said}"])


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
