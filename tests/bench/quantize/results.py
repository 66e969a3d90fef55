"""The figures as a table, held against the goals. Pure, but for the name of the machine."""

import statistics
from collections.abc import Sequence

from tests.bench.checkpoint.results import Row, cpu_rate, machine, middle, peak, seconds

SPEED, MEMORY = 0.6, 400e6  # of cp, and bytes


def ratios(rows: Sequence[Row], what: str, layers: int) -> list[float]:
    """Return, for each repeat, how long cp took against it: above 1 it was faster."""
    own = [seconds(row) for row in rows if (row["what"], row["layers"]) == (what, layers)]
    copies = [seconds(row) for row in rows if (row["what"], row["layers"]) == ("cp", layers)]
    return [copy / mine for mine, copy in zip(own, copies, strict=True)]


def render(about: str, rows: Sequence[Row]) -> str:
    """Return RESULTS.md."""
    sizes = sorted({row["layers"] for row in rows})
    formats = [what for what in dict.fromkeys(row["what"] for row in rows) if what != "cp"]
    formats.sort()
    lines = [
        "# What quantising attention costs",
        "",
        f"Measured {about}; {machine()}.",
        "",
        "Checkpoints of the model's true widths with 256 NVFP4 experts a layer, so attention is",
        "4 % of the bytes, as in the whole model. `make bench-quantize` measures again. A figure",
        "is the middle of the repeats; a ratio is taken within a repeat: both ran one after the",
        "other, the page cache of their files dropped before, all bytes on the disk at the end.",
        "Quantising reads attention twice (to measure it, and to write it) and works on four files",
        "at a time, cp on one. cp copies the source; what is written is 2 to 3 % smaller.",
        "",
        "| layers | source | format | takes | cp | rate against cp (least … most) | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for layers in sizes:
        size = next(row["bytes"] for row in rows if row["layers"] == layers)
        for what in formats:
            found = ratios(rows, what, layers)
            lines.append(
                f"| {layers} | {size / 1e9:.1f} GB | {what} "
                f"| {middle(rows, what, layers, seconds):.1f} s "
                f"| {middle(rows, 'cp', layers, seconds):.1f} s "
                f"| {statistics.median(found):.0%} ({min(found):.0%} … {max(found):.0%}) "
                f"| {middle(rows, what, layers, peak) / 1e6:.0f} MB |"
            )
    return "\n".join([*lines, "", *goals(rows, sizes[-1], formats), ""])


def goals(rows: Sequence[Row], layers: int, formats: Sequence[str]) -> list[str]:
    """Return the goals at the largest size that was measured, and whether they are met."""
    slowest = min(statistics.median(ratios(rows, what, layers)) for what in formats)
    largest = max(middle(rows, what, layers, peak) for what in formats)
    rate = min(middle(rows, what, layers, cpu_rate) for what in formats)
    return [
        f"Goals, at {layers} layers: at least {SPEED:.0%} of cp: {_met(slowest >= SPEED)} "
        f"(the slowest format has {slowest:.0%});",
        f"below {MEMORY / 1e6:.0f} MB: {_met(largest < MEMORY)} ({largest / 1e6:.0f} MB). A core "
        f"does {rate / 1e9:.2f} GB of the checkpoint a second.",
    ]


def _met(fine: bool) -> str:
    return "met" if fine else "NOT met"
