"""A hub is read by its public conventions: names, listings, commits, and what it says no to."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.checkpoint.failures import CheckpointError, SourceError
from appliance.checkpoint.faults import (
    FileChanged,
    NotAllowed,
    NotThere,
    RemoteError,
    Unreachable,
)
from appliance.checkpoint.hub import (
    hub_source,
    parse_hub_name,
)
from appliance.checkpoint.opening import open_source
from appliance.checkpoint.patience import Patience
from appliance.checkpoint.web import Token, Web
from appliance.checkpoint.weburl import WebUrl, parse_url
from tests.fakes.rangeserver import COMMIT, Fault, Hub, git_hash, hub
from tests.hubs import FILES, INDEX, NEWER, REPO, SECOND, SECRET, SHARD, listing


@pytest.fixture
def there() -> Iterator[Hub]:
    with hub() as there:
        there.add(REPO, FILES)
        yield there


@pytest.fixture
def endpoint(there: Hub) -> WebUrl:
    return parse_url(there.api.url)


@pytest.fixture
def web(endpoint: WebUrl) -> Iterator[Web]:
    web = Web(Token(SECRET, endpoint.origin), patience=Patience(tries=3, first_s=0))
    yield web
    web.close()


# ---- names


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hf://owner/name", "hf://owner/name@main"),
        ("owner/name@v1.0", "hf://owner/name@v1.0"),
        ("hf://o_1/Model-2.7.x@refs/pr/1", "hf://o_1/Model-2.7.x@refs/pr/1"),
        (f"o/n@{COMMIT}", f"hf://o/n@{COMMIT}"),
    ],
)
def test_a_repository_is_owner_name_and_revision(text: str, shown: str) -> None:
    assert str(parse_hub_name(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        *("name", "hf://", "hf:///name", "hf://owner/", "hf://owner/na/me", "hf://../etc"),
        *("hf://owner/..", "hf://owner/a..b", "hf://-o/n", "hf://o/n?x", "hf://o/n#x", "hf://o/n%2f"),
        *("hf://o/n@../..", "hf://o/n@a//b", "hf://o/n@-x", "hf://o/n@a b", "hf://o/\u043d", "hf://o/n\n"),
        f"hf://o/{'n' * 97}",
    ],
)  # fmt: skip
def test_what_is_no_repository_is_asked_nobody(text: str) -> None:
    with pytest.raises(SourceError, match="names no repository"):
        parse_hub_name(text)


# ---- the listing


def test_a_branch_is_resolved_once_and_read_at_its_commit(
    there: Hub, web: Web, endpoint: WebUrl
) -> None:
    found = listing(web, endpoint)
    assert found.named.revision == COMMIT
    there.add(REPO, {**FILES, SHARD: b"newer" * 1000}, commit=NEWER)  # a push in mid-way
    source = hub_source(web, endpoint, found)
    assert source.read(SHARD, 0, 25_600) == FILES[SHARD]
    assert source.label == f"hf://{REPO}@{COMMIT}"
    assert listing(web, endpoint).named.revision == NEWER
    assert listing(web, endpoint, f"{REPO}@{COMMIT}").named.revision == COMMIT


def test_a_listing_names_sizes_and_hashes_and_leaves_out_what_is_hidden(
    web: Web, endpoint: WebUrl
) -> None:
    found = listing(web, endpoint)
    by_name = {file.name: file for file in found.files}
    assert by_name.keys() == FILES.keys() - {".gitattributes"}
    assert found.left_out == (".gitattributes",)
    assert by_name["config.json"].blob == git_hash(FILES["config.json"])
    assert by_name[SHARD].sha256
    assert {file.size for file in found.files} >= {len(FILES[SHARD]), len(FILES["config.json"])}
    source = hub_source(web, endpoint, found)
    assert source.read("docs/a b#c.md", 0, 6) == b"nested"
    assert source.stamp(SHARD) == by_name[SHARD].sha256


def test_a_listing_goes_on_over_pages(there: Hub, web: Web, endpoint: WebUrl) -> None:
    path = f"/api/models/{REPO}/tree/{COMMIT}"
    entries = json.loads(there.api.files[path])
    there.api.put(path, json.dumps(entries[:2]).encode())
    there.api.put(f"{path}/2", json.dumps(entries[2:]).encode())
    there.api.extra[path] = {"Link": f'<{there.api.url}{path}/2?cursor=x>; rel="next"'}
    assert len(listing(web, endpoint).files) == len(FILES) - 1


def test_a_listing_that_goes_on_elsewhere_or_for_ever_is_refused(
    there: Hub, web: Web, endpoint: WebUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/api/models/{REPO}/tree/{COMMIT}"
    there.api.extra[path] = {"Link": f'<{there.storage.url}/more>; rel="next"'}
    with pytest.raises(RemoteError, match="goes on at another host"):
        listing(web, endpoint)
    there.api.extra[path] = {"Link": f'<{there.api.url}{path}>; rel="next"'}
    monkeypatch.setattr("appliance.checkpoint.hub.PAGES", 3)
    with pytest.raises(RemoteError, match="more than 3 pages"):
        listing(web, endpoint)


def entry(**changes: Any) -> dict[str, Any]:
    return {"type": "file", "path": "a.json", "size": 5, "oid": "a" * 40, **changes}


@pytest.mark.parametrize(
    "entries",
    [
        {"error": "no list"},
        [1],
        [{"type": "file"}],
        [entry(size=-1)],
        [entry(size="5")],
        [entry(size=2**60)],
        [entry(oid="short")],
        [entry(lfs={"oid": "a" * 64, "size": 6})],
        [entry(lfs={"oid": "a" * 40, "size": 5})],
        [entry(), entry()],
    ],
    ids=str,
)
def test_a_listing_that_cannot_be_is_refused(
    there: Hub, web: Web, endpoint: WebUrl, entries: Any
) -> None:
    there.list_as(REPO, entries)
    with pytest.raises(RemoteError):
        listing(web, endpoint)


@pytest.mark.parametrize(
    "name",
    [
        *("../evil", "a/../../evil", "/etc/passwd", "a//b", "a\\..\\b", "C:evil", "a\nb", ".."),
        *("a\0b", "\u202egpj.exe", "x" * 300, "a/./b", "", ".\x1b[2J"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(
    there: Hub, web: Web, endpoint: WebUrl, name: str
) -> None:
    there.list_as(REPO, [entry(), entry(path=name)])
    with pytest.raises(CheckpointError, match="no plain relative name"):
        listing(web, endpoint)


def test_a_file_that_lies_of_its_size_is_refused(there: Hub, web: Web, endpoint: WebUrl) -> None:
    there.list_as(REPO, [entry(path="config.json", size=5, oid=git_hash(FILES["config.json"]))])
    source = hub_source(web, endpoint, listing(web, endpoint))
    with pytest.raises(FileChanged, match="it had 5 bytes, and has 24"):
        source.read("config.json", 0, 5)


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (Fault(401, {"X-Error-Code": "RepoNotFound"}), NotThere, "private"),
        (Fault(403, {"X-Error-Code": "GatedRepo"}), NotAllowed, "is gated"),
        (Fault(404, {"X-Error-Code": "RevisionNotFound"}), NotThere, "no such revision"),
        (Fault(200, body=b"<html>log in</html>"), RemoteError, "not understood"),
        (Fault(200, body=b'{"sha": "../x"}'), RemoteError, "not understood"),
        (Fault(200, body=b"[" * 100_000), RemoteError, "not understood"),
        (Fault(502), Unreachable, "502"),
        (Fault(zipped=True), RemoteError, "compressed"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_the_hub_says_no_to_is_told_in_our_words(
    there: Hub, web: Web, endpoint: WebUrl, fault: Fault, kind: type[RemoteError], says: str
) -> None:
    there.api.always[f"/api/models/{REPO}/revision/main"] = fault
    with pytest.raises(RemoteError, match=says) as caught:
        listing(web, endpoint)
    assert type(caught.value) is kind


def test_a_source_is_a_folder_a_repository_or_an_address(
    there: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", there.api.url)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    (tmp_path / "config.json").write_text("{}")
    for text, names in (
        (str(tmp_path), ["config.json"]),
        (f"hf://{REPO}", sorted(FILES.keys() - {".gitattributes"})),
        (f"{there.api.url}/{REPO}/resolve/main", ["config.json", INDEX, SHARD, SECOND]),
    ):
        source = open_source(text)
        assert source.names() == sorted(names)
        assert source.size("config.json") > 0
        source.close()
    with pytest.raises(SourceError, match="no https"):
        open_source("ftp://x/y")


def test_closing_ends_who_reads(there: Hub, web: Web, endpoint: WebUrl) -> None:
    source = hub_source(web, endpoint, listing(web, endpoint))
    hold = threading.Event()
    there.storage.fail(there.large(REPO, SHARD), Fault(hold=hold))
    failed: list[Exception] = []

    def read() -> None:
        try:
            source.read(SHARD, 0, 5)
        except SourceError as cause:
            failed.append(cause)

    reader = threading.Thread(target=read)
    reader.start()
    while not there.storage.asked:
        pass
    source.close()
    reader.join(20)
    assert not reader.is_alive()
    assert failed
    hold.set()
