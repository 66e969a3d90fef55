"""Repositories of a model hub, by the Hub's public conventions: names, revisions, listings.

A revision is resolved to a commit once; all that follows is read at that commit, so that a push
in mid-way changes nothing.
"""

import json
import os.path
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.checkpoint.failures import SourceError
from appliance.checkpoint.faults import NotAllowed, RemoteError
from appliance.checkpoint.plain import plain_name
from appliance.checkpoint.remote import RemoteFile, RemoteSource
from appliance.checkpoint.web import Token, Web
from appliance.checkpoint.weburl import WebUrl, parse_url

SCHEME = "hf://"
ENDPOINT = "https://huggingface.co"
MAIN = "main"
PAGES = 200  # of 1,000 files each
LARGEST = 2**50  # bytes of one file
_NAME = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"(?!.*(?:\.\.|//))[A-Za-z0-9_][A-Za-z0-9._/-]{0,198}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NEXT = re.compile(r'<([^<>]+)>\s*;\s*rel="next"')


@dataclass(frozen=True)
class HubName:
    """A repository and a revision of it: ``hf://owner/name@revision``."""

    owner: str
    name: str
    revision: str = MAIN

    def __str__(self) -> str:
        return f"{SCHEME}{self.owner}/{self.name}@{self.revision}"


@dataclass(frozen=True)
class HubFile:
    """One file of a listing. ``sha256`` is "" where the hub keeps the file in git: ``blob`` is
    then the SHA-1 that git gives it.
    """

    name: str
    size: int
    sha256: str
    blob: str


@dataclass(frozen=True)
class Listing:
    """What a repository holds at one commit. ``named`` has the commit as its revision."""

    named: HubName
    files: tuple[HubFile, ...]
    left_out: tuple[str, ...]  # hidden files


@dataclass(frozen=True)
class HubAccess:
    """Where the hub is, and who asks."""

    endpoint: WebUrl
    token: Token | None


def parse_hub_name(text: str) -> HubName:
    """Return what ``hf://owner/name[@revision]`` or ``owner/name[@revision]`` names.

    Raises SourceError for anything else.
    """
    path, _, revision = text.removeprefix(SCHEME).partition("@")
    owner, _, name = path.partition("/")
    revision = revision or MAIN
    if not (_NAME.fullmatch(owner) and _NAME.fullmatch(name) and _REVISION.fullmatch(revision)):
        raise SourceError(
            f"{text[:120]!r} names no repository of a hub", "write hf://owner/name[@revision]"
        )
    return HubName(owner, name, revision)


