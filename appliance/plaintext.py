"""Words for a terminal: text that does nothing to it, and lengths of time. Pure."""


def plain(value: object) -> str:
    """Return text that does nothing to a terminal: an engine's line may hold any byte."""
    text = "" if value is None else str(value).expandtabs()
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def duration(seconds: float) -> str:
    """Return a length of time in the unit that fits; 0 for a negative one."""
    whole = max(0, round(seconds))
    if whole < 90:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 5400 else f"{whole / 3600:.1f} h"
