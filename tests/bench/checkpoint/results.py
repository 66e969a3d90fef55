"""The figures as a table, held against the goals. Pure, but for the name of the machine."""

import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def middle(rows: Sequence[Row], what: str, layers: int, figure: Callable[[Row], float]) -> float:
    """Return the median of a figure over the repeats."""
    return statistics.median(
        figure(row) for row in rows if row["what"] == what and row["layers"] == layers
    )


def seconds(row: Row) -> float:
    """Return what a run took."""
    return float(row["seconds"])


def cpu_rate(row: Row) -> float:
    """Return bytes for each second of one core."""
    return float(row["bytes"] / row["cpu_seconds"])


def peak(row: Row) -> float:
    """Return the peak resident memory in bytes."""
    return float(row["peak_bytes"])


def ratios(rows: Sequence[Row], layers: int) -> list[float]:
    """Return, for each repeat, how long cp took against prune: above 1 prune was faster."""
    prunes = [seconds(row) for row in rows if (row["what"], row["layers"]) == ("prune", layers)]
    copies = [seconds(row) for row in rows if (row["what"], row["layers"]) == ("cp", layers)]
    return [copy / prune for prune, copy in zip(prunes, copies, strict=True)]


def render(about: str, rows: Sequence[Row]) -> str:
    """Return RESULTS.md."""
    sizes = sorted({row["layers"] for row in rows})
    lines = [
        "# What pruning costs",
        "",
        f"Measured {about}; {machine()}.",
        "",
        "Checkpoints of the model's true widths in ModelOpt's NVFP4, random bytes, 256 experts a",
        "layer of which 192 stay. `make bench-checkpoint` measures again. A figure is the middle",
        "of the repeats; a ratio is taken within a repeat: both ran one after the other, the page",
        "cache of their files dropped before, and all bytes on the disk at the end. prune works on",
        "four files at a time, cp on one. The kernel counts a program's peak memory from the",
        "benchmark's own on, which is cp's figure: prune's is at most what is told.",
        "",
        "| layers | written | prune | cp | rate of prune against cp (least … most) | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for layers in sizes:
        size = next(row["bytes"] for row in rows if row["layers"] == layers)
        found = ratios(rows, layers)
        lines.append(
            f"| {layers} | {size / 1e9:.1f} GB | {middle(rows, 'prune', layers, seconds):.1f} s "
            f"| {middle(rows, 'cp', layers, seconds):.1f} s "
            f"| {statistics.median(found):.0%} ({min(found):.0%} … {max(found):.0%}) "
            f"| {middle(rows, 'prune', layers, peak) / 1e6:.0f} MB |"
        )
    lines += [
        "",
        "Verifying reads both checkpoints and compares; `sha256sum` reads one. Rates are bytes of",
        "the pruned checkpoint for each second of CPU; seconds are the wall's, one file at a time.",
        "",
        "| layers | verify, of a core | sha256sum, of a core | against it | verify | sha256sum |",
        "|---|---|---|---|---|---|",
    ]
    verified = [n for n in sizes if any((r["what"], r["layers"]) == ("verify", n) for r in rows)]
    for layers in verified:
        ours = middle(rows, "verify", layers, cpu_rate)
        theirs = middle(rows, "sha256sum", layers, cpu_rate)
        lines.append(
            f"| {layers} | {ours / 1e9:.2f} GB/s | {theirs / 1e9:.2f} GB/s | {ours / theirs:.0%} "
            f"| {middle(rows, 'verify', layers, seconds):.1f} s "
            f"| {middle(rows, 'sha256sum', layers, seconds):.1f} s |"
        )
    return "\n".join([*lines, "", *goals(rows, sizes[-1], verified[-1]), ""])


def goals(rows: Sequence[Row], layers: int, verified: int) -> list[str]:
    """Return the goals at the largest size that was measured, and whether they are met."""
    rate = statistics.median(ratios(rows, layers))
    most = max(peak(row) for row in rows if row["what"] == "prune")
    ours = middle(rows, "verify", verified, cpu_rate)
    verify = ours / middle(rows, "sha256sum", verified, cpu_rate)
    return [
        "| goal | measured | met |",
        "|---|---|---|",
        f"| prune at 90 % of cp's rate | {rate:.0%} | {_met(rate >= 0.9)} |",
        f"| peak memory below 200 MB at every size | {most / 1e6:.0f} MB | {_met(most < 200e6)} |",
        f"| verify at 60 % of sha256sum's rate of a core | {verify:.0%} | {_met(verify >= 0.6)} |",
    ]


def machine() -> str:
    """Return the processor, its cores, the kernel and Python."""
    cpu, cores = platform.machine(), 0
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu, cores = line.partition(":")[2].strip(), cores + 1
    return f"{cpu}, {cores} cores, Linux {platform.release()}, Python {platform.python_version()}"


def _met(met: bool) -> str:
    return "yes" if met else "**no**"
