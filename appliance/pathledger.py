"""The ledger: the paths that a conversation has shown, each with its kinds of evidence. Pure.

A ledger is a row of pages, each for a message or for several in a row. Pages do not change, so
that a conversation which goes on shares those of its beginning; a question is put to each page.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from appliance.partdiff import is_near
from appliance.paths import PathName, composed, parse, skeleton

# The kinds of evidence; a path may have several.
USER, ENVIRONMENT, LISTING, CONTENT, CALL, WEB = (1 << n for n in range(6))
TRUSTED = USER | ENVIRONMENT | LISTING  # a path that one of these showed is one; others may lie

_DEEPEST = 64  # parts of a path that is kept
# The first letters stand in front: a search skips all else, which is seven times as fast.
_ROOT = re.compile(
    r"[wcprWCPR](?i:(?<=w)ork(?:ing\s*dir(?:ectory)?"
    r"|space(?:[ _-](?:root|directory|folders?|dirs?|paths?))*)|(?<=c)wd"
    r"|(?<=p)roject[ _-](?:root|directory|folder|path)|(?<=r)oot[ _-](?:directory|folder|path))"
    r"[^:=(>\n]{0,24}[:=(>]\s*((?:\n?\s*[-*]?\s*[\"'`]?(?:/|~/|[A-Za-z]:[\\/]|\\\\)[^\n\"'`)<>]+)+)"
)
_ROOT_LINE = re.compile(r"(?:/|~/|[A-Za-z]:[\\/]|\\\\)[^\n\"'`)<>]+")


@dataclass(frozen=True)
class Call:
    """A tool call that was made: the tool's name, and its arguments by key."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(slots=True)
class Page:
    """What one message shows: each path's kinds of evidence, and the ways to find those alike.

    ``bones`` is the skeleton of each; ``whole`` and ``tails`` find paths by that, and by the
    skeleton of the last part; ``children`` those in a folder. ``twofold`` came in two forms of
    Unicode. ``said`` is what a user wrote; ``calls`` what a later message must know of the tool
    calls in this one, by id. It is written once, by what reads the message.
    """

    known: dict[str, int] = field(default_factory=dict)
    names: dict[str, PathName] = field(default_factory=dict)
    bones: dict[str, str] = field(default_factory=dict)
    whole: dict[str, list[str]] = field(default_factory=dict)
    tails: dict[str, list[str]] = field(default_factory=dict)
    children: dict[str, list[str]] = field(default_factory=dict)
    twofold: set[str] = field(default_factory=set)
    roots: tuple[PathName, ...] = ()
    said: str = ""
    calls: dict[str, "Call"] = field(default_factory=dict)

    def add(self, text: str, kind: int) -> None:
        """Note a path as it was spelled; folders above it are known by it."""
        path = parse(text)
        if path is not None and 0 < len(path.parts) <= _DEEPEST:
            self._note(path, path.key, kind)

    def _note(self, path: PathName, key: str, kind: int) -> None:
        kinds = self.known.get(key)
        if kinds is not None and not key.isascii() and self.names[key].parts != path.parts:
            self.twofold.add(key)
        if kinds is not None and kinds & kind:
            return  # and so are the folders above it
        self.known[key] = kind | (kinds or 0)
        parent = path.parent
        above = parent.key
        if parent.parts:
            self._note(parent, above, kind)
        if kinds is None:
            bone = skeleton(composed(path.parts[-1]))
            bones = self.bones.get(above, path.anchor) + bone
            self.bones[key], self.names[key] = bones, path
            self.whole.setdefault(bones, []).append(key)
            self.tails.setdefault(bone, []).append(key)
            self.children.setdefault(above, []).append(key)

    def take(self, other: "Page") -> None:
        """Note all that another page shows, but for its calls."""
        for key, kinds in other.known.items():
            self.known[key] = self.known.get(key, 0) | kinds
        for mine, theirs in (
            (self.whole, other.whole),
            (self.tails, other.tails),
            (self.children, other.children),
        ):
            for name, keys in theirs.items():
                held = mine.setdefault(name, [])
                held += keys if not held else [key for key in keys if key not in self.names]
        self.twofold |= other.twofold
        for key in other.names.keys() & self.names.keys():
            if not key.isascii() and other.names[key].parts != self.names[key].parts:
                self.twofold.add(key)
        self.names = {**other.names, **self.names}
        self.roots = tuple(dict.fromkeys(self.roots + other.roots))
        self.said += other.said


