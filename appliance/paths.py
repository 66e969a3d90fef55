"""Path names as text: their parts, and the forms in which two of them are compared. Pure.

No file is touched: what is here knows how paths are spelled, not which of them exist.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

LONGEST = 4096  # characters of a path; what is longer is none

# Left alone: URLs of any scheme, scp-like remotes, and what the shell or a pattern would expand.
_URL = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]+://|(?:mailto|data|node|npm|git|github):|[\w.-]+@[\w.-]+:"
)
_PATTERN = re.compile(r"[*?|<>^]|\$[\w({]|\{[^{}/]*[,}]|\\[wdsbWDSB.+()\[\]]")
_NO_WINDOWS_NAME = re.compile(r'[*?"<>|]|\\[wdsbWDSB][+{]')
_SIMPLE = re.compile(r"/?(?:(?!\.\.?(?:/|$))[\w.@+ -]+/)*(?!\.\.?/?$)[\w.@+ -]+/?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"([A-Za-z]):(?=[\\/]|$)")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\[^\\/]|~\\")
_LINE_SUFFIX = re.compile(r"(?::\d+){1,2}$|#L\d+(?:-L?\d+)?$")
_EXTENSION = re.compile(r".\.[A-Za-z][A-Za-z0-9_]{0,9}$")

# Invisible, or wider than they look: no space that was meant is one of these.
_SPACES = re.compile(r"[\s\u200b\u200c\u200d\u2060\ufeff]+")
_SEPARATORS = str.maketrans("", "", " \t-_.")
_LOOK_ALIKE = str.maketrans(
    "асеіјорхуѕһԁԛԝαβεικνορτυχ"
    "\u2010\u2011\u2012\u2013\u2014\u2212\u2018\u2019\u02bc\u2024\u00b7\u2044\u2215\uff3f",
    "aceijopxyshdqwabeiknoptux------'''..//_",
)
_DIGIT_ALIKE = str.maketrans("1l|0", "iiio")


@dataclass(frozen=True, slots=True)
class PathName:
    """A path in parts, as they were spelled; ``anchor`` is what makes it absolute, or empty.

    An anchor is ``/``, ``~/``, a drive as ``c:/``, or ``//host/`` of a Windows share.
    """

    anchor: str
    parts: tuple[str, ...]

    @property
    def key(self) -> str:
        """One spelling for all that name the same: Unicode composed, separators as slashes."""
        return composed(self.text)

    @property
    def text(self) -> str:
        """The path as it was spelled, its separators as slashes."""
        return self.anchor + "/".join(self.parts)

    @property
    def parent(self) -> "PathName":
        """The folder that it stands in."""
        return PathName(self.anchor, self.parts[:-1])

    def under(self, root: "PathName") -> "PathName":
        """Return this relative path as it is from ``root``."""
        return PathName(root.anchor, root.parts + self.parts)

    def relative_to(self, root: "PathName") -> "PathName | None":
        """Return the rest of this path below ``root``, None if it is not below it."""
        size = len(root.parts)
        is_below = self.anchor == root.anchor and self.parts[:size] == root.parts
        return PathName("", self.parts[size:]) if is_below and len(self.parts) > size else None


def composed(text: str) -> str:
    """Return a text in Unicode's composed form: what NFC and NFD spell apart is one."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def is_url(text: str) -> bool:
    """Tell whether a text begins as a URL or a remote does."""
    return _URL.match(text) is not None


def parse(text: str) -> PathName | None:
    """Return the path that a text spells, None where it spells none that could be compared."""
    if not text or len(text) > LONGEST or _URL.match(text) or _CONTROL.search(text):
        return None
    if _SIMPLE.fullmatch(text):
        return PathName("/" if text[0] == "/" else "", tuple(text.strip("/").split("/")))
    is_windows = "\\" in text and (_WINDOWS.match(text) is not None or "/" not in text)
    if (_NO_WINDOWS_NAME if is_windows else _PATTERN).search(text):
        return None
    if is_windows:
        text = text.replace("\\", "/")
    elif "\\" in text:
        return None  # an escape, or a pattern
    anchor, rest = _anchor(text, is_windows=is_windows)
    parts: list[str] = []
    for part in rest.split("/"):
        if part in ("", "."):
            continue
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)
    return PathName(anchor, tuple(parts)) if parts or anchor else None


def _anchor(text: str, *, is_windows: bool) -> tuple[str, str]:
    if (drive := _DRIVE.match(text)) is not None:
        return f"{drive[1].lower()}:/", text[2:]
    if text.startswith("~/") or text == "~":
        return "~/", text[2:]
    if is_windows and text.startswith("//"):
        host, _, rest = text[2:].partition("/")
        return f"//{host.lower()}/", rest
    return ("/", text) if text.startswith("/") else ("", text)


def spell(path: PathName, like: str) -> str:
    """Return ``path`` spelled as ``like`` is: its drive letter, separators, dot and last slash."""
    text = path.text
    if like.startswith("./") and not path.anchor:
        text = "./" + text
    if like[1:2] == ":" and path.anchor[1:2] == ":":
        text = like[0] + text[1:]
    if like.endswith(("/", "\\")) and path.parts:
        text += "/"
    return text.replace("/", "\\") if "\\" in like else text


def without_line(text: str) -> str:
    """Return a path without the line number that was written behind it."""
    return _LINE_SUFFIX.sub("", text)


def without_spaces(text: str) -> str:
    """Return a text without its spaces, those that nobody sees included."""
    return _SPACES.sub("", text)


def looked_alike(text: str) -> str:
    """Return a text with each letter as the plain one that it looks like."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", text).translate(_LOOK_ALIKE)


def read_alike(text: str) -> str:
    """Return a text in which digits and the letters that look like them are one."""
    return looked_alike(text).lower().translate(_DIGIT_ALIKE)


def without_accents(text: str) -> str:
    """Return a text with each letter as it is without its accent."""
    if text.isascii():
        return text
    apart = unicodedata.normalize("NFD", text)
    plain = "".join(char for char in apart if not unicodedata.combining(char))
    return unicodedata.normalize("NFC", plain)


@lru_cache(maxsize=2**16)
def skeleton(part: str) -> str:
    """Return what is left of a part without case, spaces, separators, accents and look-alikes."""
    if part.isascii():
        return part.lower().translate(_SEPARATORS) or part
    plain = looked_alike(without_spaces(part)).casefold().translate(_SEPARATORS)
    return without_accents(plain) or part


def has_extension(part: str) -> bool:
    """Tell whether a part ends as file names do."""
    return _EXTENSION.search(part[-12:]) is not None


def is_shaped(text: str) -> bool:
    """Tell whether a whole text can only be a path: for values whose key does not say so."""
    path = parse(text)
    if path is None or len(text) > 1024 or len(text.split()) > 4:
        return False
    if path.anchor:
        return bool(path.parts) and not (text.startswith("/") and len(path.parts) < 2)
    return len(path.parts) > 1 and has_extension(path.parts[-1])
