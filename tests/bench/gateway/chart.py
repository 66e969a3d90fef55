"""``chart.py results.json chart.png``: draw the figures. Needs matplotlib, nothing of ours."""

import json
import statistics
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

COLOURS = {
    "appliance": "#0b7a75",
    "appliance+guard": "#58b4ae",
    "nginx": "#4c78a8",
    "vllm-router": "#e08e45",
    "litellm": "#b5485d",
    "floor": "#a0a0a0",
}
# title, measurement, figure, what to divide it by, unit, the proxy whose figure is taken off
PANELS = (
    ("CPU of a chunk: 4 streams, content", "chunk-4-content", "cpu_us", 1, "µs", ""),
    ("CPU of a chunk: 4 streams, reasoning", "chunk-4-reasoning", "cpu_us", 1, "µs", ""),
    ("CPU of a chunk: 32 streams, content", "chunk-32-content", "cpu_us", 1, "µs", ""),
    ("CPU of a 2 KB request", "request-2k", "cpu_us", 1000, "ms", ""),
    ("CPU of a request with a 1 MB body", "body-1m", "cpu_us", 1000, "ms", ""),
    ("Added time to the first chunk, 1 MB body", "body-1m", "ttft_p50_us", 1000, "ms", "direct"),
    (
        "Added delay of a chunk, 4 streams at 40/s",
        "paced-content",
        "delay_p50_us",
        1,
        "µs",
        "direct",
    ),
    ("Resident memory after the load", "after-crowd", "rss_mb", 1, "MB", ""),
)

LEAST = 1e-3  # a difference may be nothing or less, which a log scale cannot show

Taken = dict[str, dict[str, list[dict[str, float] | None]]]


def values(taken: Taken, key: str, figure: str, proxy: str, less: str) -> list[float]:
    """Return one figure of each repeat, another proxy's taken off it."""
    mine = taken.get(key, {}).get(proxy, [])
    off = taken.get(key, {}).get(less) or [None] * len(mine)
    found = []
    for one, other in zip(mine, off, strict=False):
        if one and figure in one and (other or not less):
            found.append(one[figure] - (other[figure] if other else 0.0))
    return found


def label(value: float, unit: str) -> str:
    """Return the words at the end of a bar."""
    return f" {value:.0f} {unit}" if value >= 100 else f" {value:.3g} {unit}"


def panel(axes: Any, taken: Taken, what: tuple[str, str, str, float, str, str]) -> None:
    """Draw one figure: a dot for each proxy, a line from the least to the greatest repeat."""
    title, key, figure, scale, unit, less = what
    names = [name for name in COLOURS if values(taken, key, figure, name, less)]
    for place, name in enumerate(reversed(names)):
        found = [value / scale for value in values(taken, key, figure, name, less)]
        middle = statistics.median(found)
        spread = [max(min(found), LEAST), max(found)]
        axes.plot(spread, [place, place], color=COLOURS[name], linewidth=2)
        axes.plot(max(middle, LEAST), place, "o", color=COLOURS[name], markersize=8)
        axes.text(max(found) * 1.15, place, label(middle, unit), va="center", fontsize=8)
    axes.set_yticks(range(len(names)), list(reversed(names)), fontsize=8)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.5, high * 6)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(axis="x", labelsize=7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def main(source: Path, target: Path) -> None:
    """Draw all panels."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("Agg")
    plots = import_module("matplotlib.pyplot")
    told = json.loads(source.read_text())
    figure, grid = plots.subplots(4, 2, figsize=(11, 11))
    for axes, what in zip(grid.flat, PANELS, strict=True):
        panel(axes, told["taken"], what)
    figure.suptitle(
        f"What the gateway costs (log scales, less is better)\n{told['about']}", fontsize=10
    )
    figure.tight_layout()
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
