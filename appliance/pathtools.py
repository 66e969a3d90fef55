"""Tools by what they do with paths, told from their names and schemas. Pure.

A name or a schema is a stranger's word: where it does not say clearly what a tool does, the tool
is unclear, and nothing of it is ever changed.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Deed(StrEnum):
    """What a tool does with the paths that it is given."""

    READ = "read"
    LIST = "list"
    EDIT = "edit"
    CREATE = "create"
    DANGER = "danger"  # delete, move, execute, or send away
    UNCLEAR = "unclear"


class KeyKind(StrEnum):
    """What the value of an argument is, as far as its key tells."""

    PATH = "path"
    COMMAND = "command"
    PATCH = "patch"
    TEXT = "text"  # never a path, whatever it looks like
    OTHER = "other"


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_DANGER = _set(
    "delete remove rm rmdir del unlink erase wipe purge trash destroy drop clean cleanup truncate "
    "discard shred move mv rename relocate migrate exec execute executor run runner shell bash zsh "
    "sh terminal command cmd powershell pwsh console spawn launch start stop kill deploy publish "
    "upload send share commit push merge reset revert restore checkout rollback chmod chown "
    "install uninstall eval script process transfer copy cp sync archive extract unzip mount "
    "overwrite prune evict clear empty flush stage release sudo"
)
_CREATE = _set("write create save new make touch mkdir add put append generate")
_EDIT = _set("edit replace insert update patch modify apply diff multiedit rewrite substitute str")
_LIST = _set("list ls glob tree find dir readdir")
_READ = _set(
    "read view cat get show load stat exists inspect head tail grep search outline symbols "
    "diagnostics hover definition references lint check blame info open explain"
)
_ABOUT_FILES = _set(
    "file files dir dirs directory directories folder folders path paths tree workspace"
)
_WEB = _set("web fetch http https url browse browser curl wget internet crawl scrape")

# The verbs of a description, in the forms in which tools describe themselves.
_SAYS_DANGER = re.compile(
    r"\b(?:deletes?|deleting|removes?|removing|unlinks?|erases?|erasing|wipes?|wiping|moves?|moving|"
    r"renames?|renaming|executes?|executing|runs?|running|purges?|destroys?|uploads?|uploading|"
    r"discards?|trash(?:es)?|shell|terminal)\b",
    re.IGNORECASE,
)
_DESCRIBED = 300  # characters of a description that tell what a tool does; the rest is advice
_TWO_PLACES = (
    {"source", "destination"}, {"oldpath", "newpath"}, {"from", "to"}, {"src", "dest"},
    {"src", "dst"}, {"sourcepath", "destinationpath"}, {"source", "target"},
)  # fmt: skip
_VERB_KEYS = _set("action operation op verb method subcommand mode")

_PATH_ENDS = ("path", "paths", "file", "files", "filename", "filenames", "dir", "directory",
              "directories", "folder", "folders", "cwd", "workdir")  # fmt: skip
_PATH_KEYS = _set(
    "dirs root roots src dst dest destination source target uri location workspace to from"
)
_COMMAND_KEYS = _set("command cmd script commands commandline shellcommand code")
_PATCH_KEYS = _set("patch patchtext diff input patches")
_TEXT_KEYS = _set(
    "content contents text newstring oldstring newstr oldstr newtext oldtext filetext filecontent "
    "pattern regex query description prompt message title thought url search replace glob include "
    "exclude body instructions question result reason explanation todo todos"
)
_PLAIN_NAME = re.compile(r"[\w.-]+")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_JOIN = re.compile(r"[^a-z0-9]")


def words_of(name: str) -> list[str]:
    """Return the words in a name, whatever its style: camelCase, snake_case, mcp__server__tool."""
    return [word.lower() for word in _WORD.findall(name)]


def key_kind(key: str) -> KeyKind:
    """Tell what the values of an argument are."""
    plain = _JOIN.sub("", key.lower())
    if plain in _COMMAND_KEYS:
        return KeyKind.COMMAND
    if plain in _PATCH_KEYS:
        return KeyKind.PATCH
    if plain in _TEXT_KEYS:
        return KeyKind.TEXT
    if plain in _PATH_KEYS or plain.endswith(_PATH_ENDS):
        return KeyKind.PATH
    return KeyKind.OTHER


def creates(key: str) -> bool:
    """Tell whether what an argument names need not be there yet, whatever the tool."""
    plain = _JOIN.sub("", key.lower())
    return plain.startswith(("new", "dest", "dst", "output")) or plain in ("to", "target")


@dataclass(frozen=True)
class Tools:
    """The tools that a request offers, and what each does with paths."""

    deeds: Mapping[str, Deed] = field(default_factory=dict)

    def deed(self, name: str) -> Deed:
        """Return what a tool does; of one that the request does not offer, its name must tell."""
        found = self.deeds.get(name)
        return deed_of_name(name) if found is None else found


def read_tools(tools: Any) -> Tools:
    """Return the tools of a request's ``tools``, in the shape of any of the three APIs."""
    return Tools(dict(_read_tools(tools if isinstance(tools, list) else [])))


