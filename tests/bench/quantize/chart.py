"""``python -m tests.bench.quantize.chart results.json chart.png``: time against size.

Needs matplotlib, which nothing else does.
"""

import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from tests.bench.checkpoint.results import Row, middle, seconds

COLOURS = {
    "fp8-per-channel": "#0b7a75",
    "mxfp8": "#58b4ae",
    "fp8": "#c98a1b",
    "nvfp4-weight-only": "#b5485d",
    "cp": "#4c78a8",
}


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw every repeat as a dot, and a line through the middles."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("Agg")
    plot = import_module("matplotlib.pyplot")
    figure, axes = plot.subplots(figsize=(7, 4.2), dpi=120)
    sizes = {row["layers"]: row["bytes"] / 1e9 for row in rows}
    for what, colour in COLOURS.items():
        dots = [row for row in rows if row["what"] == what]
        if not dots:
            continue
        axes.scatter([row["bytes"] / 1e9 for row in dots], [row["seconds"] for row in dots],
                     color=colour, s=14, alpha=0.6)  # fmt: skip
        there = sorted({row["layers"] for row in dots})
        axes.plot([sizes[n] for n in there], [middle(rows, what, n, seconds) for n in there],
                  color=colour, label=what)  # fmt: skip
    axes.set_xlabel("source checkpoint, GB")
    axes.set_ylabel("seconds")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    axes.set_title("Time against size: attention quantised, all else copied")
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text())["taken"], Path(sys.argv[2]))
