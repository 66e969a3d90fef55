"""Glitched paths made from the true ones of a corpus, seeded: what a model does to a path."""

import random
import string
from collections.abc import Callable, Iterator

from appliance.pathledger import TRUSTED
from appliance.paths import has_extension, parse
from appliance.pathtools import KeyKind, key_kind
from tests.corpus.pathcases import Case, ledger_of, load

HOMOGLYPHS = {"a": "а", "c": "с", "e": "е", "o": "о", "p": "р", "x": "х"}  # noqa: RUF001

Mutator = Callable[[random.Random, str], str | None]


def _letters(text: str) -> list[int]:
    return [at for at, char in enumerate(text) if char.isascii() and char.isalpha()]


def _replace(text: str, at: int, new: str, size: int = 1) -> str:
    return text[:at] + new + text[at + size :]


def case_of_a_letter(draw: random.Random, text: str) -> str | None:
    at = draw.choice(_letters(text))
    return _replace(text, at, text[at].swapcase())


def case_of_a_part(draw: random.Random, text: str) -> str | None:
    parts = text.split("/")
    at = draw.randrange(len(parts))
    parts[at] = draw.choice((str.upper, str.lower, str.capitalize))(parts[at])
    return "/".join(parts)


def space_at_a_mark(draw: random.Random, text: str) -> str | None:
    marks = [at for at, char in enumerate(text) if char in "/._-" and at]
    at = draw.choice(marks) if marks else 0
    return _replace(text, at + draw.randrange(2), " ", 0) if marks else None


def space_in_a_word(draw: random.Random, text: str) -> str | None:
    return _replace(text, draw.randrange(1, len(text)), " ", 0)


def two_spaces(draw: random.Random, text: str) -> str | None:
    once = space_at_a_mark(draw, text)
    return once and space_at_a_mark(draw, once)


def space_lost(draw: random.Random, text: str) -> str | None:
    spaces = [at for at, char in enumerate(text) if char == " "]
    return _replace(text, draw.choice(spaces), "") if spaces else None


def part_dropped(draw: random.Random, text: str) -> str | None:
    parts = text.split("/")
    inner = [at for at in range(len(parts) - 1) if parts[at]]
    if not inner:
        return None
    del parts[draw.choice(inner)]
    return "/".join(parts)


def slash_doubled(draw: random.Random, text: str) -> str | None:
    slashes = [at for at, char in enumerate(text) if char == "/" and at]
    return _replace(text, draw.choice(slashes), "//") if slashes else None


def mark_doubled(draw: random.Random, text: str) -> str | None:
    marks = [at for at, char in enumerate(text) if char in "._-" and text[at - 1 : at].isalnum()]
    at = draw.choice(marks) if marks else 0
    return _replace(text, at, text[at] * 2) if marks else None


def letter_changed(draw: random.Random, text: str) -> str | None:
    at = draw.choice(_letters(text))
    others = [char for char in string.ascii_lowercase if char != text[at].lower()]
    return _replace(text, at, draw.choice(others))


def mark_changed(draw: random.Random, text: str) -> str | None:
    marks = [at for at, char in enumerate(text) if char in "_-" and at]
    at = draw.choice(marks) if marks else 0
    return _replace(text, at, "_" if text[at] == "-" else "-") if marks else None


def look_alike(draw: random.Random, text: str) -> str | None:
    places = [at for at, char in enumerate(text) if char in HOMOGLYPHS]
    at = draw.choice(places) if places else 0
    return _replace(text, at, HOMOGLYPHS[text[at]]) if places else None


def letter_lost(draw: random.Random, text: str) -> str | None:
    return _replace(text, draw.choice(_letters(text)), "")


def letters_swapped(draw: random.Random, text: str) -> str | None:
    pairs = [
        at
        for at in range(len(text) - 1)
        if text[at : at + 2].isalpha() and text[at].lower() != text[at + 1].lower()
    ]
    at = draw.choice(pairs) if pairs else 0
    return _replace(text, at, text[at + 1] + text[at], 2) if pairs else None


def part_doubled(draw: random.Random, text: str) -> str | None:
    parts = text.split("/")
    inner = [at for at in range(len(parts) - 1) if parts[at]]
    if not inner:
        return None
    at = draw.choice(inner)
    return "/".join([*parts[: at + 1], *parts[at:]])


MUTATORS: dict[str, tuple[Mutator, ...]] = {
    "case": (case_of_a_letter, case_of_a_part),
    "inserted_space": (space_at_a_mark, space_in_a_word, two_spaces),
    "lost_space": (space_lost,),
    "dropped_component": (part_dropped,),
    "doubled_separator": (slash_doubled, mark_doubled),
    "substituted_character": (letter_changed, mark_changed, look_alike),
    "other": (letter_lost, letters_swapped, part_doubled),
}


def true_files(corpus: str) -> list[str]:
    """Return the files that the conversation proves, as they are spelled there."""
    ledger = ledger_of(corpus)
    files = {p.text for p in ledger.paths(TRUSTED) if has_extension(p.parts[-1])}
    return sorted(text for text in files if "/" in text and not text.startswith("//"))


def mutated(corpus: str, tool: str, key: str, each: int = 1) -> Iterator[Case]:
    """Yield glitched spellings of each true file; what came out true again is none."""
    ledger = ledger_of(corpus)
    for text in true_files(corpus):
        for label, mutator, turn in product_of(each):
            draw = random.Random(f"{corpus} {text} {mutator.__name__} {turn}")  # noqa: S311
            glitched = mutator(draw, text)
            path = parse(glitched or "")
            if glitched is None or path is None or glitched == text:
                continue
            if "//" in glitched or (path.parts and not ledger.kinds(path)):
                yield Case(corpus, tool, key, glitched, label, text)


def product_of(each: int) -> Iterator[tuple[str, Mutator, int]]:
    for label, mutators in MUTATORS.items():
        for mutator in mutators:
            for turn in range(each):
                yield label, mutator, turn


def readers(corpus: str) -> tuple[str, str]:
    """Return a tool of a corpus that reads files, and its key."""
    names = [
        *("read", "read_file", "ReadFile", "view", "read_text_file", "Read", "view_file"),
        *("mcp__filesystem__read_text_file", "lire_fichier", "open_file"),
    ]
    tools = load(corpus)["tools"]
    name = next(name for name in names if name in tools)
    keys = tools[name]["properties"]
    return name, next(key for key in keys if key_kind(key) is KeyKind.PATH)
