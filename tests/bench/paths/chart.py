"""``python -m tests.bench.paths.chart results.json chart.png``: the ledger's CPU against size.

Needs matplotlib, which nothing else does.
"""

import json
import statistics
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

WHAT = {  # words and colour of each way of reading
    "cold": ("the first time", "#b5485d"),
    "turn": ("one more turn", "#0b7a75"),
    "same": ("nothing new", "#4c78a8"),
}
# title, figure, the goal in milliseconds, which way of reading it holds for
PANELS = (
    ("CPU of reading the ledger", "ms", 20.0, "goal for a turn"),
    ("Its longest step: all others wait so long", "longest_ms", 0.5, "goal for a step"),
)


def panel(axes: Any, taken: list[dict[str, Any]], what: tuple[str, str, float, str]) -> None:
    """Draw one figure: every repeat as a dot, a line through the middles, the goal."""
    title, figure, goal, words = what
    sizes = sorted({one["tokens"] for one in taken})
    for name, (label, colour) in WHAT.items():
        dots = [one for one in taken if one["what"] == name]
        axes.scatter([one["tokens"] / 1000 for one in dots], [one[figure] for one in dots],
                     color=colour, s=10, alpha=0.35)  # fmt: skip
        middles = [
            statistics.median(one[figure] for one in dots if one["tokens"] == size)
            for size in sizes
        ]
        axes.plot([size / 1000 for size in sizes], middles, color=colour, label=label)
    axes.axhline(goal, color="#888888", linewidth=0.9, linestyle="--", label=words)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlim(left=0)
    axes.set_xlabel("thousand tokens of conversation")
    axes.set_ylabel("milliseconds (log scale)")
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)


def main(source: Path, target: Path) -> None:
    """Draw both panels."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("Agg")
    plots = import_module("matplotlib.pyplot")
    told = json.loads(source.read_text())
    figure, both = plots.subplots(1, 2, figsize=(11, 4.4), dpi=110)
    for axes, what in zip(both, PANELS, strict=True):
        panel(axes, told["taken"], what)
    figure.suptitle(f"The ledger of paths: {told['about']}", fontsize=8)
    figure.tight_layout()
    figure.savefig(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
