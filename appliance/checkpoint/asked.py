"""From a command line to a job that is done: what the flags ask for, and how it ends."""

import argparse
import sys
from typing import Any

from appliance.checkpoint.failures import WriteError
from appliance.checkpoint.job import Job, Pruning, Quantising, run
from appliance.checkpoint.projections import Choice
from appliance.checkpoint.telling import tell
from appliance.errors import ApplianceError


def finish(job: Job) -> int:
    """Do a job; return the exit code. Errors are one message on stderr, no traceback."""
    command = job.command
    try:
        return run(job)
    except ApplianceError as error:
        tell(f"{command}: {error}\n", sys.stderr)
        return error.exit_code
    except OSError as cause:
        tell(f"{command}: {cause}\n  -> mend this, then --resume goes on\n", sys.stderr)
        return WriteError.exit_code
    except KeyboardInterrupt:
        tell(f"{command}: interrupted; --resume goes on\n", sys.stderr)
        return 130


def job_of(command: str, options: argparse.Namespace, **more: Any) -> Job:
    """Return the job that the common flags ask for."""
    names = (
        *("source", "destination", "jobs", "dry_run", "verify", "resume", "report"),
        *("keep_kv_bias", "keep_code"),
    )
    return Job(command, **{name: getattr(options, name) for name in names}, **more)


def pruning_of(options: argparse.Namespace) -> Pruning:
    """Return what the flags say of the experts."""
    return Pruning(
        file=options.deleted_experts_file,
        reference=options.compare_with,
        original=options.num_original_experts,
        retained=options.num_retained_experts,
        save=options.save_deleted_experts,
        allow_ambiguous=options.allow_ambiguous,
    )


def quantising_of(options: argparse.Namespace) -> Quantising:
    """Return what the flags say of the formats."""
    choice = Choice(options.format, options.layers, options.lm_head)
    return Quantising(choice, options.keep_above, options.chart, options.bandwidth)
