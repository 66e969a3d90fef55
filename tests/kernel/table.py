"""The table of kernel truth: what each scenario measured on each kernel.

Each test adds a row; pytest prints them at the end. ``KERNEL_TABLE=path`` writes them as Markdown
too, with the date: this is the table in ``unglitched_vllm/README.md``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

HEADS = ("scenario", "kernel", "exit", "measured")
PROPERTY = "kernel_row"
MIB = 1 << 20


@dataclass(frozen=True)
class Row:
    """One scenario on one kernel. ``measured``: the figures in words."""

    scenario: str
    release: str
    code: str
    measured: str

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The row as text."""
        return self.scenario, self.release, self.code, self.measured


class Rows:
    """Takes the rows of one test; they travel with its report."""

    def __init__(self, node: pytest.Item) -> None:
        self._node = node

    def row(self, scenario: str, release: str, code: int | None, measured: str) -> None:
        """Add a row. ``code``: the exit code of force_swap, None where it did not run."""
        row = [scenario, release, "-" if code is None else str(code), measured]
        self._node.user_properties.append((PROPERTY, row))


def rows_of(reports: Iterable[Any]) -> list[Row]:
    """Return the rows of the reports of passed tests, by scenario."""
    rows = [
        Row(*value)
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == PROPERTY
    ]
    order = list(dict.fromkeys(row.scenario for row in rows))
    return sorted(rows, key=lambda row: order.index(row.scenario))


def as_text(rows: Sequence[Row]) -> list[str]:
    """Return the table's lines for a terminal."""
    lines = [HEADS, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS) - 1)]
    return [
        "  ".join(
            [cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=True)] + [line[-1]]
        )
        for line in lines
    ]


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the table as Markdown: a line for each scenario, a column for each kernel."""
    releases = list(dict.fromkeys(row.release for row in rows))
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        exits = "" if row.code == "-" else f"exit {row.code}: "
        lines.setdefault(row.scenario, {})[row.release] = exits + row.measured
    table = [["scenario", *releases], ["---"] * (len(releases) + 1)]
    table += [[name, *(cells.get(at, "") for at in releases)] for name, cells in lines.items()]
    date = datetime.now(UTC).date().isoformat()
    head = (
        f"Measured {date} with qemu without KVM; times are the emulator's, sizes are the kernel's."
    )
    return f"{head}\n\n" + "".join(f"| {' | '.join(map(_escaped, line))} |\n" for line in table)


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the table as Markdown."""
    path.write_text(as_markdown(rows), encoding="utf-8")


def mib(size: int) -> str:
    """Return bytes as MiB for people."""
    return f"{size / MIB:.1f} MiB"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
