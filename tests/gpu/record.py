"""What a run found: each step's outcome, written after every step, and the short table."""

import json
import signal
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

Facts = dict[str, Any]
PASSED, FAILED, SKIPPED = "passed", "FAILED", "skipped"


class OutOfTime(Exception):
    """A step has taken longer than it may."""


class Skip(Exception):
    """A step has nothing to do here."""


class Unmet(Exception):
    """A step ran to its end, and what it shows is not what must hold."""


@dataclass
class Outcome:
    """One step: ``shown`` are the lines of the table, ``facts`` the raw figures."""

    step: str
    verdict: str = PASSED
    seconds: float = 0.0
    reason: str = ""
    shown: list[str] = field(default_factory=list)
    facts: Facts = field(default_factory=dict)
    tails: dict[str, str] = field(default_factory=dict)

    def show(self, line: str) -> None:
        """Add a line to the table, and print it as it comes."""
        self.shown.append(line)
        print(f"  {line}", flush=True)


@dataclass
class Report:
    """All outcomes of one call, kept in ``path`` after each of them."""

    path: Path
    machine: Facts
    command: Sequence[str]
    outcomes: list[Outcome] = field(default_factory=list)

    def write(self) -> None:
        """Write what is known so far, whole or not at all."""
        content = {
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": list(self.command),
            "machine": self.machine,
            "steps": [asdict(outcome) for outcome in self.outcomes],
        }
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(content, indent=1, default=str))
        fresh.rename(self.path)

    def table(self) -> str:
        """Return the short table: a line a step, and below it what it shows."""
        lines = []
        for one in self.outcomes:
            lines.append(f"{one.verdict:8}{one.step:12}{one.seconds:6.0f} s  {one.reason}")
            lines += [f"{'':8}{line}" for line in one.shown]
        return "\n".join(lines)


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the main thread once so many seconds are over."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise OutOfTime(f"not done within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(
    name: str, step: Callable[[Outcome], None], limit_s: float, tails: Callable[[], dict[str, str]]
) -> Outcome:
    """Run one step; whatever it raises is its outcome, with the ends of all logs."""
    outcome = Outcome(name)
    began = time.monotonic()
    print(f"== {name} (at most {limit_s:.0f} s)", flush=True)
    try:
        with limit(limit_s):
            step(outcome)
    except Skip as cause:
        outcome.verdict, outcome.reason = SKIPPED, str(cause)
    except Exception as cause:  # the others must run: this one's failure is a finding
        outcome.verdict = FAILED
        outcome.reason = f"{type(cause).__name__}: {cause}"[:600]
        outcome.tails = {**tails(), "traceback": traceback.format_exc()[-4000:]}
    outcome.seconds = time.monotonic() - began
    print(f"-- {outcome.verdict} {name} {outcome.seconds:.0f} s {outcome.reason}", flush=True)
    return outcome


def require(holds: bool, otherwise: str) -> None:
    """Raise Unmet with ``otherwise`` unless ``holds``."""
    if not holds:
        raise Unmet(otherwise)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of all lie; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: Sequence[float]) -> Facts:
    """Return the figures that describe a sample."""
    return {
        "n": len(values),
        "mean": statistics.fmean(values) if values else 0.0,
        "p50": quantile(values, 0.5),
        "p90": quantile(values, 0.9),
        "p99": quantile(values, 0.99),
        "max": max(values, default=0.0),
    }
