"""The paths that a read may name, as a grammar that the engine decodes by. Pure.

A path is one that the conversation has shown, or one that leads away from all that was listed:
what was not listed must go through too. A folder is *closed* when a listing showed what is in
it: there a path goes on with a known name, or with a hidden one, which listings leave out. In a
folder that leads to a closed one it may go on with any name but one that begins as those that
lead there, in either case: such a name is mostly a glitch of them. Anywhere else it is free. A
top folder, as ``/srv``, is narrow while no root of the work was told: there only known names go.

All is decided at a name's first letter: a name begun wrongly cannot be saved.
"""

import json
import unicodedata
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from appliance.paths import PathName

MOST_PATHS = 1000
# Each is a place where nearly every token may stand: 40 ms of the engine's, of 200,000 tokens.
MOST_OPEN = 16

_ANCHORS = ("/", "~/")  # a drive or a share is spelled in more ways than one
_FREE = 'free ::= [^<\\n]*\nleaf ::= "" | "/" free\n'
_NO_START = "/<\n\r\t "  # what no name begins with


class TooMany(Exception):
    """More paths than a grammar is made of."""


class Unspelled(Exception):
    """Paths whose spelling is not settled: those of Windows."""


@dataclass(eq=False, slots=True)
class _Folder:
    """A name in the tree of known paths; one that is not followed by others may be a file."""

    anchor: str
    within: dict[str, "_Folder"] = field(default_factory=dict)
    is_closed: bool = False
    is_narrow: bool = False
    leads: bool = False  # to a closed one, or is one


def build(
    known: Iterable[PathName],
    closed: Iterable[PathName],
    roots: tuple[PathName, ...],
    *,
    files_only: bool = False,
) -> Generator[None, None, str]:
    """Return the grammar (EBNF, its start is ``root``), a step at a time; empty: nothing is closed.

    Where there is one root, a path below it may be spelled from it or in full. With
    ``files_only`` a path does not end in a folder that is closed, or leads to one. Raises TooMany,
    or Unspelled.
    """
    tree = {anchor: _Folder(anchor) for anchor in (*_ANCHORS, "")}
    folders = list(tree.values())  # each before those within it
    root = roots[0] if len(roots) == 1 else None
    for count, path in enumerate(known):
        if count >= MOST_PATHS:
            raise TooMany
        for one in spellings(path, root):
            _put(tree, one, folders)
        if count % 32 == 0:
            yield
    for path in closed:
        for one in spellings(path, root):
            _put(tree, one, folders).is_closed = True
    for folder in tree["/"].within.values():
        folder.is_narrow = not roots and not folder.is_closed
    for folder in reversed(folders):
        folder.leads = folder.is_closed or any(one.leads for one in folder.within.values())
    if sum(folder.leads and _is_open(folder) for folder in folders) > MOST_OPEN:
        raise TooMany
    if not any(folder.leads for folder in tree.values()):
        return ""
    rules: dict[str, str] = {}  # by what they say: folders that hold the same share one
    names: dict[_Folder, str] = {}
    for count, folder in enumerate(reversed(folders)):
        if folder.leads and folder not in tree.values():
            # behind a narrow one a slash is a name begun: nobody lists it by its slash
            ends = '""' if folder.is_narrow else '"" | "/"'
            within = f'"/" ({_choices(folder, names)})'
            says = within if files_only else f"{ends} | {within}"
            names[folder] = rules.setdefault(says, f"f{len(rules)}")
        if count % 32 == 0:
            yield
    lines = (f"{name} ::= {says}\n" for says, name in rules.items())
    return f"root ::= {_start(tree, names, files_only)}\n{_FREE}{''.join(lines)}"


def spellings(path: PathName, root: PathName | None) -> Iterator[PathName]:
    """Yield a path as it is, and as it is spelled from the root of the work, or in full."""
    yield path
    if root is None:
        return
    if not path.anchor:
        yield path.under(root)
    elif path == root:
        yield PathName("", ())
    elif (below := path.relative_to(root)) is not None:
        yield below


