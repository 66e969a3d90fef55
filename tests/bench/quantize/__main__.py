"""``python -m tests.bench.quantize``: quantising a whole checkpoint against cp of it.

Each repeat quantises and copies the same source one after the other, on the same disk, each with
the page cache of its files dropped before, and with all bytes on the disk at its end.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from appliance.checkpoint.formats import Format
from tests.bench.checkpoint.__main__ import Figures, forget, run, summary, weight
from tests.bench.quantize.giant import build_whole
from tests.bench.quantize.results import render

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, str(ROOT / "extras" / "quantize_attention.py")]


def measure(
    folder: Path, layers: int, repeats: int, formats: list[str], *, has_head: bool
) -> list[Figures]:
    """Measure one size; leave nothing behind."""
    source, out = folder / "source", folder / "out"
    build_whole(source, layers, has_head=has_head)
    command = [*COMMAND, "--lm-head"] if has_head else COMMAND
    size, taken = weight(source), []
    for repeat in range(repeats):
        turns = [(kind, [*command, str(source), str(out), "--format", kind]) for kind in formats]
        turns.append(("cp", ["sh", "-c", 'cp -r "$0" "$1" && sync "$1"/*', str(source), str(out)]))
        for what, argv in turns if repeat % 2 else reversed(turns):
            forget(source)
            taken.append(run(what, argv, layers, size))
            shutil.rmtree(out)
    shutil.rmtree(source)
    return taken


def main() -> int:
    """Measure all sizes and write the results; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build"), help="on the disk to measure")
    parser.add_argument("--layers", type=int, nargs="+", default=[3, 10], help="2 GB each")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--formats", nargs="+", default=[*Format], choices=[*Format])
    parser.add_argument("--lm-head", action="store_true", help="the head of 1.2 GB, too")
    parser.add_argument("--markdown", type=Path, help="write RESULTS.md there")
    parser.add_argument("--json", type=Path, help="write the figures there")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    need = max(asked.layers) * 4.3e9 + 1e9
    if (free := shutil.disk_usage(asked.folder).free) < need:
        print(f"{need / 1e9:.0f} GB are needed, {free / 1e9:.0f} are free", file=sys.stderr)
        return 1
    taken: list[Figures] = []
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        for layers in asked.layers:
            taken += measure(
                Path(folder), layers, asked.repeats, asked.formats, has_head=asked.lm_head
            )
            print(f"{layers} layers: {summary(taken, layers)}", file=sys.stderr)
            save(asked, taken)  # each size takes minutes: none is lost when a later one fails
    return 0


def save(asked: argparse.Namespace, taken: list[Figures]) -> None:
    """Write what was measured so far."""
    rows = [asdict(figures) for figures in taken]
    about = f"{datetime.now(UTC):%d %b %Y, %H:%M UTC}; load average {os.getloadavg()[0]:.1f}"
    about += " at its end"
    if asked.json:
        asked.json.write_text(json.dumps({"about": about, "taken": rows}, indent=1))
    if asked.markdown:
        asked.markdown.write_text(render(about, rows))


if __name__ == "__main__":
    sys.exit(main())
