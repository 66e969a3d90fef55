"""What the README says that commands print, and how that is compared with what they do. Pure.

A claim is a fenced block after a comment ``<!-- newcomer: COMMAND -->``: its lines must come in
this order, with whatever between them where a line is ``…``, and whatever after them on the same
line where it ends in ``…``. A number may be any number.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

GAP = "…"
_CLAIM = re.compile(r"<!-- newcomer: (.+?) -->\n(?:\n)?```\n(.*?)\n```", re.DOTALL)
_TYPED = re.compile(
    r"^    (?=(?:make|appliance|extras/)\b)(.+)$|`((?:make|appliance) [^`]+)`", re.M
)
_NUMBER = re.compile(r"\d+(?:[.,:T+-]+\d+)*")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Claim:
    """One command and the lines that it is said to print."""

    command: str
    lines: tuple[str, ...]


def claims(readme: str) -> list[Claim]:
    """Return what the README claims, in its order."""
    return [Claim(command, tuple(text.splitlines())) for command, text in _CLAIM.findall(readme)]


def missing(claim: Claim, printed: Sequence[str]) -> str | None:
    """Return the first claimed line that was not printed in its place, None if all were."""
    said = iter(printed)
    is_open = True
    for line in claim.lines:
        if line == GAP:
            is_open = True
            continue
        among = said if is_open else islice(said, 1)
        if not any(_is(line, one) for one in among):
            return line
        is_open = False
    return None


def _is(claimed: str, printed: str) -> bool:
    if claimed.endswith(GAP):
        return plain(printed).startswith(plain(claimed.removesuffix(GAP)))
    return plain(printed) == plain(claimed)


def plain(line: str) -> str:
    """Return a line without colours, with each number as # and each run of spaces as one."""
    return " ".join(_NUMBER.sub("#", _COLOUR.sub("", line)).split())


def typed(readme: str) -> Iterator[list[str]]:
    """Yield the words of every command of ours that the README tells to type."""
    for block, inline in _TYPED.findall(readme):
        text = (block or inline).partition("  #")[0].partition(" && ")[0].rstrip("\\")
        try:
            yield shlex.split(text)
        except ValueError:
            continue  # prose between backticks that begins like a command