def _put(tree: Mapping[str, _Folder], path: PathName, folders: list[_Folder]) -> _Folder:
    if path.anchor not in tree:
        raise Unspelled
    here = tree[path.anchor]
    for part in path.parts:
        inner = here.within.get(part)
        if inner is None:
            inner = here.within[part] = _Folder(path.anchor)
            folders.append(inner)
        here = inner
    return here


def _start(tree: Mapping[str, _Folder], names: Mapping[_Folder, str], files_only: bool) -> str:
    says = ['""']
    for anchor in _ANCHORS:
        folder = tree[anchor]
        end = "" if files_only else "?"
        inner = f" ({_choices(folder, names)}){end}" if folder.leads else " free"
        says.append(literal(anchor) + inner)
    if not tree["~/"].leads:
        says[-1] = '"~" free'
    relative = tree[""]
    if relative.leads:
        says.append(_choices(relative, names))
    else:
        says.append(f"{_beginning('~')} free")
        if tree["~/"].leads:  # a name that begins with the sign, or is it, is not below the home
            says.append(f'"~" ({_beginning("")} free){"" if files_only else "?"}')
    return " | ".join(says)


def _choices(folder: _Folder, names: Mapping[_Folder, str]) -> str:
    """Return how a path may go on within a folder that is closed, or leads to one."""
    says = [
        f"{literal(spelled)} {names.get(inner, 'leaf')}"
        for name, inner in folder.within.items()
        for spelled in dict.fromkeys((name, *_forms(name)))
    ]
    if folder.is_narrow:
        return " | ".join(says)
    if folder.is_closed:
        return " | ".join([*says, '"." free'])
    starts = {
        letter
        for name, inner in folder.within.items()
        if inner.leads
        for form in (name, *_forms(name))
        for letter in form[0] + form[0].lower() + form[0].upper()
    }
    return " | ".join([*says, f"{_beginning(''.join(starts))} free"])


def _beginning(others: str) -> str:
    """Return what a free name begins with: not as ``others`` do, nor as no name does."""
    return f"[^{''.join(map(_in_class, sorted({*_NO_START, *others})))}]"


def _is_open(folder: _Folder) -> bool:
    return not (folder.is_closed or folder.is_narrow)


def _forms(name: str) -> tuple[str, str]:
    """Return a name in both of Unicode's forms: a model writes either, and they look the same."""
    return unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)


def literal(text: str) -> str:
    """Return a text as a literal of the grammar."""
    return '"' + "".join(_in_literal(letter) for letter in text) + '"'


def _in_literal(letter: str) -> str:
    if letter in '"\\':
        return "\\" + letter
    return letter if " " <= letter <= "~" else _escape(letter)


def _in_class(letter: str) -> str:
    if letter.isascii() and (letter.isalnum() or letter in " /<~"):
        return letter
    return _escape(letter)


def _escape(letter: str) -> str:
    code = ord(letter)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def structural_tag(tools: Mapping[str, Mapping[str, str]]) -> bytes:
    """Return a ``response_format`` by which keys of tools hold a path of their grammar.

    ``tools`` gives the grammar of each key, by the tool's name.

    All other text, other keys and other tools are free. A key is looked for within its tool's
    call alone: the same key of a tool that writes must be able to name what is new.
    """
    calls = [
        _tag("<invoke", name, _of_keys(keys), "</invoke>") for name, keys in sorted(tools.items())
    ]
    return json.dumps({"type": "structural_tag", "format": _triggered(calls)}).encode()


def _of_keys(keys: Mapping[str, str]) -> dict[str, Any]:
    tags = []
    for key, grammar in sorted(keys.items()):
        content = {"type": "grammar", "grammar": grammar}
        tags.append(_tag("<parameter", key, content, "</parameter>"))
    return _triggered(tags)


def _tag(begin: str, name: str, content: Mapping[str, Any], end: str) -> dict[str, Any]:
    return {"type": "tag", "begin": f'{begin} name="{name}">', "content": content, "end": end}


def _triggered(tags: list[dict[str, Any]]) -> dict[str, Any]:
    triggers = [tag["begin"] for tag in tags]
    return {"type": "triggered_tags", "triggers": triggers, "tags": tags}
