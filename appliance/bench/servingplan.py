"""What a measurement of speed asks, in which order. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Cell:
    """One point of the grid: tokens of the prompt, and requests at once."""

    prompt_tokens: int
    concurrency: int

    @property
    def name(self) -> str:
        """How the field writes it."""
        return f"pp{self.prompt_tokens} c{self.concurrency}"


@dataclass(frozen=True)
class Job:
    """One batch of requests to one endpoint. ``warm``: one more goes before it, uncounted."""

    arm: str
    cell: Cell
    round: int
    warm: bool

    @property
    def key(self) -> tuple[str, Cell, int]:
        """What makes it this job and no other."""
        return self.arm, self.cell, self.round


def cells(
    prompts: Sequence[int], concurrencies: Sequence[int], decode_tokens: int, context: int | None
) -> tuple[tuple[Cell, ...], tuple[Cell, ...]]:
    """Return the cells that fit ``context`` tokens, and those that do not."""
    grid = [
        Cell(prompt, many) for prompt in sorted(set(prompts)) for many in sorted(set(concurrencies))
    ]
    fits = [context is None or cell.prompt_tokens + decode_tokens <= context for cell in grid]
    return (
        tuple(cell for cell, fit in zip(grid, fits, strict=True) if fit),
        tuple(cell for cell, fit in zip(grid, fits, strict=True) if not fit),
    )


def make_jobs(arms: Sequence[str], grid: Sequence[Cell], rounds: int) -> tuple[Job, ...]:
    """Return all jobs: cell by cell, the arms in turn, and every other round in reverse.

    So what changes slowly (a warm box, a busy disk) meets all arms alike: A B, B A, A B.
    """
    return tuple(
        Job(arm, cell, number, warm=number == 0)
        for cell in grid
        for number in range(rounds)
        for arm in (arms if number % 2 == 0 else tuple(reversed(arms)))
    )
