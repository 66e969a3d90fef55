"""What is looked at on the host beside its memory, and how it is read. Pure."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True)
class Card:
    """One GPU as nvidia-smi tells of it; ``None`` is what it does not tell."""

    name: str
    driver: str
    capability: str  # "12.1"
    clock_mhz: float | None
    max_clock_mhz: float | None


@dataclass(frozen=True)
class Gpus:
    """The GPUs, or in ``why`` why none was seen."""

    cards: tuple[Card, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Disk:
    """The free space where ``path`` is, or will be, in bytes."""

    path: Path
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Clock:
    """The host's clock. ``is_synchronized`` is None where nobody tells."""

    now: datetime
    is_synchronized: bool | None


@dataclass(frozen=True)
class Port:
    """A port of this host. ``holder`` is why it could not be had: "" for free."""

    host: str
    port: int
    holder: str = ""
    hint: str = ""


def parse_cards(text: str) -> tuple[Card, ...]:
    """Return the GPUs of nvidia-smi's CSV: name, driver, capability, clock and its maximum."""
    cards = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 5:
            name, driver, capability, clock, most = fields
            cards.append(Card(name, driver, capability, _number(clock), _number(most)))
    return tuple(cards)


def parse_synchronized(text: str) -> bool | None:
    """Return what ``timedatectl show`` says of NTPSynchronized."""
    return {"yes": True, "no": False}.get(text.strip())


def _number(text: str) -> float | None:
    return float(text) if text.isdecimal() else None  # "[N/A]"
