"""The words of a memory budget: its rows, and what is missing when it does not add up. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BudgetRow:
    """One line of the budget: what takes the memory, bytes, and where the number is from."""

    name: str
    bytes: int  # negative only in "left", where that much is missing
    how: str


@dataclass(frozen=True)
class Shortfall:
    """One reason why a plan is refused: what is short, by how many bytes, what to do about it.

    ``missing_bytes`` is 0 where no amount of memory would help.
    """

    what: str
    missing_bytes: int
    remedies: tuple[str, ...]
