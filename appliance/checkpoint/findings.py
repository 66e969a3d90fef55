"""A trap in a checkpoint, told for people and for programs."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import groupby
from typing import NamedTuple

MOST = 5  # of one kind are told one by one; the rest are counted


class Level(StrEnum):
    """How bad a finding is: it does not load, it may answer wrongly, good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Finding(NamedTuple):
    """One trap: a stable word for programs, what is so, and what to do."""

    level: Level
    code: str
    what: str
    hint: str


def in_order(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the worst first, and of each kind the first few and how many more there are."""
    levels = list(Level)
    ordered = sorted(findings, key=lambda finding: (levels.index(finding.level), finding.code))
    for _, kind in groupby(ordered, key=lambda finding: finding[:2]):
        alike = list(kind)
        yield from alike[:MOST]
        if len(alike) > MOST:
            yield alike[MOST]._replace(what=f"and {len(alike) - MOST} more of this kind")
