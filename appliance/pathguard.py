"""One argument of a tool call: the paths in it, compared with the ledger and judged. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from appliance.glitches import NEW, Verdict, compare
from appliance.partdiff import Kind
from appliance.pathledger import Ledger
from appliance.pathrepair import SURE, Action, Finding, Mode, Place, judge
from appliance.paths import has_extension, is_shaped, is_url
from appliance.pathtext import patched, shell_words
from appliance.pathtools import Deed, KeyKind, Tools, creates, key_kind

LONGEST_VALUE = 2**15  # characters of a command or a patch that are read
MOST_WORDS = 64  # of a command that are compared

# Commands whose last word need not be there yet.
_TO_A_NEW_PLACE = frozenset(
    ("mv", "cp", "ln", "rename", "install", "touch", "mkdir", "tee", "rsync", "scp", "git")
)
_TO_FIND = frozenset(("grep", "egrep", "fgrep", "rg", "ag", "sed", "awk", "perl"))
_OPEN_END = re.compile(r"[-_./]$")
_OPEN_START = re.compile(r"^[_.]\w")


@dataclass(frozen=True)
class Judged:
    """A glitch that was found: what is told of it, and the paths that it is about."""

    finding: Finding
    emitted: str
    meant: str


class PathGuard:
    """Judges the arguments of one reply's tool calls."""

    def __init__(self, mode: Mode, tools: Tools, ledger: Ledger) -> None:
        self._mode = mode
        self._tools = tools
        self._ledger = ledger

    def check(self, tool: str, key: str, value: str) -> list[Judged]:
        """Return the glitches in one value of a tool's arguments, in their order.

        Only one that is the whole value can be MENDED: its ``meant`` takes the value's place.
        """
        deed = self._tools.deed(tool)
        found = (self._judged(*one, deed) for one in self._compared(key, value, deed))
        return [judged for judged in found if judged is not None]

    def may_mend(self, tool: str, key: str) -> bool:
        """Tell whether a value of this key may be mended at all: it must be held back then."""
        if not self._mode.mends or key_kind(key) is not KeyKind.PATH:
            return False
        deed = self._tools.deed(tool)
        return deed is not Deed.UNCLEAR and (
            deed is not Deed.DANGER or self._mode is Mode.REPAIR_COMMANDS
        )

    def _judged(self, text: str, verdict: Verdict, place: Place, deed: Deed) -> Judged | None:
        ledger, mode = self._ledger, self._mode
        finding = judge(text, verdict, deed=deed, place=place, ledger=ledger, mode=mode)
        return None if finding is None else Judged(finding, text, verdict.meant)

    def _compared(self, key: str, value: str, deed: Deed) -> Iterator[tuple[str, Verdict, Place]]:
        kind, ledger = key_kind(key), self._ledger
        is_new = deed is Deed.CREATE or creates(key)
        if kind is KeyKind.PATH:
            yield value, compare(value, ledger, creates=is_new), Place.KEY
        elif kind is KeyKind.COMMAND:
            for words in shell_words(value[:LONGEST_VALUE]):
                yield from self._of_command(words)
        elif kind is KeyKind.PATCH and (heads := list(patched(value[:LONGEST_VALUE]))):
            for text in heads[:MOST_WORDS]:
                yield text, compare(text, ledger, creates=True), Place.PATCH
        elif kind is KeyKind.OTHER and is_shaped(value):
            yield value, compare(value, ledger, creates=is_new), Place.SHAPE

    def _of_command(self, words: list[str]) -> Iterator[tuple[str, Verdict, Place]]:
        is_moving = words[0] in _TO_A_NEW_PLACE or (words[0] == "sudo" and len(words) > 2)
        words = words[:MOST_WORDS]
        if words[0] in _TO_FIND:  # their first word is no path but a pattern
            named = next((at for at, word in enumerate(words) if at and word[:1] != "-"), 0)
            words = words[:named] + words[named + 1 :]
        at = 0
        while at < len(words):
            size, text, verdict = self._split_word(words, at)
            if verdict.is_glitch:
                yield text, verdict, Place.COMMAND
            else:
                size, is_last = 1, is_moving and at == len(words) - 1
                for text in _values(words[at]):
                    verdict = compare(text, self._ledger, creates=is_last)
                    yield text, verdict, Place.COMMAND
            at += size

    def _split_word(self, words: list[str], at: int) -> tuple[int, str, Verdict]:
        """Return the path that a space, or two, made several words of: how many, and which."""
        for size in (4, 3, 2):
            some = words[at : at + size]
            is_split = len(some) == size and all(
                _OPEN_END.search(a) or _OPEN_START.search(b) for a, b in pairwise(some)
            )
            if not is_split or some[0].startswith("-"):
                continue
            text = " ".join(some)
            verdict = compare(text, self._ledger)
            if verdict.kind is Kind.INSERTED_SPACE and verdict.confidence >= SURE:
                return size, text, verdict
        return 1, "", NEW


def mended(value: str, judged: list[Judged]) -> str | None:
    """Return what takes the place of a value, None if it stays."""
    for one in judged:
        if one.finding.action is Action.MENDED and one.emitted == value:
            return one.meant
    return None


def _values(word: str) -> list[str]:
    """Return what may be paths in a word of a command: of ``--name=value`` and ``-v a:b`` too."""
    value = word.partition("=")[2] if "=" in word.partition("/")[0] else word
    if value.startswith("-") or is_url(value) or "://" in value:
        return []
    values = value.split(":") if "/" in value and "\\" not in value else [value]
    return [one for one in values if "/" in one or "\\" in one or has_extension(one)]