def hub_access(environ: Mapping[str, str]) -> HubAccess:
    """Return the hub that the Hub's own variables name, and the token for it.

    HF_ENDPOINT; HF_TOKEN, or the file that HF_TOKEN_PATH names, or ``token`` in HF_HOME. Raises
    RemoteError for an address that is none, and where HF_HUB_OFFLINE forbids to ask.
    """
    if _is_on(environ.get("HF_HUB_OFFLINE")):
        raise RemoteError("HF_HUB_OFFLINE is set: no hub is asked", "unset it")
    endpoint = parse_url(environ.get("HF_ENDPOINT") or ENDPOINT)
    secret = "" if _is_on(environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN")) else _secret(environ)
    return HubAccess(endpoint, Token(secret, endpoint.origin) if secret else None)


def _is_on(value: str | None) -> bool:
    return (value or "").upper() in ("1", "ON", "YES", "TRUE")


def _secret(environ: Mapping[str, str]) -> str:
    given = environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN")
    if given and given.strip():
        return given.strip()
    home = environ.get("HF_HOME")
    if not home:
        cache = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME", "~"), ".cache")
        home = os.path.join(cache, "huggingface")
    named = environ.get("HF_TOKEN_PATH")
    path = Path(named or os.path.join(home, "token")).expanduser()
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        if named:
            raise NotAllowed(f"HF_TOKEN_PATH={path} is not there", "unset it, or log in") from None
        return ""
    except (OSError, ValueError):  # its content is not shown
        raise NotAllowed(f"the token in {path} cannot be read", "set HF_TOKEN") from None


def read_listing(web: Web, endpoint: WebUrl, asked: HubName) -> Listing:
    """Return the files of a repository at the commit that ``asked.revision`` is now.

    Raises SourceError, and CheckpointError for a listing with names that no honest one has.
    """
    named = HubName(asked.owner, asked.name, _commit(web, endpoint, asked))
    files: list[HubFile] = []
    hidden: list[str] = []
    for entry in _entries(web, endpoint, named):
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise _unreadable(named)
        name = entry["path"]
        if _is_hidden(name):
            hidden.append(name)
        elif entry.get("type") == "file":
            files.append(_file(plain_name(name, str(named), folders=True), entry, named))
    if len({file.name for file in files}) != len(files):
        raise RemoteError(f"{named} lists a file twice")
    return Listing(named, tuple(sorted(files, key=lambda file: file.name)), tuple(sorted(hidden)))


def _is_hidden(name: str) -> bool:
    """Tell a name like .gitattributes; one that is no honest name is not merely hidden."""
    parts = name.split("/")
    return name.isprintable() and any(part[:1] == "." and part.strip(".") for part in parts)


def file_url(endpoint: WebUrl, named: HubName, name: str) -> WebUrl:
    """Return the address of one file of a repository."""
    parts = (named.owner, named.name, "resolve", named.revision, *name.split("/"))
    return endpoint.below(*parts)


def hub_source(web: Web, endpoint: WebUrl, listing: Listing) -> RemoteSource:
    """Return a listed repository as a source; a file's stamp is the hash that the hub names."""
    files = {
        file.name: RemoteFile(
            web, file_url(endpoint, listing.named, file.name), file.size, file.sha256 or file.blob
        )
        for file in listing.files
    }
    return RemoteSource(str(listing.named), web, files)


def _commit(web: Web, endpoint: WebUrl, asked: HubName) -> str:
    if _COMMIT.fullmatch(asked.revision):
        return asked.revision
    parts = ("api", "models", asked.owner, asked.name, "revision", asked.revision)
    info = _json(web.json_text(endpoint.below(*parts))[0], asked)
    commit = info.get("sha") if isinstance(info, dict) else None
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise _unreadable(asked)
    return commit


def _entries(web: Web, endpoint: WebUrl, named: HubName) -> list[Any]:
    parts = ("api", "models", named.owner, named.name, "tree", named.revision)
    url, entries = endpoint.below(*parts).asking("recursive=true"), []
    for _ in range(PAGES):
        content, link = web.json_text(url)
        page = _json(content, named)
        if not isinstance(page, list):
            raise _unreadable(named)
        entries += page
        following = _NEXT.search(link)
        if following is None:
            return entries
        url = parse_url(following[1])
        if url.origin != endpoint.origin:
            raise RemoteError(f"the listing of {named} goes on at another host: {url}")
    raise RemoteError(f"{named} lists more than {PAGES} pages of files")


def _json(content: bytes, named: HubName) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise _unreadable(named) from None


def _file(name: str, entry: Mapping[str, Any], named: HubName) -> HubFile:
    match entry:
        case {"size": int(size), "lfs": {"oid": str(sha256), "size": int(real)}}:
            known = _SHA256.fullmatch(sha256) is not None and size == real
            found = HubFile(name, size, sha256, "")
        case {"size": int(size), "oid": str(blob)}:
            known = _COMMIT.fullmatch(blob) is not None
            found = HubFile(name, size, "", blob)
        case _:
            raise _unreadable(named)
    if not known or not 0 <= found.size <= LARGEST:
        raise RemoteError(f"{named} lists {name} with a size or a hash that cannot be")
    return found


def _unreadable(named: HubName) -> RemoteError:
    return RemoteError(
        f"what the hub says of {named} is not understood", "check HF_ENDPOINT: is it a hub?"
    )
