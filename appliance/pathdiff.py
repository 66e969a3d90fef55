"""How one path differs from another: which kind of glitch would have made it so. Pure.

What people do on purpose looks alike: numbered files, plurals, short names that differ in one
letter. Each difference has a confidence; where it may be meant, that is low or there is none.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from appliance.paths import PathName, composed, looked_alike, read_alike, without_spaces


class Kind(StrEnum):
    """The kinds of glitch."""

    CASE = "case"
    INSERTED_SPACE = "inserted_space"
    LOST_SPACE = "lost_space"
    DROPPED_COMPONENT = "dropped_component"
    DOUBLED_SEPARATOR = "doubled_separator"
    SUBSTITUTED_CHARACTER = "substituted_character"
    OTHER = "other"


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


@dataclass(frozen=True)
class Difference:
    """A kind, how sure it is that nobody meant it (0 to 1), and the parts that are not the same."""

    kind: Kind
    confidence: float
    parts: tuple[str, ...] = ()


# The names that stand in any folder: one of them elsewhere says nothing.
_COMMON = re.compile(
    r"(?i)(?:index|main|mod|lib|init|__init__|__main__|conftest|setup|app|page|layout|route|test|"
    r"readme|license|changelog|makefile|dockerfile|package|tsconfig|cargo|pyproject|go|pom|build|"
    r"cmakelists|config|settings|types?|utils?|styles?|constants|schema|models?|views?|urls|admin)"
    r"(?:\.[\w.]+)?|\..*"
)
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
_TOKEN = re.compile(r"[^\W_]+")
_DOUBLED = re.compile(r"([-_.])\1+")
_SEPARATOR = re.compile(r"[-_. ]")
_BESIDE_A_MARK = re.compile(r"\s[\W_]|[\W_]\s|^\s|\s$")
SPLIT = 0.97  # the confidence of a space beside a dot or a dash: nobody writes that
_AROUND = "\"'`.,;:!?()<>[]{}* "
_LEAST_LETTERS = 3
_LONG_LETTERS = 8  # a word of so many letters that differs in one is the same word


def is_common(part: str) -> bool:
    """Tell whether a name stands in many folders, so that it tells nothing of where it belongs."""
    return _COMMON.fullmatch(part) is not None


def difference(emitted: PathName, known: PathName) -> Difference | None:
    """Return what a glitch would have done to ``known`` to make it ``emitted``.

    None: nothing that we know; or too much, or just what people do on purpose.
    """
    if emitted.anchor != known.anchor:
        return _anchor_lost(emitted, known)
    ours = tuple(map(composed, emitted.parts))
    theirs = tuple(map(composed, known.parts))
    if len(ours) == len(theirs):
        return _same_depth(ours, theirs)
    if len(ours) < len(theirs):
        return _dropped(ours, theirs) or _merged(ours, theirs)
    return _repeated(ours, theirs) or _merged(ours, theirs)


def _anchor_lost(emitted: PathName, known: PathName) -> Difference | None:
    is_lost = not emitted.anchor and known.anchor and len(known.parts) > 1
    if is_lost and tuple(map(composed, emitted.parts)) == tuple(map(composed, known.parts)):
        return Difference(Kind.OTHER, 0.95)
    return None


def _same_depth(ours: tuple[str, ...], theirs: tuple[str, ...]) -> Difference | None:
    """Compare part by part. The whole is as sure as its least sure part."""
    unlike = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    found: list[Difference] = []
    for a, b in unlike:
        one = part_difference(a, b)
        if one is None:
            return None
        found.append(one)
    if not found:
        return None
    kinds = {one.kind for one in found}
    letters = sum(one.confidence < 0.9 for one in found)
    if letters > 1:
        return None
    kind = found[-1].kind if len(kinds) == 1 else _main_kind(kinds)
    return Difference(kind, min(one.confidence for one in found), tuple(a for a, _ in unlike))


def _main_kind(kinds: set[Kind]) -> Kind:
    order = (
        Kind.INSERTED_SPACE,
        Kind.LOST_SPACE,
        Kind.DOUBLED_SEPARATOR,
        Kind.SUBSTITUTED_CHARACTER,
        Kind.CASE,
    )
    return next((kind for kind in order if kind in kinds), Kind.OTHER)


def _dropped(ours: tuple[str, ...], theirs: tuple[str, ...]) -> Difference | None:
    """Tell whether parts of ``theirs`` are missing, the last one not among them."""
    missing = len(theirs) - len(ours)
    if missing > 2 or ours[-1] != theirs[-1] or not _is_within(ours, theirs):
        return None
    confidence = 0.92 if missing == 1 and len(ours) > 1 else 0.7
    if is_common(ours[-1]):
        confidence -= 0.2
    return Difference(Kind.DROPPED_COMPONENT, confidence)


def _is_within(few: tuple[str, ...], many: tuple[str, ...]) -> bool:
    rest = iter(many)
    return all(any(part == one for one in rest) for part in few)


def _repeated(ours: tuple[str, ...], theirs: tuple[str, ...]) -> Difference | None:
    """Tell whether one part, or a run of parts, stands twice in a row."""
    extra = len(ours) - len(theirs)
    for at in range(len(ours) - 2 * extra + 1):
        again = ours[at : at + extra] == ours[at + extra : at + 2 * extra]
        if again and ours[:at] + ours[at + extra :] == theirs:
            return Difference(Kind.OTHER, 0.93)
    return None


def _merged(ours: tuple[str, ...], theirs: tuple[str, ...]) -> Difference | None:
    """Tell whether the separators between parts were lost, or some came in; nothing else."""
    if abs(len(ours) - len(theirs)) > 1:
        return None
    if "".join(ours) == "".join(theirs):
        return Difference(Kind.OTHER, 0.9, ours)
    if without_spaces("".join(ours)) == "".join(theirs) and len(ours) < len(theirs):
        return Difference(Kind.OTHER, 0.9, ours)  # a space where a slash was
    return None


def part_difference(ours: str, theirs: str) -> Difference | None:
    """Return what a glitch would have done to the part ``theirs``; they are not the same."""
    for test in (_spaces, _case, _doubles, _marks, _look_alikes, _around, _letters):
        if (found := test(ours, theirs)) is not None:
            return found
    return None


def _spaces(ours: str, theirs: str) -> Difference | None:
    tight, known = without_spaces(ours), without_spaces(theirs)
    if ours == tight and theirs == known:
        return None
    is_case = tight != known and tight.casefold() == known.casefold()
    if tight != known and not is_case:
        return None
    if len(ours) == len(theirs) and not is_case:  # a space of another kind
        return Difference(Kind.SUBSTITUTED_CHARACTER, 0.9, (ours,))
    if len(ours) > len(theirs):
        sure = SPLIT if _BESIDE_A_MARK.search(ours) else 0.92
        return Difference(Kind.INSERTED_SPACE, sure, (ours,))
    if len(ours) < len(theirs):
        return Difference(Kind.LOST_SPACE, 0.92, (ours,))
    return None


def _case(ours: str, theirs: str) -> Difference | None:
    is_case = ours.casefold() == theirs.casefold()
    return Difference(Kind.CASE, 0.95, (ours,)) if is_case else None


def _doubles(ours: str, theirs: str) -> Difference | None:
    once, known = _DOUBLED.sub(r"\1", ours), _DOUBLED.sub(r"\1", theirs)
    if once.casefold() != known.casefold():
        return None
    if len(ours) > len(theirs):
        return Difference(Kind.DOUBLED_SEPARATOR, 0.95, (ours,))
    return Difference(Kind.OTHER, 0.92, (ours,)) if len(ours) < len(theirs) else None


def _marks(ours: str, theirs: str) -> Difference | None:
    """Compare names that differ in their separators: in kind, or in that some are missing."""
    if _SEPARATOR.sub("", ours).casefold() != _SEPARATOR.sub("", theirs).casefold():
        return None
    if re.search(r"\d[-_. ]*\d", theirs + "/" + ours) and _numbers(ours) != _numbers(theirs):
        return None  # 1.2 and 12, and dates in two styles
    if len(ours) == len(theirs):
        same_case = _SEPARATOR.sub("", ours) == _SEPARATOR.sub("", theirs)
        return Difference(Kind.SUBSTITUTED_CHARACTER, 0.9 if same_case else 0.7, (ours,))
    # userService and user-service are names in two styles, and both are written on purpose
    is_dot = abs(ours.count(".") - theirs.count(".")) == 1 and abs(len(ours) - len(theirs)) == 1
    return Difference(Kind.OTHER, 0.85 if is_dot else 0.7, (ours,))


def _numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?:[-_. ]+\d+)*", text)


def _look_alikes(ours: str, theirs: str) -> Difference | None:
    if looked_alike(ours) == looked_alike(theirs):
        return Difference(Kind.SUBSTITUTED_CHARACTER, 0.95, (ours,))
    if len(ours) != len(theirs) or read_alike(ours) != read_alike(theirs):
        return None
    # a letter taken for a digit, or the other way round, within a word and not in a number
    swaps = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    is_word = all(a.isalpha() or b.isalpha() for a, b in swaps)
    return Difference(Kind.SUBSTITUTED_CHARACTER, 0.8, (ours,)) if is_word else None


def _around(ours: str, theirs: str) -> Difference | None:
    bare = ours.strip(_AROUND)
    is_wrapped = bare == theirs.strip(_AROUND) and len(ours) > len(theirs)
    return Difference(Kind.OTHER, 0.92, (ours,)) if is_wrapped else None


def _letters(ours: str, theirs: str) -> Difference | None:
    """Compare names that differ in one letter, or in two that changed places."""
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    at = min(len(ours), len(theirs)) if at is None else at
    rest, known = ours[at:], theirs[at:]
    kind, shorter = Kind.OTHER, None
    if len(ours) == len(theirs):
        if rest[1:] == known[1:]:
            kind = Kind.SUBSTITUTED_CHARACTER
        elif rest[:2] != known[1::-1] or rest[2:] != known[2:]:
            return None
    elif len(ours) + 1 == len(theirs) and rest == known[1:]:
        shorter = ours
    elif len(ours) == len(theirs) + 1 and rest[1:] == known:
        shorter = theirs
    else:
        return None
    return _one_letter(kind, ours, theirs, at, is_longer=shorter is not None)


def _one_letter(
    kind: Kind, ours: str, theirs: str, at: int, *, is_longer: bool
) -> Difference | None:
    """Judge one letter by the word that it stands in."""
    longer = theirs if len(theirs) >= len(ours) else ours
    word = next((m for m in _TOKEN.finditer(longer) if m.start() <= at < m.end()), None)
    if word is None:  # a mark, no letter
        is_number = re.search(r"\d.?$", longer[: at + 1]) and longer[at + 1 : at + 2].isdigit()
        return None if is_number else Difference(kind, 0.7, (ours,))
    letters = len(word[0])
    if any(char.isdigit() for char in word[0]) or ours[at : at + 1].isdigit():
        is_digit = longer[at].isdigit() or (at < len(theirs) and theirs[at].isdigit())
        if is_digit or letters < _LONG_LETTERS or not word[0].rstrip("0123456789").isalpha():
            return None  # numbers, versions, hashes
    if word.end() == len(longer) and longer[: word.start()].endswith("."):
        is_odd = ours[word.start() :].lower() not in _ENDINGS
        return Difference(kind, 0.75, (ours,)) if is_odd else None
    if letters < _LEAST_LETTERS:
        return None
    if is_longer and at == word.end() - 1 and longer[at] in "sS":
        return Difference(kind, 0.5, (ours,))  # singular and plural
    is_edge = at in (word.start(), word.end() - 1)
    sure = 0.9 if letters >= _LONG_LETTERS and not is_edge else 0.75 if letters > 4 else 0.6
    return Difference(kind, sure, (ours,))