def find_roots(text: str) -> tuple[PathName, ...]:
    """Return the folders that a text names as those of the work."""
    found = (
        parse(line.strip())
        for match in _ROOT.finditer(text)
        for line in _ROOT_LINE.findall(match[1])
    )
    return tuple(dict.fromkeys(path for path in found if path is not None and path.parts))


class Ledger:
    """What a conversation has shown, up to now."""

    def __init__(self, pages: Iterable[Page]) -> None:
        self._pages = [page for page in pages if page.known or page.said or page.roots]
        self.roots = tuple(dict.fromkeys(root for page in self._pages for root in page.roots))

    def paths(self, kinds: int) -> Iterator[PathName]:
        """Yield the paths for which there is evidence of one of these kinds, files and folders."""
        seen: set[str] = set()
        for page in self._pages:
            for key, path in page.names.items():
                if page.known[key] & kinds and key not in seen:
                    seen.add(key)
                    yield path

    def __len__(self) -> int:
        return len({key for page in self._pages for key in page.known})

    def kinds(self, path: PathName) -> int:
        """Return the kinds of evidence for a path, spelled so; 0 if it was never shown."""
        key = path.key
        kinds = 0
        for page in self._pages:
            kinds |= page.known.get(key, 0)
        return kinds

    def is_twofold(self, path: PathName) -> bool:
        """Tell whether a path was shown in two forms of Unicode: there may be two files."""
        key = path.key
        shown = [page.names[key].parts for page in self._pages if key in page.names]
        return len(set(shown)) > 1 or any(key in page.twofold for page in self._pages)

    def alike(self, path: PathName, most: int = 256) -> list[PathName]:
        """Return paths that may be meant by ``path``, at most so many; more than that are none.

        They have the same skeleton, or a last part of the same, or stand in the same folder under
        a name that is near.
        """
        bones = [skeleton(composed(part)) for part in path.parts]
        whole, tail, name = path.anchor + "".join(bones), bones[-1], composed(path.parts[-1])
        above = path.parent
        folder, start = above.key, len(above.key) + bool(above.parts)
        found: dict[str, PathName] = {}
        crowd: dict[str, PathName] = {}
        for page in self._pages:
            names = page.names
            for key in page.whole.get(whole, ()):
                found[key] = names[key]
            for key in page.tails.get(tail, ()):
                crowd[key] = names[key]
            for key in page.children.get(folder, ()):
                if is_near(name, key[start:]):
                    crowd[key] = names[key]
        return list((found if len(crowd) > most else {**crowd, **found}).values())

    def tails(self, path: PathName) -> Iterator[PathName]:
        """Yield the known paths that end in the last part of ``path``, spelled alike or so."""
        tail = skeleton(composed(path.parts[-1]))
        for page in self._pages:
            for key in page.tails.get(tail, ()):
                yield page.names[key]

    def has_listed(self, folder: PathName) -> bool:
        """Tell whether a listing, or the environment, showed what stands in a folder."""
        key = folder.key
        return any(
            page.known[child] & (LISTING | ENVIRONMENT)
            for page in self._pages
            for child in page.children.get(key, ())
        )

    def user_said(self, text: str) -> bool:
        """Tell whether a user's own words hold a name or a path in this spelling, all of it."""
        said = [page.said for page in self._pages if text in page.said]
        before = r"(?<![\w./\\~-])" if "/" in text or "\\" in text else r"(?<!\w)"
        return any(re.search(rf"{before}{re.escape(text)}(?!\w)", one) for one in said)
