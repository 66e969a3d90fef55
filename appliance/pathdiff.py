"""How one path differs from another, in its parts and in their number. Pure."""

import re

from appliance.partdiff import (
    CLEAR,
    LIKELY,
    STYLE,
    STYLES,
    Difference,
    Kind,
    part_difference,
)
from appliance.paths import PathName, composed, without_spaces

__all__ = ["Difference", "Kind", "difference", "is_common"]

# The names that stand in any folder: one of them elsewhere says nothing.
_COMMON = re.compile(
    r"(?i)(?:index|main|mod|lib|init|__init__|__main__|conftest|setup|app|page|layout|route|test|"
    r"readme|license|changelog|makefile|dockerfile|package|tsconfig|cargo|pyproject|go|pom|build|"
    r"cmakelists|config|settings|types?|utils?|styles?|constants|schema|models?|views?|urls|admin)"
    r"(?:\.[\w.]+)?|\..*"
)
# Where parts differ in two ways, what is told of them.
_FIRST = (
    Kind.INSERTED_SPACE,
    Kind.LOST_SPACE,
    Kind.DOUBLED_SEPARATOR,
    Kind.SUBSTITUTED_CHARACTER,
    Kind.CASE,
)
_MOST_MISSING = 2


def is_common(part: str) -> bool:
    """Tell whether a name stands in many folders, so that it tells nothing of where it belongs."""
    return _COMMON.fullmatch(part) is not None


def difference(emitted: PathName, known: PathName) -> Difference | None:
    """Return what a glitch would have done to ``known`` to make it ``emitted``.

    None: nothing that we know; or too much, or just what people do on purpose.
    """
    ours = tuple(map(composed, emitted.parts))
    theirs = tuple(map(composed, known.parts))
    if emitted.anchor != known.anchor:
        is_lost = not emitted.anchor and len(theirs) > 1 and ours == theirs
        return Difference(Kind.OTHER, CLEAR) if is_lost else None
    if len(ours) == len(theirs):
        return _same_depth(ours, theirs)
    if len(ours) < len(theirs):
        return _dropped(ours, theirs) or _merged(ours, theirs)
    return _repeated(ours, theirs) or _merged(ours, theirs)


def _same_depth(ours: tuple[str, ...], theirs: tuple[str, ...]) -> Difference | None:
    """Compare part by part. The whole is as sure as its least sure part."""
    found: list[Difference] = []
    for a, b in zip(ours, theirs, strict=True):
        if a != b:
            one = part_difference(a, b)
            if one is None:
                return None
            found.append(one)
    by_letter = [one for one in found if one.by_letter]
    if not found or len(by_letter) > 1:
        return None
    kinds = {one.kind for one in found}
    kind = found[0].kind if len(kinds) == 1 else next((k for k in _FIRST if k in kinds), Kind.OTHER)
    parts = tuple(part for one in found for part in one.parts)
    return Difference(kind, min(one.confidence for one in found), parts, bool(by_letter))


def _dropped(ours: tuple[str, ...], theirs: tuple[str, ...]) -> Difference | None:
    """Tell whether parts of ``theirs`` are missing, the last one not among them."""
    missing = len(theirs) - len(ours)
    if missing > _MOST_MISSING or ours[-1] != theirs[-1] or not _is_within(ours, theirs):
        return None
    return Difference(Kind.DROPPED_COMPONENT, LIKELY if missing == 1 and len(ours) > 1 else STYLES)


def _is_within(few: tuple[str, ...], many: tuple[str, ...]) -> bool:
    rest = iter(many)
    return all(any(part == one for one in rest) for part in few)


def _repeated(ours: tuple[str, ...], theirs: tuple[str, ...]) -> Difference | None:
    """Tell whether one part, or a run of parts, stands twice in a row."""
    extra = len(ours) - len(theirs)
    for at in range(len(ours) - 2 * extra + 1):
        again = ours[at : at + extra] == ours[at + extra : at + 2 * extra]
        if again and ours[:at] + ours[at + extra :] == theirs:
            return Difference(Kind.OTHER, LIKELY)
    return None


def _merged(ours: tuple[str, ...], theirs: tuple[str, ...]) -> Difference | None:
    """Tell whether a separator between parts was lost, or became a space, or one came in."""
    if abs(len(ours) - len(theirs)) > 1:
        return None
    joined, known = "".join(ours), "".join(theirs)
    is_space = len(ours) < len(theirs) and without_spaces(joined) == known
    return Difference(Kind.OTHER, STYLE, ours) if joined == known or is_space else None
