"""The table of faults: what was done to the engine, and what came of it.

Each fault test adds a row; pytest prints them at the end. ``FAULT_TABLE=path`` writes them as
Markdown too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HEADS = ("fault", "detected after", "recovered after", "what clients saw")
PROPERTY = "fault_row"


@dataclass(frozen=True)
class Row:
    """One fault. Lengths in seconds, None where there is nothing to detect or to recover."""

    fault: str
    detected_s: float | None
    recovered_s: float | None
    clients: str

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The row as text."""
        return self.fault, _length(self.detected_s), _length(self.recovered_s), self.clients


class Faults:
    """Takes the rows of one test. They travel with its report: so they survive workers too."""

    def __init__(self, node: pytest.Item) -> None:
        self._node = node

    def row(
        self, fault: str, detected_s: float | None, recovered_s: float | None, clients: str
    ) -> None:
        """Add a row: seconds from the fault to its detection, and to an engine that serves."""
        row = (fault, detected_s, recovered_s, clients)
        self._node.user_properties.append((PROPERTY, list(row)))


def rows_of(reports: Iterable[Any]) -> list[Row]:
    """Return the rows of the reports of passed tests, in their order."""
    return [
        Row(*value)
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == PROPERTY
    ]


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
    """Return the table as Markdown."""
    lines = [HEADS, ("---",) * len(HEADS), *(row.cells for row in rows)]
    return "".join(f"| {' | '.join(map(_escaped, line))} |\n" for line in lines)


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the table as Markdown."""
    path.write_text(as_markdown(rows), encoding="utf-8")


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _length(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"