def constrainable(tools: Any) -> dict[str, dict[str, bool]]:
    """Return the keys of tools that name, in a text, what is there to be read or listed.

    With each, whether it can only be a file: the tool reads, and it or the key says so.
    """
    deeds = read_tools(tools).deeds
    found = {}
    for name, schema in _schemas(tools if isinstance(tools, list) else []):
        properties = schema.get("properties") if isinstance(schema, dict) else None
        if deeds[name] not in (Deed.READ, Deed.LIST) or not _PLAIN_NAME.fullmatch(name):
            continue
        reads_file = deeds[name] is Deed.READ and not {"file", "files"}.isdisjoint(words_of(name))
        keys = {
            key: reads_file or (deeds[name] is Deed.READ and "file" in words_of(key))
            for key, value in (properties.items() if isinstance(properties, dict) else ())
            if key_kind(key) is KeyKind.PATH and not creates(key) and _PLAIN_NAME.fullmatch(key)
            and isinstance(value, dict) and value.get("type") == "string"
        }  # fmt: skip
        if keys:
            found[name] = keys
    return found


def _schemas(tools: list[Any]) -> Iterator[tuple[str, Any]]:
    for tool in tools:
        told = tool.get("function", tool) if isinstance(tool, dict) else None
        if isinstance(told, dict) and isinstance(name := told.get("name"), str):
            yield name, told.get("parameters")


def _read_tools(tools: list[Any]) -> Iterator[tuple[str, Deed]]:
    for tool in tools:
        told = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(told, dict) or not isinstance(name := told.get("name"), str):
            continue
        schema = told.get("parameters") or told.get("input_schema") or {}
        description = told.get("description")
        yield name, deed_of(name, description if isinstance(description, str) else "", schema)


def deed_of_name(name: str) -> Deed:
    """Return what a tool does, by its name alone."""
    words = words_of(name)
    for deed, said in (
        (Deed.DANGER, _DANGER), (Deed.CREATE, _CREATE), (Deed.EDIT, _EDIT),
        (Deed.LIST, _LIST), (Deed.READ, _READ),
    ):  # fmt: skip
        if not said.isdisjoint(words):
            return deed
    return Deed.UNCLEAR


def deed_of(name: str, description: str, schema: Any) -> Deed:
    """Return what a tool does, by its name, and by what its schema says against it."""
    deed = deed_of_name(name)
    if deed in (Deed.DANGER, Deed.UNCLEAR):
        return deed
    return Deed.DANGER if _is_dangerous(description, schema) else deed


def _is_dangerous(description: str, schema: Any) -> bool:
    if _SAYS_DANGER.search(description[:_DESCRIBED]):
        return True
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return False
    plain = {_JOIN.sub("", key.lower()): value for key, value in properties.items()}
    if any(pair <= plain.keys() for pair in _TWO_PLACES):
        return True
    for key, value in plain.items():
        chosen = value.get("enum") if isinstance(value, dict) else None
        if isinstance(chosen, list):
            if any(not _DANGER.isdisjoint(words_of(str(one))) for one in chosen):
                return True
        elif key in _COMMAND_KEYS - {"code"} or key in _VERB_KEYS - {"mode"}:
            return True
        is_switch = isinstance(value, dict) and value.get("type") == "boolean"
        if is_switch and not _DANGER.isdisjoint(words_of(key)):
            return True
    return False


def is_listing(name: str) -> bool:
    """Tell whether a tool prints the names of files, and nothing that stands in them."""
    words = words_of(name)
    if not _WEB.isdisjoint(words) or "content" in words or "contents" in words:
        return False
    if (words and words[-1] in ("ls", "glob", "readdir", "tree")) or words in (["list"], ["find"]):
        return True
    verbs = {"list", "ls", "find", "glob", "tree"}
    is_by_name = not verbs.isdisjoint(words) or words[-2:] == ["file", "search"]
    return is_by_name and not _ABOUT_FILES.isdisjoint(words) and "code" not in words


def is_web(name: str) -> bool:
    """Tell whether a tool brings what strangers wrote elsewhere."""
    return not _WEB.isdisjoint(words_of(name))


# Commands that print names of files alone; and what may stand behind them in a pipe.
_LISTERS = _set("ls find fd fdfind tree dir pwd gci Get-ChildItem")
_PASSERS = _set("sort uniq head tail wc grep cd pushd")
_PRINTS_MORE = _set(
    "-exec -execdir -printf -fprintf -fprint -fls -ok -okdir -x --exec -X --exec-batch"
)


def listed_folder(commands: list[list[str]]) -> str | None:
    """Return the folder whose files a command line prints, and nothing else; empty for the own.

    ``commands`` are its words. None: it prints something else too.
    """
    where = ""
    has_listed = False
    for words in commands:
        if any("$(" in word or "`" in word for word in words):
            return None
        if _is_lister(words):
            has_listed = True
            named = [word for word in words[1:] if not (word.startswith("-") or word.isdigit())]
            if words[0] in ("ls", "tree", "dir") and len(named) == 1 and "*" not in named[0]:
                where = f"{where}/{named[0]}" if where and named[0][:1] not in "/~" else named[0]
        elif words[0] in ("cd", "pushd") and len(words) == 2 and not has_listed:
            where = words[1]
        elif words[0] not in _PASSERS or not has_listed or _reads_a_file(words):
            return None
    return where if has_listed else None


def _is_lister(words: list[str]) -> bool:
    if words[0] in _LISTERS:
        return _PRINTS_MORE.isdisjoint(words)
    if words[0] == "git":
        return words[1:2] in (["ls-files"], ["status"])
    return words[0] == "rg" and "--files" in words


def _reads_a_file(words: list[str]) -> bool:
    """Tell whether a command in a pipe may read anything but the pipe."""
    named = [word for word in words[1:] if not word.startswith("-") and not word.isdigit()]
    if words[0] == "grep":
        flags = "".join(word for word in words[1:] if word.startswith("-"))
        return len(named) > 1 or not {"r", "R", "f"}.isdisjoint(flags)
    return bool(named)
