"""How one part of a path differs from another: which kind of glitch would have made it so. Pure.

What people do on purpose looks alike: numbered files, plurals, short names that differ in one
letter. Each difference has a confidence; where it may be meant, that is low or there is none.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from appliance.paths import looked_alike, read_alike, skeleton, without_accents, without_spaces


class Kind(StrEnum):
    """The kinds of glitch."""

    CASE = "case"
    INSERTED_SPACE = "inserted_space"
    LOST_SPACE = "lost_space"
    DROPPED_COMPONENT = "dropped_component"
    DOUBLED_SEPARATOR = "doubled_separator"
    SUBSTITUTED_CHARACTER = "substituted_character"
    OTHER = "other"


# How sure it is that nobody meant a difference; a glitch may be mended from STYLE on.
PLAIN = 0.97  # nobody writes that: a space beside a dot
CLEAR = 0.95
LIKELY = 0.92
STYLE = 0.9  # one name in two styles, or a long word that differs in one letter
FAIR = 0.85
DOUBTFUL = 0.75
STYLES = 0.7  # two styles that both are used: userService, user-service
WEAK = 0.6  # a short word that differs in one letter
FAINT = 0.5  # singular and plural


@dataclass(frozen=True)
class Difference:
    """A kind, its confidence, and the parts that are not the same; ``by_letter``: in one letter."""

    kind: Kind
    confidence: float
    parts: tuple[str, ...] = ()
    by_letter: bool = False


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# The endings of files that are at home beside each other: another of them is another file.
_ENDINGS = _set(
    "c h cc hh cpp hpp cxx hxx cs s m mm r d v vb fs go rs py pyi pyx pyc rb pl pm php "
    "js jsx mjs cjs ts tsx mts cts vue css scss sass less html htm xml xsl svg json "
    "jsonc yml yaml toml ini cfg conf env md mdx rst txt log csv tsv sql db sh bash zsh "
    "ps bat java kt kts scala lua ex exs erl hs ml mli nim zig jl dart swift proto tf "
    "hcl lock png jpg jpeg gif ico webp bmp pdf doc docx xls xlsx ppt mp3 mp4 wav ogg "
    "ogv mov gd tscn tres so a o lib dll exe zip gz tar bz2 xz 7z jar war map snap tmp "
    "bak old orig"
)
_SAME_ENDINGS = (_set("yml yaml"), _set("jpg jpeg"), _set("htm html"), _set("md markdown"))
_TOKEN = re.compile(r"[^\W_]+")
_DOUBLED = re.compile(r"([-_.])\1+")
_SEPARATOR = re.compile(r"[-_. ]")
_BETWEEN_DIGITS = re.compile(r"\d[-_. ]*\d")
_NUMBER = re.compile(r"\d+(?:[-_. ]+\d+)*")
_BESIDE_A_MARK = re.compile(r"\s[\W_]|[\W_]\s|^\s|\s$")
_AROUND = "\"'`.,;:!?()<>[]{}* "
_LEAST_LETTERS = 3
_SOME_LETTERS = 5
_MANY_LETTERS = 8  # a word of so many letters that differs in one is the same word


def part_difference(ours: str, theirs: str) -> Difference | None:
    """Return what a glitch would have done to the part ``theirs`` to make it ``ours``.

    They are not the same. None: nothing that we know, or what people do on purpose.
    """
    tests = _OF_ONE_SKELETON if skeleton(ours) == skeleton(theirs) else _OF_OTHERS
    if tests is _OF_OTHERS and not is_near(ours, theirs):
        return None
    for test in tests:
        if (found := test(ours, theirs)) is not None:
            return found
    return None


def is_odd(part: str) -> bool:
    """Tell whether a part holds what few people write: a space beside a mark, or a quote."""
    return _BESIDE_A_MARK.search(part) is not None or part.strip(_AROUND) != part.lstrip(".")


def is_near(ours: str, theirs: str) -> bool:
    """Tell whether two parts may differ in a letter or so: most files of a folder do not."""
    return theirs in ours or _edited_at(ours, theirs) is not None


def _edited_at(ours: str, theirs: str) -> int | None:
    """Return where one letter was changed, lost or put in, or two changed places; None: more."""
    more = len(ours) - len(theirs)
    if not -1 <= more <= 1:
        return None
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if at is None:
        return min(len(ours), len(theirs))
    rest, known = ours[at:], theirs[at:]
    if more:
        is_one = rest == known[1:] if more < 0 else rest[1:] == known
    else:
        is_one = rest[1:] == known[1:] or (rest[:2] == known[1::-1] and rest[2:] == known[2:])
    return at if is_one else None


def _spaces(ours: str, theirs: str) -> Difference | None:
    tight, known = without_spaces(ours), without_spaces(theirs)
    if (ours == tight and theirs == known) or tight.casefold() != known.casefold():
        return None
    if len(ours) > len(theirs):
        sure = PLAIN if _BESIDE_A_MARK.search(ours) else LIKELY
        return Difference(Kind.INSERTED_SPACE, sure, (ours,))
    if len(ours) < len(theirs):
        return Difference(Kind.LOST_SPACE, LIKELY, (ours,))
    # a space of another kind
    return Difference(Kind.SUBSTITUTED_CHARACTER, STYLE, (ours,)) if tight == known else None


def _case(ours: str, theirs: str) -> Difference | None:
    is_case = ours.casefold() == theirs.casefold()
    return Difference(Kind.CASE, CLEAR, (ours,)) if is_case else None


def _doubles(ours: str, theirs: str) -> Difference | None:
    once, known = _DOUBLED.sub(r"\1", ours), _DOUBLED.sub(r"\1", theirs)
    if once.casefold() != known.casefold():
        return None
    if len(ours) > len(theirs):
        return Difference(Kind.DOUBLED_SEPARATOR, CLEAR, (ours,))
    return Difference(Kind.OTHER, LIKELY, (ours,)) if len(ours) < len(theirs) else None


def _around(ours: str, theirs: str) -> Difference | None:
    is_wrapped = len(ours) > len(theirs) and ours.strip(_AROUND) == theirs.strip(_AROUND)
    return Difference(Kind.OTHER, LIKELY, (ours,)) if is_wrapped else None


def _marks(ours: str, theirs: str) -> Difference | None:
    """Compare names that differ in their separators: in kind, or in that some are missing."""
    bare, known = _SEPARATOR.sub("", ours), _SEPARATOR.sub("", theirs)
    if bare.casefold() != known.casefold():
        return None
    has_numbers = _BETWEEN_DIGITS.search(ours) or _BETWEEN_DIGITS.search(theirs)
    if has_numbers and _NUMBER.findall(ours) != _NUMBER.findall(theirs):
        # 1.2 and 12, and dates in two styles; but no style is mixed
        is_mixed = len(ours) == len(theirs) and len(_SEPARATOR.findall(ours)) > 1
        swaps = sum(a != b for a, b in zip(ours, theirs, strict=False))
        odd = Difference(Kind.SUBSTITUTED_CHARACTER, STYLES, (ours,), by_letter=True)
        return odd if is_mixed and swaps == 1 else None
    if len(ours) == len(theirs):
        sure = STYLE if bare == known else STYLES
        return Difference(Kind.SUBSTITUTED_CHARACTER, sure, (ours,))
    is_dot = abs(ours.count(".") - theirs.count(".")) == 1 and abs(len(ours) - len(theirs)) == 1
    return Difference(Kind.OTHER, FAIR if is_dot else STYLES, (ours,))


def _alike(ours: str, theirs: str) -> Difference | None:
    """Compare names in letters that look the same, that lost an accent, or read as a digit."""
    if looked_alike(ours) == looked_alike(theirs):
        return Difference(Kind.SUBSTITUTED_CHARACTER, CLEAR, (ours,))
    if without_accents(ours) == without_accents(theirs):
        return Difference(Kind.SUBSTITUTED_CHARACTER, LIKELY, (ours,))
    if len(ours) != len(theirs) or read_alike(ours) != read_alike(theirs):
        return None
    swaps = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    is_word = all(a.isalpha() or b.isalpha() for a, b in swaps)  # and not within a number
    sure = Difference(Kind.SUBSTITUTED_CHARACTER, DOUBTFUL, (ours,), by_letter=True)
    return sure if is_word else None


def _letters(ours: str, theirs: str) -> Difference | None:
    """Compare names that differ in one letter, or in two that changed places."""
    at = _edited_at(ours, theirs)
    if at is None:
        return None
    is_longer = len(ours) != len(theirs)
    is_changed = not is_longer and ours[at + 1 :] == theirs[at + 1 :]
    kind = Kind.SUBSTITUTED_CHARACTER if is_changed else Kind.OTHER
    return _one_letter(kind, ours, theirs, at, is_longer=is_longer)


def _one_letter(
    kind: Kind, ours: str, theirs: str, at: int, *, is_longer: bool
) -> Difference | None:
    """Judge one letter by the word that it stands in."""
    longer = theirs if len(theirs) >= len(ours) else ours
    word = next((m for m in _TOKEN.finditer(longer) if m.start() <= at < m.end()), None)
    if word is None:  # a mark, no letter
        is_number = re.search(r"\d.?$", longer[: at + 1]) and longer[at + 1 : at + 2].isdigit()
        return None if is_number else Difference(kind, STYLES, (ours,), by_letter=True)
    letters = len(word[0])
    if any(char.isdigit() for char in word[0]) or ours[at : at + 1].isdigit():
        is_digit = longer[at].isdigit() or (at < len(theirs) and theirs[at].isdigit())
        if is_digit or letters < _MANY_LETTERS or not word[0].rstrip("0123456789").isalpha():
            return None  # numbers, versions, hashes
    if word.end() == len(longer) and longer[: word.start()].endswith("."):
        return _ending(kind, ours, ours[word.start() :].lower(), theirs[word.start() :].lower())
    if letters < _LEAST_LETTERS:
        return None
    is_edge = at in (word.start(), word.end() - 1)
    if is_longer and at == word.end() - 1 and longer[at] in "sS":
        sure = FAINT
    elif letters < _MANY_LETTERS or is_edge:
        is_long = letters >= _SOME_LETTERS or sum(map(str.isalpha, longer)) > _MANY_LETTERS
        sure = DOUBTFUL if is_long else WEAK
    else:
        sure = STYLE
    return Difference(kind, sure, (ours,), by_letter=True)


def _ending(kind: Kind, ours: str, ending: str, known: str) -> Difference | None:
    if {ending, known} in _SAME_ENDINGS:
        return Difference(kind, STYLES, (ours,), by_letter=True)
    return None if ending in _ENDINGS else Difference(kind, DOUBTFUL, (ours,), by_letter=True)


_OF_OTHERS = (_around, _alike, _letters)
_OF_ONE_SKELETON = (_spaces, _case, _doubles, _around, _marks, _alike, _letters)
