"""What was found about the matrices that are to be quantised, and which of them will be. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from appliance.checkpoint.formats import Matrix, Recipe
from appliance.checkpoint.projections import Choice, Projection
from appliance.checkpoint.tokenbytes import Weights


@dataclass(frozen=True)
class Error:
    """How far a matrix Q is from W: |W - Q| / |W| of Frobenius norms, and the angle's cosine.

    ``worst_row`` is the row of the largest relative error, ``worst`` that error.
    """

    relative: float
    cosine: float
    worst_row: int
    worst: float


@dataclass(frozen=True)
class Measured:
    """A matrix, how it would be written, and how far off that is.

    ``kept`` says why it stays as it is all the same, "" when it does not.
    """

    projection: Projection
    recipe: Recipe
    error: Error
    kept: str = ""


@dataclass(frozen=True)
class Survey:
    """All matrices that were chosen. ``others`` are attention's and the head that were not.

    ``head`` is the head's matrix, chosen or not, None for one that cannot be quantised.
    """

    choice: Choice
    keep_above: float | None
    measured: tuple[Measured, ...]
    others: tuple[str, ...]
    head: Matrix | None
    before: Weights

    @cached_property
    def recipes(self) -> Mapping[str, Recipe]:
        """Return what will be written in another way, by the tensor's name."""
        return {one.projection.tensor: one.recipe for one in self.quantised}

    @property
    def quantised(self) -> list[Measured]:
        """Return what will be quantised."""
        return [one for one in self.measured if not one.kept]

    @property
    def kept(self) -> list[Measured]:
        """Return what was chosen and stays as it is."""
        return [one for one in self.measured if one.kept]

    @property
    def left(self) -> list[str]:
        """Return the modules of attention and the head that stay as they are."""
        return [*self.others, *(one.projection.module for one in self.kept)]

    def after(self, *, head: bool) -> Weights:
        """Return the bytes of the parts when attention is written, and the head with it or not."""
        attention = (one for one in self.quantised if one.projection.layer >= 0)
        saved = sum(one.projection.matrix.size - one.recipe.size for one in attention)
        after = self.before.less(attention=saved)
        if head and self.head:
            its = Recipe(self.choice.kind, self.head.rows, self.head.columns).size
            return after.less(head=self.head.size - its)
        return after

    @property
    def has_head(self) -> bool:
        """Tell whether the head will be quantised."""
        return any(one.projection.layer < 0 for one in self.quantised)
