"""What tells whose machine a report is from, hidden: keys, names, addresses, serials. Pure.

A report is made of one tree of values. The whole tree passes here, and the page is made of what
comes out: nothing reaches the page by another way.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from appliance.redaction import redact

HOST, ADDRESS, USER, ID = "(host)", "(address)", "(user)", "(id)"
# Names that tell nobody anything, and that are words of a report besides.
_ANYBODYS = frozenset(
    (*("root", "nobody", "user", "users", "admin", "ubuntu", "nvidia", "appliance", "demo"),
     *("localhost", "spark", "thor", "docker", "vllm", "home", "host", "server", "engine"))
)  # fmt: skip

_URL = re.compile(
    r"(?i)\b([a-z][a-z0-9+.-]*://(?:\(hidden\)@)?)(\[[0-9a-f:.%]+\]|[^\s/:?#'\"<>()]+)"
)
_OWN = re.compile(r"(?i)localhost|127(?:\.\d+){3}|0\.0\.0\.0|\[::1?\]|appliance")
_HOME = re.compile(r"(/home/|/Users/|[A-Za-z]:\\Users\\|~)(?!\(user\))([\w.+-]+)")
_NAMED = re.compile(
    r"(?i)\b(?:[\w-]+\.)+(?:local|lan|localdomain|internal|intranet|corp|home\.arpa|ts\.net)\b"
)
_MAIL = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")
_MAC = re.compile(r"(?i)\b[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}\b")
_UUID = re.compile(r"(?i)\b(?:GPU-|MIG-)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_MACHINE_ID = re.compile(r"\b[0-9a-f]{32}\b")
_SERIAL = re.compile(
    r"(?i)\b(serial(?:[ _-]?(?:number|no))?\b['\"]?\s*[:=#]?\s*['\"]?)([\w-]*\d[\w-]*)"
)
_V4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)")
# A folder's name may be a customer's. Shown is a file's own name, and where it lies in a package.
_PATH = re.compile(r"(?<![\w/.~)>@…-])(?<!file:)(?!(?<=:)//)//?(?:[\w.+@%~()=-]+/)+[\w.+@%()=-]*")
_FILE_URL = re.compile(r"(?i)\bfile://[^\s'\"<>()]*")
_KNOWN_ROOTS = frozenset(
    (*("usr", "lib", "lib64", "bin", "sbin", "proc", "sys", "dev", "etc", "run", "opt", "models"),
     *("v1", "health", "appliance", "state"))
)  # fmt: skip
_PACKAGE = re.compile(r"/(?:site|dist)-packages/.*")
_V6 = re.compile(r"(?i)(?<![\w:.])[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?:%\w+)?(?![\w:])")


@dataclass(frozen=True)
class Who:
    """Whose machine it is: keys, host names, user names and home folders, as they are known."""

    secrets: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()


def hide(text: str, who: Who) -> str:
    """Return ``text`` without keys, names, addresses, serials; its lines stay lines."""
    return "\n".join(_hide_line(line, who) for line in text.split("\n"))


def hide_all(value: Any, who: Who) -> Any:
    """Return a tree of values with each text in it hidden, keys of mappings too."""
    if isinstance(value, str):
        return hide(value, who)
    if isinstance(value, Mapping):
        return {hide(str(key), who): hide_all(each, who) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [hide_all(each, who) for each in value]
    return value


def _hide_line(line: str, who: Who) -> str:
    line = redact(line, who.secrets)
    line = _SERIAL.sub(rf"\1{ID}", line)
    line = _MAIL.sub(ADDRESS, line)
    line = _FILE_URL.sub(lambda match: f"file:…/{match[0].rpartition('/')[2]}", line)
    line = _URL.sub(_url, line)
    line = _UUID.sub(ID, line)
    line = _MACHINE_ID.sub(ID, line)
    line = _MAC.sub(ADDRESS, line)
    line = _V4.sub(_address, line)  # first: it may end one of the others
    line = _V6.sub(_address, line)
    for home in _longest_first(who.homes):
        if len(home) > 1 and home.rpartition("/")[2] not in _ANYBODYS:
            line = line.replace(home, "~")
    line = _HOME.sub(lambda match: match[1] + USER, line)
    line = _PATH.sub(_path, line)
    line = _NAMED.sub(HOST, line)
    line = _words(line, who.hosts, HOST)
    return _words(line, who.users, USER)


def _url(match: re.Match[str]) -> str:
    return match[0] if _OWN.fullmatch(match[2]) else match[1] + HOST


def _path(match: re.Match[str]) -> str:
    path = match[0]
    if path.split("/")[1] in _KNOWN_ROOTS:
        return path
    if package := _PACKAGE.search(path):
        return f"…{package[0]}"
    return f"…/{path.rstrip('/').rpartition('/')[2]}"


def _address(match: re.Match[str]) -> str:
    try:
        address = ip_address(match[0].partition("%")[0])
    except ValueError:
        return match[0]  # a version, or a time of day
    return match[0] if address.is_loopback or address.is_unspecified else ADDRESS


def _words(line: str, names: Iterable[str], shown: str) -> str:
    for name in _longest_first(names):
        if len(name) > 1 and name.lower() not in _ANYBODYS:
            line = re.sub(rf"(?i)(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", shown, line)
    return line


def _longest_first(names: Iterable[str]) -> list[str]:
    return sorted(set(filter(None, names)), key=lambda name: (-len(name), name))
