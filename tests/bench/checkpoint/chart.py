"""``python -m tests.bench.checkpoint.chart results.json chart.png``: time against size.

Needs matplotlib, which nothing else does.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from tests.bench.checkpoint.results import Row, middle, seconds

COLOURS = {"prune": "#0b7a75", "cp": "#4c78a8", "verify": "#58b4ae", "sha256sum": "#b5485d"}


def draw(
    rows: Sequence[Row], path: Path, colours: Mapping[str, str], across: str, title: str
) -> None:
    """Draw every repeat as a dot, and a line through the middles, of each that has a colour."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("Agg")
    plot = import_module("matplotlib.pyplot")
    figure, axes = plot.subplots(figsize=(7, 4.2), dpi=120)
    sizes = {row["layers"]: row["bytes"] / 1e9 for row in rows}
    layers = sorted(sizes)
    for what, colour in colours.items():
        dots = [row for row in rows if row["what"] == what]
        if not dots:
            continue
        axes.scatter([row["bytes"] / 1e9 for row in dots], [row["seconds"] for row in dots],
                     color=colour, s=14, alpha=0.6)  # fmt: skip
        there = [n for n in layers if any(dot["layers"] == n for dot in dots)]
        axes.plot([sizes[n] for n in there], [middle(rows, what, n, seconds) for n in there],
                  color=colour, label=what)  # fmt: skip
    axes.set_xlabel(across)
    axes.set_ylabel("seconds")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    axes.set_title(title)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    taken = json.loads(Path(sys.argv[1]).read_text())["taken"]
    title = "Time against size (verify reads twice the bytes)"
    draw(taken, Path(sys.argv[2]), COLOURS, "pruned checkpoint, GB", title)
