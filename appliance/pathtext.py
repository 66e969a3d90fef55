"""Paths found in text: in prose and code, and in the words of a shell command. Pure."""

import re
from collections.abc import Iterator

from appliance.paths import has_extension, is_url, without_line

_TOKEN = re.compile(r"(?:[^\s\"'`<>|,;\\]|\\[^\s\"'`<>|,;]|\\ (?=\S))+")
_QUOTED = re.compile(r"\"([^\"\n]{3,400})\"|`([^`\n]{3,400})`|(?<![\w'])'([^'\n]{3,400})'(?!\w)")
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_FOUND_LINE = re.compile(r"(?<=[^:]):\d+[:-].*$")  # as grep shows it: path:line:text
# Not quoted, and with spaces: a path that has no ending yet, and few words to the one that has.
_WITH_SPACES = re.compile(
    r"(?<![\w./\\~-])[\w.~:-]*[/\\][\w/\\.&+-]*[\w&+-](?<!\.\w)(?<!\.\w\w)(?<!\.\w\w\w)"
    r"(?: [\w&+()-]+){0,2} [\w()&+-]+(?:[/\\][\w()&+.-]+)*\.[A-Za-z]\w{0,5}\b"
)
_PART = re.compile(r"[^\s/\\]+(?: [^\s/\\]+){0,6}")
_WORDS = re.compile(
    r"""(?P<end>&&|\|\||[;|&\n])|(?P<into>\d?>>?|<)|(?P<word>(?:[^\s"'\\;|&<>]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+)""",
    re.DOTALL,
)
_QUOTES_AND_ESCAPES = re.compile(r"\\(.)|\"((?:[^\"\\]|\\.)*)\"|'([^']*)'", re.DOTALL)
_ESCAPED_IN_DOUBLE = re.compile(r"\\([\"\\$`])")
_DIFF_HEAD = re.compile(
    r"^(?:\*\*\* (?:(?:Add|Update|Delete) File|Move to): |--- (?:a/)?|\+\+\+ (?:b/)?)(.+?)[ \t]*$",
    re.MULTILINE,
)
_FAMILIAR = frozenset(
    ("makefile", "dockerfile", "license", "readme", "gemfile", "rakefile", "jenkinsfile")
)


def mentions(text: str, *, is_prose: bool) -> Iterator[str]:
    """Yield what may be paths in a text, as they are spelled there.

    Of prose, bare file names count too, and quoted texts with spaces; of anything else only what
    has a separator: code is full of words with a dot.
    """
    if is_prose:
        quoted = list(_quoted(text))
        yield from quoted
        for one in quoted:  # its words are no paths of their own
            text = text.replace(one, " ")
        yield from (found[0] for found in _WITH_SPACES.finditer(text))
        for token in _TOKEN.findall(text):
            if "/" in token or "\\" in token:
                yield from _of_token(token)
            elif "." in token or token.lower() in _FAMILIAR:
                yield from _bare_name(token)
        return
    for word in text.split():
        if "/" in word or "\\" in word:
            for token in _TOKEN.findall(word):
                yield from _of_token(token)


def _bare_name(token: str) -> Iterator[str]:
    name = _trimmed(token)
    is_dotted = name[:1] == "." and name[1:2].isalpha()
    if has_extension(name) or name.lower() in _FAMILIAR or is_dotted:
        yield name


def _of_token(token: str) -> Iterator[str]:
    if "/" not in token and "\\" not in token:
        return
    if "](" in token and (link := _LINK.search(token)) is not None:
        token = link[1]
    token = _FOUND_LINE.sub("", without_line(_trimmed(token)))
    if is_url(token) or token.startswith(("//", "/*")) or "://" in token:
        return
    if "\\ " in token:
        token = token.replace("\\ ", " ")
    if "=" in token and (value := token.partition("=")[2]) and "/" in value:
        yield value
    if token.strip("/\\.~"):
        yield token


def _trimmed(token: str) -> str:
    """Return a word without what stands around it in a sentence."""
    token = token.lstrip("([{*").rstrip(".,;:!?*")
    while token and token[-1] in ")]}" and token.count(_OPENS[token[-1]]) < token.count(token[-1]):
        token = token[:-1].rstrip(".,;:!?*")
    return token


_OPENS = {")": "(", "]": "[", "}": "{"}


def _quoted(text: str) -> Iterator[str]:
    """Yield the quoted texts that hold a space, and are a path nevertheless."""
    for found in _QUOTED.findall(text):
        inner = next(filter(None, found), "")
        if " " not in inner or is_url(inner):
            continue
        if has_extension(inner) or (("/" in inner or "\\" in inner) and _are_names(inner)):
            yield inner


def _are_names(text: str) -> bool:
    parts = [part for part in re.split(r"[/\\]", text) if part]
    return all(_PART.fullmatch(part) for part in parts)


def shell_words(command: str) -> list[list[str]]:
    """Return the words of each simple command in a shell command line, unquoted.

    What a redirection names is a word too; operators are none. Never raises: what is not closed
    is cut where it ends.
    """
    commands: list[list[str]] = [[]]
    for found in _WORDS.finditer(command):
        if found["end"]:
            commands.append([])
        elif found["word"]:
            commands[-1].append(_unquoted(found["word"]))
    return [words for words in commands if words]


def _unquoted(word: str) -> str:
    if '"' not in word and "'" not in word and "\\" not in word:
        return word
    if re.match(r"[A-Za-z]:\\", word):
        return word  # a drive: its backslashes are separators
    return _QUOTES_AND_ESCAPES.sub(_inner, word)


def _inner(found: re.Match[str]) -> str:
    escaped, double, single = found.groups()
    if double is not None:
        return _ESCAPED_IN_DOUBLE.sub(r"\1", double)
    return escaped if escaped is not None else single


def words_with_paths(command: str) -> Iterator[str]:
    """Yield the words of a command that may be paths; of ``--name=value`` the value."""
    for words in shell_words(command):
        for word in words:
            value = word.partition("=")[2] if "=" in word.partition("/")[0] else word
            if value.startswith("-") or is_url(value) or "://" in value:
                continue
            if "/" in value or "\\" in value or has_extension(value):
                yield value


def patched(text: str) -> Iterator[str]:
    """Yield the files that the heads of a patch name."""
    for found in _DIFF_HEAD.findall(text):
        if found != "/dev/null":
            yield found
