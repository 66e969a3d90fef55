"""The table of the stories: what Kilo asked in each, how long it took, and how it ended.

Pytest prints it at the end. ``KILO_TABLE=path`` also keeps it there as Markdown: a story that was
not played this time keeps the row, and the date, of its last time.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADS = ("story", "requests seen", "seconds", "end", "played")
PROPERTY = "kilo_story"

Row = tuple[str, ...]


@dataclass
class Tale:
    """One story: its requests by kind, the seconds that Kilo ran, and how each run ended."""

    kinds: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    ends: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time that passes."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - began

    def cells(self, test: str, day: str, *, well: bool) -> Row:
        """Return the row of the test of that name."""
        story = test.removeprefix("test_").replace("_", " ").replace("[", " [")
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items()) or "none"
        ends = "; then ".join(self.ends) or "its turns ended"
        return story, kinds, f"{self.seconds:.0f}", ends if well else f"FAILED ({ends})", day


def rows_of(reports: Iterable[Any]) -> list[Row]:
    """Return the rows that reports carry, in their order."""
    kept = (
        value for report in reports for name, value in report.user_properties if name == PROPERTY
    )
    return [tuple(value) for value in kept]


def as_text(rows: Sequence[Row]) -> list[str]:
    """Return the table's lines for a terminal."""
    lines = [HEADS, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def keep(path: Path, about: str, rows: Sequence[Row]) -> None:
    """Write the table, with the rows that ``path`` has of other stories."""
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [_cells(line) for line in before if line.startswith("| ")][2:]  # behind the head
    by_story = {row[0]: row for row in kept} | {row[0]: tuple(map(_plain, row)) for row in rows}
    lines = [HEADS, ("---",) * len(HEADS), *by_story.values()]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    path.write_text(f"{about}\n\n{table}", encoding="utf-8")


def _cells(line: str) -> Row:
    return tuple(line.removeprefix("| ").removesuffix(" |").split(" | "))


def _plain(cell: str) -> str:
    """A cell's text without what would end the cell."""
    return " ".join(cell.replace("|", "/").split())
