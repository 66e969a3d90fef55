"""Runs the steps on a GPU machine, and writes what they found after each of them.

    FOLDER/bin/python -m tests.gpu.run --box FOLDER --out DIR --steps bare,latency,abort

FOLDER is what ``unpack.py`` made. A step that fails is recorded with its reason and the ends of
the logs, and the others go on. DIR gets report-N.json, table-N.txt and logs-N.tar.gz, N the first
step's name. ``--dry-run`` takes vLLM's CPU engine, or a fake one, to try the script itself.
"""

import argparse
import os
import shlex
import signal
import sys
import tarfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.gpu import appliance_steps, latency, model_steps, quant_steps, serving
from tests.gpu.box import Box, machine_facts
from tests.gpu.record import Report, attempt
from tests.gpu.stage import DRY, Sizes, Stage

# In order of worth, with the seconds that each may take.
LIMITS = {
    "bare": 420.0, "latency": 520.0, "abort": 60.0, "appliance": 400.0, "kill": 200.0,
    "force-swap": 60.0, "pruned": 260.0, "ngram": 260.0, "quantised": 400.0, "wide": 400.0,
    "flashinfer": 540.0,
}  # fmt: skip
STEPS = (
    serving.STEPS
    | {"latency": latency.latency}
    | appliance_steps.STEPS
    | model_steps.STEPS
    | quant_steps.STEPS
)
SPARE_S = 20.0  # to end all programs and write the report
DRY_PATIENCE = 4  # an engine on two cores, that others use too
LEAST_S = 20.0  # a step is not begun with less left


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps; return 0 when none failed."""
    options = _options(arguments)
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    first = options.steps[0]
    engine = shlex.split(options.engine) or [str(options.box / "bin" / "vllm")]
    logs = options.box / "logs" / f"{first}-{os.getpid()}"
    box = Box(options.box, logs, tuple(engine), options.dry_run)
    stage = Stage(box, DRY if options.dry_run else Sizes())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended first
    box.end_all()  # of a call that was killed
    report = Report(out / f"report-{first}.json", machine_facts(), sys.argv)
    deadline = time.monotonic() + options.seconds - SPARE_S
    try:
        for name in options.steps:
            left = deadline - time.monotonic()
            if left < LEAST_S:
                print(f"no time is left for {name}", flush=True)
                break
            patience = DRY_PATIENCE if options.dry_run else 1
            seconds = min(LIMITS[name] * patience, left)
            outcome = attempt(name, partial(STEPS[name], stage), seconds, box.tails)
            report.outcomes.append(outcome)
            report.write()
            pack_logs(logs, out / f"logs-{first}.tar.gz")
    finally:
        stage.clear()
    table = report.table()
    (out / f"table-{first}.txt").write_text(table + "\n")
    print(f"\n{report.machine['gpu']}\n{table}", flush=True)
    return int(any(outcome.verdict == "FAILED" for outcome in report.outcomes))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--box", type=_folder, required=True, metavar="FOLDER")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--steps", type=_steps, default=list(LIMITS), metavar="A,B",
                        help=", ".join(LIMITS))  # fmt: skip
    parser.add_argument("--seconds", type=float, default=1e6, metavar="S",
                        help="for all; the last step is cut, none begun too late")  # fmt: skip
    parser.add_argument("--engine", default="", metavar="COMMAND", help="default: FOLDER/bin/vllm")
    parser.add_argument("--dry-run", action="store_true", help="no GPU: small, and on the CPU")
    return parser.parse_args(arguments)


def _folder(text: str) -> Path:
    folder = Path(text).expanduser().resolve()
    if not (folder / "checkpoints").is_dir():
        raise argparse.ArgumentTypeError(f"{folder} has no checkpoints: run unpack.py first")
    return folder


def _steps(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    if wrong := [name for name in names if name not in STEPS]:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(LIMITS)}")
    if not names:
        raise argparse.ArgumentTypeError(f"name one of {', '.join(LIMITS)}")
    return names


def pack_logs(folder: Path, archive: Path) -> None:
    """Write all logs of this call as one archive, whole or not at all."""
    fresh = archive.with_suffix(".new")
    with tarfile.open(fresh, "w:gz") as packed:
        for path in sorted(folder.glob("*.log")):
            packed.add(path, path.name)
    fresh.rename(archive)


if __name__ == "__main__":
    sys.exit(main())
