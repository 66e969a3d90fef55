"""One line of the doctor's answer. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is: FAIL keeps the appliance from serving, WARN will hurt some day."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Row:
    """What was looked at, what is thought of it, what was found, and what to type next."""

    name: str
    level: Level
    value: str
    next: str = ""


@dataclass(frozen=True)
class Unseen:
    """What could not be looked at: why, and what to type next."""

    why: str
    next: str = ""


def ok(name: str, value: str, hint: str = "") -> Row:
    """Return a row that is as it should be."""
    return Row(name, Level.OK, value, hint)


def warn(name: str, value: str, hint: str = "") -> Row:
    """Return a row to know of."""
    return Row(name, Level.WARN, value, hint)


def fail(name: str, value: str, hint: str = "") -> Row:
    """Return a row that keeps the appliance from serving."""
    return Row(name, Level.FAIL, value, hint)


def exit_code(rows: Iterable[Row]) -> int:
    """Return 1 when a row failed, 0 when none did."""
    return int(any(row.level is Level.FAIL for row in rows))
