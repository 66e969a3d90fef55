"""``python -m tests.bench.gateway``: measure, print the table, keep the results."""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.bench.gateway.goals import goals, hold
from tests.bench.gateway.load import HERE
from tests.bench.gateway.plan import ALL, DIRECT, FLOOR, NGINX, OURS, specs
from tests.bench.gateway.proxies import DISTRIBUTION, NGINX_PROGRAM, ROOT, interpreter
from tests.bench.gateway.session import FOLDER, Choices, measure
from tests.bench.gateway.table import report

QUICK = (DIRECT, NGINX, FLOOR, OURS)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what was asked for on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gateway", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the appliance and nginx, 2 minutes")
    parser.add_argument("--rows", default="1,2,3,4,5,6,7,8", help="rows of the table, as 1,4")
    parser.add_argument("--only", default="", help="measurements whose name begins so")
    parser.add_argument("--repeats", type=int, default=0, help="rounds; 4 with --quick, else 5")
    parser.add_argument(
        "--within-s", type=float, default=660, help="begin no round that ends later"
    )
    parser.add_argument("--proxies", default="", help="who takes part, as direct,nginx,appliance")
    parser.add_argument("--set", action="append", default=[], help="a setting, as log_format=json")
    parser.add_argument("--tree", type=Path, default=ROOT, help="where the appliance is taken from")
    parser.add_argument("--no-real-time", action="store_true", help="leave the scheduler alone")
    parser.add_argument("--let-sleep", action="store_true", help="let idle cores halt")
    parser.add_argument("--json", type=Path, default=FOLDER / "results.json", help="all figures")
    parser.add_argument("--markdown", type=Path, help="write the table there, as RESULTS.md")
    parser.add_argument("--chart", type=Path, help="draw the figures there, as chart.png")
    return parser.parse_args(given)


def choices(asked: argparse.Namespace) -> Choices:
    """Return the benchmark that was asked for."""
    rows = {int(row) for row in asked.rows.split(",")}
    every = specs(quick=asked.quick)
    wanted = tuple(spec for spec in every if spec.row in rows and spec.key.startswith(asked.only))
    names = tuple(asked.proxies.split(",")) if asked.proxies else QUICK if asked.quick else ALL
    return Choices(
        names=names,
        specs=wanted,
        settings=dict(pair.split("=", 1) for pair in asked.set),
        repeats=asked.repeats or (4 if asked.quick else 5),
        within_s=asked.within_s,
        tree=asked.tree.resolve(),
        real_time=not asked.no_real_time,
        awake=not asked.let_sleep,
    )


def versions() -> str:
    """Return which peers and which libraries of ours took part."""
    told = [f"{name} {version(name)}" for name in ("uvicorn", "uvloop", "httptools", "msgspec")]
    program = FOLDER / NGINX_PROGRAM
    if program.exists():
        said = subprocess.run([str(program), "-v"], capture_output=True, text=True, check=True)
        told.append(said.stderr.strip().rpartition(" ")[2])
    return ", ".join([*told, *(HERE / "peers.txt").read_text().split()[:2]])


def machine() -> str:
    """Return what this was measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    asked = [interpreter(), "-V"]
    python = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    whose = "the distribution's" if interpreter() == DISTRIBUTION else "not the distribution's"
    system = f"Linux {platform.release()}, {python} ({whose})"
    return f"{model}, {os.cpu_count()} cores, {system}"


def main() -> int:
    """Measure and tell. 0 also where a goal is missed: the table says so."""
    asked = arguments()
    # a stopped proxy outlives us unless we end it
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    taken = measure(choices(asked))
    lines = [hold(goal, taken) for goal in goals() if goal.key in taken]
    now = datetime.now(UTC)
    about = f"{now:%d %b %Y}, {machine()}"
    load = f"load average {os.getloadavg()[0]:.1f} at {now:%H:%M} UTC, its end"
    text = report(f"Measured {about}; {load}; {versions()}.", lines, taken)
    print(text)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps({"about": about, "taken": taken}, indent=1))
    if asked.markdown:
        asked.markdown.write_text(text)
    if asked.chart:
        python = str(FOLDER / "venv" / "bin" / "python")
        draw = [python, str(HERE / "chart.py"), str(asked.json), str(asked.chart)]
        subprocess.run(draw, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
