"""What the scripted engine is told to say: turns in a file, one a line, first come first said.

A file, because a turn must outlive the engine that takes it: an engine that dies and comes back
goes on where it stopped.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

Json = dict[str, Any]


@dataclass(frozen=True)
class Turn:
    """One answer.

    ``calls`` are (tool, arguments). ``status`` refuses with ``message`` instead. ``faults`` are
    those of the fake engine, for this answer alone. ``exit_code`` ends the engine's process
    ``exit_after`` seconds into the answer.
    """

    reasoning: str = ""
    content: str = ""
    calls: tuple[tuple[str, Json], ...] = ()
    status: int = 0
    message: str = "scripted"
    faults: Mapping[str, float] = field(default_factory=dict)
    exit_code: int | None = None
    exit_after: float = 0.0

    @classmethod
    def read(cls, line: str) -> Self:
        """Return the turn of one line."""
        told = json.loads(line)
        if unknown := told.keys() - {item.name for item in fields(cls)}:
            raise ValueError(f"a turn has no {sorted(unknown)}")
        told["calls"] = tuple((name, arguments) for name, arguments in told["calls"])
        return cls(**told)

    def line(self) -> str:
        """Return it as one line."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Script:
    """The turns that are left, in ``path``; beside it a record of every request that came."""

    path: Path

    @property
    def record(self) -> Path:
        """Where each request is noted, one a line."""
        return self.path.with_suffix(".record")

    def play(self, *turns: Turn) -> None:
        """Let these be the next turns, and forget what came before."""
        self.record.write_text("")
        self._keep("".join(turn.line() for turn in turns))

    def left(self) -> int:
        """Return how many turns nobody took."""
        return len(self.path.read_text().splitlines())

    def take(self, *, keep: bool = False) -> Turn | None:
        """Take the next turn, None when there is none; ``keep`` leaves it there."""
        line, _, rest = self.path.read_text().partition("\n")
        if not line:
            return None
        if not keep:
            self._keep(rest)
        return Turn.read(line)

    def note(self, request: Json) -> None:
        """Add a request to the record."""
        with self.record.open("a") as record:
            record.write(json.dumps(request) + "\n")

    def noted(self) -> list[Json]:
        """Return the record."""
        return [json.loads(line) for line in self.record.read_text().splitlines()]

    def _keep(self, text: str) -> None:
        fresh = self.path.with_suffix(".fresh")
        fresh.write_text(text)
        os.replace(fresh, self.path)
