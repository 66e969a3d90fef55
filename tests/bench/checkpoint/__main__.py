"""``python -m tests.bench.checkpoint``: pruning against cp, verifying against sha256sum.

Each repeat prunes and copies the same retained bytes one after the other, on the same disk, each
with the page cache of its files dropped before, and with all bytes on the disk at its end.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.checkpoint.giant import build_giant
from tests.bench.checkpoint.results import render
from tests.checkpointbox import Shape, write_mask

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-S", str(ROOT / "extras" / "delete_experts.py")]
KEPT = 192


@dataclass
class Figures:
    """One program's run: seconds of the wall and of the CPU, peak resident memory, bytes."""

    what: str
    layers: int
    bytes: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def run(what: str, argv: list[str], layers: int, size: int) -> Figures:
    """Run a program to its end; return its figures."""
    began = time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(argv[:4])} ended with {process.returncode}")
    seconds = time.monotonic() - began
    cpu = usage.ru_utime + usage.ru_stime
    return Figures(what, layers, size, seconds, cpu, usage.ru_maxrss * 1024)


def forget(folder: Path) -> None:
    """Write a folder's files to the disk and drop them from the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def weight(folder: Path) -> int:
    """Return the bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(folder: Path, layers: int, repeats: int, *, verify: bool) -> list[Figures]:
    """Measure one size; leave nothing behind."""
    source, kept, out = folder / "source", folder / "kept", folder / "out"
    build_giant(source, layers)
    mask = write_mask(folder / "mask.json", Shape(layers=layers), KEPT)
    prune = [*COMMAND, str(source), "DST", "--deleted-experts-file", str(mask)]
    subprocess.run([*prune[:-3], str(kept), *prune[-2:]], check=True, stdout=subprocess.DEVNULL)
    size, taken = weight(kept), []
    for repeat in range(repeats):
        turns = [
            ("prune", [*prune[:-3], str(out), *prune[-2:]]),
            ("cp", ["sh", "-c", 'cp -r "$0" "$1" && sync "$1"/*', str(kept), str(out)]),
        ]
        for what, argv in turns if repeat % 2 else reversed(turns):
            forget(source)
            forget(kept)
            taken.append(run(what, argv, layers, size))
            shutil.rmtree(out)
    for _ in range(repeats if verify else 0):
        forget(source)
        forget(kept)
        argv = [*prune[:-3], str(kept), *prune[-2:], "--verify", "--jobs", "1"]
        taken.append(run("verify", argv, layers, size))
        forget(kept)
        shards = [str(path) for path in sorted(kept.glob("*.safetensors"))]
        taken.append(run("sha256sum", ["sha256sum", *shards], layers, size))
    for place in (source, kept):
        shutil.rmtree(place)
    return taken


def main() -> int:
    """Measure all sizes and write the results; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build"), help="on the disk to measure")
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 2, 5, 10], help="2 GB each")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--verify-up-to", type=int, default=5, help="layers; it is slow, its rate flat"
    )
    parser.add_argument("--markdown", type=Path, help="write RESULTS.md there")
    parser.add_argument("--json", type=Path, help="write the figures there")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    need = max(asked.layers) * 5.5e9 + 3e9
    if (free := shutil.disk_usage(asked.folder).free) < need:
        print(f"{need / 1e9:.0f} GB are needed, {free / 1e9:.0f} are free", file=sys.stderr)
        return 1
    taken: list[Figures] = []
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        for layers in asked.layers:
            verify = layers <= asked.verify_up_to
            taken += measure(Path(folder), layers, asked.repeats, verify=verify)
            print(f"{layers} layers: " + summary(taken, layers), file=sys.stderr)
            save(asked, taken)  # each size takes minutes: none is lost when a later one fails
    return 0


def save(asked: argparse.Namespace, taken: list[Figures]) -> None:
    """Write what was measured so far."""
    rows = [asdict(figures) for figures in taken]
    load = os.getloadavg()[0]
    about = f"{datetime.now(UTC):%d %b %Y, %H:%M UTC}; load average {load:.1f} at its end"
    if asked.json:
        asked.json.write_text(json.dumps({"about": about, "taken": rows}, indent=1))
    if asked.markdown:
        asked.markdown.write_text(render(about, rows))


def summary(taken: list[Figures], layers: int) -> str:
    """Return the middle of each program's seconds."""
    programs = dict.fromkeys(figures.what for figures in taken)
    middles = {
        what: [f.seconds for f in taken if f.what == what and f.layers == layers]
        for what in programs
    }
    return ", ".join(f"{what} {statistics.median(s):.1f} s" for what, s in middles.items() if s)


if __name__ == "__main__":
    sys.exit(main())
