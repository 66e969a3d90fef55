"""What ``appliance top`` knows at one moment, and how each event changes it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Fields = Mapping[str, Any]

HISTORY = 240  # figures: one a second, and as many columns of a sparkline at most
LINES = 200  # of the engine's log: as many rows of a terminal at most


@dataclass(frozen=True)
class Frame:
    """One moment. What is None has not been told yet; ``lost`` says why nothing new comes.

    ``figures`` are the last ones, oldest first; ``incident`` the newest of ``incidents``.
    """

    status: Fields | None = None
    figures: tuple[Fields, ...] = ()
    budget: Fields | None = None
    incident: Fields | None = None
    incidents: int = 0
    lines: tuple[str, ...] = ()
    lost: str = ""


def told(frame: Frame, name: str, value: Any) -> Frame:
    """Return the frame after an event: of the control API's stream, or of who reads it.

    Whatever the appliance tells ends ``lost``. Unknown events change nothing else.
    """
    if name == "lost":
        return replace(frame, lost=value)
    frame = replace(frame, lost="")
    if name == "status":
        return replace(frame, status=value)
    if name == "budget":
        return replace(frame, budget=value)
    if name == "incidents":
        return replace(frame, incident=value[0] if value else None, incidents=len(value))
    if name == "figures":
        return replace(frame, figures=(*frame.figures, value)[-HISTORY:])
    if name == "log":
        return replace(frame, lines=(*frame.lines, value["text"])[-LINES:])
    return frame


def series(frame: Frame, *path: str) -> list[float | None]:
    """Return one figure over time, oldest first; None where it was not known."""
    return [number(at(figures, *path)) for figures in frame.figures]


def at(fields: Any, *path: str) -> Any:
    """Return what stands at ``path``; None when there is nothing."""
    for name in path:
        if not isinstance(fields, Mapping):
            return None
        fields = fields.get(name)
    return fields


def number(value: Any) -> float | None:
    """Return a number; None for all else, True and False among it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)
