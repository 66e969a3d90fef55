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
    """Return the table as Markdown, below the date and the kernels."""
    releases = sorted({row.release for row in rows})
    date = datetime.now(UTC).date().isoformat()
    lines = [HEADS, ("---",) * len(HEADS), *(row.cells for row in rows)]
    table = "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines
    )
    return f"Measured {date} with qemu (no KVM) on {', '.join(releases)}.\n\n{table}"


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the table as Markdown."""
    path.write_text(as_markdown(rows), encoding="utf-8")


def mib(size: int) -> str:
    """Return bytes as MiB for people."""
    return f"{size / MIB:.1f} MiB"
