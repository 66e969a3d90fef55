"""The command: see ``build.sh --help``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from unglitched_vllm.source import enginejson, steps
from unglitched_vllm.source.errors import SourceError
from unglitched_vllm.source.patches import read_series
from unglitched_vllm.source.targets import TARGETS
from unglitched_vllm.source.upstream import read_upstream

ROOT = Path(__file__).resolve().parents[2]
CPU_ENGINE = "0.32.0"  # the demo's engine, as appliance/demo/engine.lock pins it

ABOUT = """From vLLM's own release to our engine: fetch by name, check the sha256, patch, and build.

Two ways to an engine:
  --engine wheel   the stock aarch64 wheel, which already holds code for both boxes, with our
                   Python patches in it. A minute, 1.2 GB of disk, nothing is compiled.
  --engine build   the source with every patch, compiled for one box: an hour, CUDA 13.0, g++ 13.
Both write a wheel and ENGINE.json, which says what is in it, into the folder of --out."""

EXAMPLES = """examples:
  unglitched_vllm/build.sh --target spark --engine wheel --out dist
  unglitched_vllm/build.sh --target thor --engine build --out dist
  unglitched_vllm/build.sh --target spark --engine build --fetch-only    # verified, and no more
  unglitched_vllm/build.sh --target spark --dry-run         # what would be done, and with what

environment:
  PYTHON           the interpreter (3.11 or newer); for --engine build the one that has torch
  WHEELS_DIR       a folder to look in before fetching: the release's files, brought by hand
  MAX_JOBS         compilers at once (default: one for each 5 GiB free, at most one a processor)
  VLLM_CUTLASS_SRC_DIR, QUTLASS_SRC_DIR, … local sources in place of those that CMake fetches:
                   all ten of them (see unglitched_vllm/README.md) build without a network

A run that was cut off goes on where it was. Exit codes: 0 done, 1 failed, 2 usage."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except SourceError as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("build: stopped; run it again to go on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build.sh",
        description=ABOUT,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--target", choices=sorted(TARGETS), required=True, help="the box")
    parser.add_argument(
        "--engine",
        choices=("wheel", "build", "cpu"),
        default="wheel",
        help="the way (default wheel); cpu only writes ENGINE.json for the demo's engine",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="default dist/")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "engine", help="default build/engine/"
    )
    parser.add_argument("--fetch-only", action="store_true", help="fetch, verify, and stop")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.engine == "cpu":
        print(enginejson.write(options.out, source="cpu", vllm=CPU_ENGINE))
        return 0
    wheels = os.environ.get("WHEELS_DIR")
    job = steps.Job(
        upstream=read_upstream(),
        patches=read_series(),
        target=TARGETS[options.target],
        work=options.work.resolve(),
        out=options.out.resolve(),
        wheels=Path(wheels) if wheels else None,
        env=_environment(),
        say=_say,
    )
    if options.dry_run:
        _tell(job, options.engine)
    elif options.fetch_only:
        print(job.sdist() if options.engine == "build" else job.stock_wheel()[1])
    elif options.engine == "wheel":
        print(steps.engine_from_wheel(job))
    else:
        print(steps.engine_from_source(job))
    return 0


def _environment() -> dict[str, str]:
    """Return the caller's environment, without the folder that build.sh added for us."""
    env = dict(os.environ)
    paths = [path for path in env.pop("PYTHONPATH", "").split(":") if path and path != str(ROOT)]
    return {**env, "PYTHONPATH": ":".join(paths)} if paths else env


def _tell(job: steps.Job, engine: str) -> None:
    pin = job.upstream.sdist if engine == "build" else job.upstream.wheels[job.target.machine]
    patches = [patch for patch in job.patches if engine == "build" or patch.is_python]
    print(f"vLLM {job.upstream.version} for {job.target.about}, engine {engine}")
    print(f"from {pin.file} ({pin.size:,} bytes, sha256 {pin.sha256})")
    for patch in patches:
        print(f"patch {patch.name}: {patch.title}")
    if engine == "build":
        print(f"TORCH_CUDA_ARCH_LIST={job.target.arch_list}")
    print(f"into {job.out}")


def _say(text: str) -> None:
    print(f"build: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
