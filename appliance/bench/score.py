"""What an answer is worth: exact, a glitch of a kind, another path, or no path. Pure."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum

from appliance.bench.cases import Case
from appliance.bench.kinds import glitch_kind

_Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile
_ALIKE = 0.6  # of SequenceMatcher: below it two texts are not the same path gone wrong
_LONGEST = 4096  # characters of a text that are searched for a path
_FENCE = re.compile(r"\A```[^\n]*\n(.*?)\n?```\Z", re.DOTALL)
_QUOTED = re.compile(r"[`\"'“«]([^`\"'“”«»\n]+)[`\"'”»]")
_ROOTED = re.compile(r"(?:~|\.{1,2}|[A-Za-z]:|\\)?[/\\]\S+")


class Outcome(StrEnum):
    """What came. ``OTHER`` is another path that was in sight, ``NONE`` no path at all.

    ``UNFIT`` says that the question does not fit the model's context: it is counted apart.
    """

    EXACT = "exact"
    GLITCH = "glitch"
    OTHER = "other path"
    NONE = "no path"
    UNFIT = "does not fit"


@dataclass(frozen=True)
class Said:
    """What a model answered: its text, and its tool calls as (tool, arguments as JSON text)."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The outcome, the kind of a glitch, and the path as it was written ("" for none)."""

    outcome: Outcome
    kind: str = ""
    written: str = ""


def judge(case: Case, said: Said) -> Verdict:
    """Return what the answer to ``case`` is worth."""
    if case.is_call:
        written = _argument(said)
        return _verdict(case, written) if written else Verdict(Outcome.NONE)
    text = said.text.strip()[:_LONGEST]
    return _best(case, text) if text else Verdict(Outcome.NONE)


def _argument(said: Said) -> str:
    """Return the path argument of the first call that has one."""
    for _, arguments in said.calls:
        try:
            told = json.loads(arguments)
        except ValueError:
            continue
        path = told.get("path") if isinstance(told, dict) else None
        if isinstance(path, str) and path:
            return path
    return ""


def _verdict(case: Case, written: str) -> Verdict:
    """Judge a text that is known to be a path."""
    if written == case.path:
        return Verdict(Outcome.EXACT, written=written)
    if written in case.others:
        return Verdict(Outcome.OTHER, written=written)
    return Verdict(Outcome.GLITCH, glitch_kind(written, case.path), written)


def _best(case: Case, text: str) -> Verdict:
    """Judge a text that may hold more than the path: the part most like it counts."""
    candidates = list(_candidates(text))
    for other in case.others:  # first: who writes all of them has not answered
        if other in candidates:
            return Verdict(Outcome.OTHER, written=other)
    if case.path in candidates:
        return Verdict(Outcome.EXACT, written=case.path)
    alike, written = max((_likeness(case.path, part), part) for part in candidates)
    is_meant = alike >= _ALIKE or _last(written) == _last(case.path)
    return _verdict(case, written) if is_meant else Verdict(Outcome.NONE)


def _candidates(text: str) -> Iterator[str]:
    fenced = _FENCE.match(text)
    inner = fenced[1] if fenced else text
    yield inner
    for line in inner.splitlines():
        line = line.strip().strip("*")
        yield line
        yield line.rstrip(".")
    yield from _QUOTED.findall(inner)
    for found in _ROOTED.findall(inner):
        yield found
        yield found.rstrip(".,;:!?)`'\"")


def _likeness(path: str, part: str) -> float:
    if len(part) > 2 * len(path):
        return 0.0
    return SequenceMatcher(None, path.casefold(), part.casefold(), autojunk=False).ratio()


def _last(path: str) -> str:
    return re.split(r"[/\\]", path)[-1]


@dataclass(frozen=True)
class Rate:
    """``count`` of ``total``, with its Wilson 95 % interval, all shares from 0 to 1.

    Of nothing nothing is known: the share is None and the interval is everything.
    """

    count: int
    total: int

    @property
    def share(self) -> float | None:
        """The share itself."""
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """Where the true share lies, 95 times out of 100."""
        return wilson(self.count, self.total)


def wilson(count: int, total: int, z: float = _Z95) -> tuple[float, float]:
    """Return Wilson's score interval for ``count`` of ``total``; (0, 1) for none.

    Unlike the textbook's p ± z·√(p(1-p)/n) it is right near 0 and 1, where path errors live.
    Raises ValueError unless 0 <= count <= total.
    """
    if not 0 <= count <= total:
        raise ValueError(f"{count} of {total} is no share")
    if not total:
        return 0.0, 1.0
    share, square = count / total, z * z / total
    middle = share + square / 2
    spread = z * math.sqrt(share * (1 - share) / total + square / (4 * total))
    low, high = (middle - spread) / (1 + square), (middle + spread) / (1 + square)
    # exact at the ends, where rounding would leave a hair
    return (0.0 if count == 0 else low), (1.0 if count == total else high)
