"""What kind of glitch lies between the path that was meant and the one that was written. Pure.

The guard asks whether a difference may be on purpose; here it is known that it was not. So what
the guard would rather leave alone has a kind too.
"""

import re

from appliance.pathdiff import Kind, difference
from appliance.paths import parse, without_spaces

_SEPARATORS = re.compile(r"(?<=[^/\\])[/\\]+")


def glitch_kind(written: str, meant: str) -> Kind:
    """Return the kind of a ``written`` path that is not ``meant``."""
    if written.casefold() == meant.casefold():
        return Kind.CASE
    if without_spaces(written) == without_spaces(meant):
        return Kind.INSERTED_SPACE if len(written) > len(meant) else Kind.LOST_SPACE
    if _SEPARATORS.sub("/", written) == _SEPARATORS.sub("/", meant):
        return Kind.DOUBLED_SEPARATOR
    if len(written) == len(meant) and _unlike(written, meant) == 1:
        return Kind.SUBSTITUTED_CHARACTER
    ours, theirs = parse(written), parse(meant)
    found = difference(ours, theirs) if ours and theirs else None
    return found.kind if found else Kind.OTHER


def _unlike(written: str, meant: str) -> int:
    return sum(a != b for a, b in zip(written, meant, strict=True))
