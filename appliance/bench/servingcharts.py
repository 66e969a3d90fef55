"""``servingcharts.py REPORT CHART``: the report of speed as a PNG.

A script, run in an environment of its own, where matplotlib is. Nothing of ours is imported, and
nothing imports it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

COLOURS = ("#0b7a75", "#b5485d", "#4c78a8", "#e08e45", "#7a5195", "#58b4ae")
OTHERS = "#888888"


def lines(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the points of each line: one for an arm and a number of requests at once."""
    many = {point["concurrency"] for point in report["points"]}
    found: dict[str, list[dict[str, Any]]] = {}
    for point in report["points"]:
        name = point["arm"] if len(many) == 1 else f"{point['arm']}, {point['concurrency']} at once"
        found.setdefault(name, []).append(point)
    return found


def panel(axes: Any, report: dict[str, Any], figure: str, title: str, unit: str) -> None:
    """Draw one figure against the prompt's size: medians, and bars from lowest to highest."""
    for place, (name, points) in enumerate(lines(report).items()):
        known = [point for point in points if point[figure]]
        spreads = [point[figure] for point in known]
        middles = [one["median"] for one in spreads]
        ends = (
            [one["median"] - one["low"] for one in spreads],
            [one["high"] - one["median"] for one in spreads],
        )
        sizes = [point["prompt_tokens"] for point in known]
        colour = COLOURS[place % len(COLOURS)]
        axes.errorbar(sizes, middles, yerr=ends, color=colour, marker="o", markersize=4,
                      capsize=3, linewidth=1.4, label=name)  # fmt: skip
    sizes = sorted({point["prompt_tokens"] for point in report["points"]})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _place: f"{size:,.0f}"))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tokens of the prompt")
    axes.set_ylabel(unit)
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(alpha=0.3)


def points_of_others(axes: Any, report: dict[str, Any]) -> None:
    """Draw what others publish of prefill, where they say for which size."""
    for row in report["published"]["rows"]:
        known = [one for one in row["prefill_tps"] if one["prompt_tokens"]]
        if known:
            sizes = [one["prompt_tokens"] for one in known]
            speeds = [one["tps"] for one in known]
            name = row["what"].split(",")[0]
            axes.plot(sizes, speeds, "D", color=OTHERS, markersize=5, label=f"{name} (published)")


def beside(axes: Any, report: dict[str, Any]) -> None:
    """Draw what others publish of decoding, and yours, one request at a time."""
    rows: list[tuple[str, float, float, str]] = []
    for place, arm in enumerate(report["arms"]):
        speeds = [
            point["decode_tps"]["median"]
            for point in report["points"]
            if point["arm"] == arm and point["concurrency"] == 1 and point["decode_tps"]
        ]
        if speeds:
            rows.append((f"yours: {arm}", min(speeds), max(speeds), COLOURS[place % len(COLOURS)]))
    for row in report["published"]["rows"]:
        rows.append(
            (wrapped(row["what"]), *(min(row["decode_tps"]), max(row["decode_tps"])), OTHERS)
        )
    for place, (_name, low, high, colour) in enumerate(reversed(rows)):
        axes.barh(place, low, color=colour, height=0.55)
        axes.barh(place, high - low, left=low, color=colour, alpha=0.45, height=0.55)
        told = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
        axes.text(high, place, f" {told}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)], fontsize=8)
    axes.set_xlim(right=max(high for _, _, high, _ in rows) * 1.22)
    axes.set_xlabel("tokens a second, one request at a time")
    box = report["published"]["box"]
    axes.set_title(f"Decode, beside what others publish for {box}", fontsize=10, loc="left")
    axes.grid(alpha=0.3, axis="x")


def wrapped(name: str) -> str:
    """Return a name in lines that fit beside an axis."""
    parts = name.split(", ")
    return "\n".join(", ".join(part) for part in (parts[:1], parts[1:]) if part)


def main(source: Path, target: Path) -> None:
    """Draw three panels of yours, and below them yours beside those of others."""
    report = json.loads(source.read_text(encoding="utf-8"))
    rows = [["prefill", "decode", "ttft"], ["beside", "beside", "beside"]]
    figure, grid = pyplot.subplot_mosaic(rows, figsize=(13.5, 9), dpi=100, layout="constrained")
    panel(grid["prefill"], report, "prefill_tps", "Prefill", "tokens a second, all together")
    points_of_others(grid["prefill"], report)
    panel(grid["decode"], report, "decode_tps", "Decode", "tokens a second, all together")
    panel(grid["ttft"], report, "ttft_ms", "Time to the first token", "milliseconds")
    beside(grid["beside"], report)
    figure.legend(*grid["prefill"].get_legend_handles_labels(), loc="outside lower center",
                  ncols=4, frameon=False, fontsize=9)  # fmt: skip
    about = report["about"]
    models = ", ".join(sorted({told["model"] for told in about["endpoints"].values()}))
    title = f"{models}, {about['begun']}: medians of {about['rounds']} rounds, lowest to highest"
    if about["demo"]:
        title += "\nthe demo: a tiny model on a CPU; its figures say nothing about a Spark"
    figure.suptitle(title, fontsize=10)
    figure.savefig(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
