"""What kind of glitch lies between the path that was meant and the one that was written. Pure."""

import re

_SEPARATORS = re.compile(r"[/\\]+")
KINDS = (
    "case",
    "inserted space",
    "lost space",
    "dropped component",
    "doubled separator",
    "substituted character",
    "other",
)


def glitch_kind(written: str, meant: str) -> str:
    """Return the kind, one of ``KINDS``, of a ``written`` path that is not ``meant``."""
    if written.casefold() == meant.casefold():
        return "case"
    if written.replace(" ", "") == meant.replace(" ", ""):
        return "inserted space" if len(written) > len(meant) else "lost space"
    ours, theirs = _SEPARATORS.split(meant), _SEPARATORS.split(written)
    if ours == theirs:
        return "doubled separator"
    if len(theirs) < len(ours) and _is_within(theirs, ours):
        return "dropped component"
    same_length = len(written) == len(meant)
    if same_length and sum(a != b for a, b in zip(written, meant, strict=True)) <= 2:
        return "substituted character"
    return "other"


def _is_within(few: list[str], many: list[str]) -> bool:
    rest = iter(many)
    return all(part in rest for part in few)
