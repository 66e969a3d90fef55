"""The mask: which experts of each layer go. Its file is ``{"0": [ids], "1": [ids], …}``."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from appliance.checkpoint.failures import MaskError


@dataclass(frozen=True)
class Mask:
    """The deleted experts of every layer, ascending; every layer keeps the same number."""

    original: int
    deleted: tuple[tuple[int, ...], ...]

    @property
    def retained(self) -> int:
        """Return how many experts each layer keeps."""
        return self.original - (len(self.deleted[0]) if self.deleted else 0)

    @cached_property
    def _numbers(self) -> tuple[dict[int, int], ...]:
        return tuple(
            {old: new for new, old in enumerate(sorted({*range(self.original)} - {*gone}))}
            for gone in self.deleted
        )

    def kept(self, layer: int) -> tuple[int, ...]:
        """Return the old numbers of the experts that stay, ascending."""
        return tuple(self._numbers[layer])

    def new_number(self, layer: int, expert: int) -> int | None:
        """Return an expert's number among those that stay; None when it goes."""
        return self._numbers[layer].get(expert)


def read_mask(path: Path, layers: int, original: int, retained: int | None) -> Mask:
    """Return the mask in a file. Raises MaskError saying all that is wrong with it.

    Without ``retained`` every layer must lose as many experts as the first.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as cause:
        raise MaskError(f"{path} cannot be read: {cause}", _HINT) from cause
    return check_mask(content, layers, original, retained, str(path))


def check_mask(content: Any, layers: int, original: int, retained: int | None, label: str) -> Mask:
    """Return what a mask file's content says. Raises MaskError for any other than a mask."""
    if not isinstance(content, dict):
        raise MaskError(f"{label} is no table of layers", _HINT)
    wanted = {str(layer) for layer in range(layers)}
    if strange := wanted ^ content.keys():
        raise MaskError(
            f"{label} should name the {layers} layers 0 to {layers - 1}, and differs in "
            f"{len(strange)}: {', '.join(ascii(name[:20]) for name in sorted(strange)[:5])}",
            _HINT,
        )
    first = content["0"]
    count = original - retained if retained else len(first) if isinstance(first, list) else 0
    for layer in range(layers):
        if what := _wrong(content[str(layer)], original, count):
            raise MaskError(f"{label}, layer {layer}: {what}", _HINT)
    return Mask(original, tuple(tuple(sorted(content[str(n)])) for n in range(layers)))


def render_mask(mask: Mask) -> str:
    """Return the file's text, a line for each layer."""
    lines = (f'  "{layer}": {json.dumps(gone)}' for layer, gone in enumerate(mask.deleted))
    return "{\n" + ",\n".join(lines) + "\n}\n"


_HINT = 'a mask is {"0": [ids of the deleted experts], "1": [...], ...}; --compare-with finds it'


def _wrong(ids: Any, original: int, count: int) -> str:
    if not isinstance(ids, list) or not all(type(number) is int for number in ids):
        return "is no list of numbers"
    if len(ids) != count or count >= original:
        return f"{len(ids)} deleted experts, and not {count}"
    if len(set(ids)) != count:
        return "names an expert twice"
    if outside := [number for number in ids if not 0 <= number < original]:
        return f"expert {str(outside[0])[:20]} is not within 0 to {original - 1}"
    return ""
