"""What a pull refuses, and that it then leaves everything as it was."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.checkpoint.destination import WORK
from appliance.checkpoint.failures import CheckpointError, DestinationError, WriteError
from appliance.checkpoint.faults import FileChanged, RemoteError, Unreachable
from appliance.checkpoint.pullrecord import RECORD
from tests.fakes.rangeserver import COMMIT, Fault, Hub, hub
from tests.pulls import (
    FILES,
    INDEX,
    NEWER,
    REPO,
    SHARDS,
    UNWANTED,
    Puller,
    content_of,
    puller,
    stored,
)


@pytest.fixture
def there() -> Iterator[Hub]:
    with hub() as there:
        there.add(REPO, FILES | UNWANTED)
        yield there


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"


@pytest.fixture
def pull(there: Hub, folder: Path) -> Puller:
    return puller(there, folder)


# ---- one commit, one folder


def test_an_interrupted_pull_stays_at_its_commit(there: Hub, pull: Puller, folder: Path) -> None:
    there.storage.always[stored(there, SHARDS[2])] = Fault(status=503)
    with pytest.raises(Unreachable):
        pull()
    newer = {**FILES, SHARDS[0]: b"newer" * 100_000}
    there.add(REPO, newer, commit=NEWER)  # the branch moves on
    del there.storage.always[stored(there, SHARDS[2])]
    plan = pull()
    assert plan.listing.named.revision == COMMIT
    assert content_of(folder) == FILES


def test_a_folder_holds_one_commit(there: Hub, pull: Puller, folder: Path, tmp_path: Path) -> None:
    pull()
    newer = {**FILES, SHARDS[0]: b"newer" * 100_000}
    there.add(REPO, newer, commit=NEWER)
    with pytest.raises(DestinationError) as caught:
        pull()
    assert COMMIT[:12] in caught.value.what
    assert NEWER[:12] in caught.value.what
    assert "--out" in caught.value.hint
    pull(f"{REPO}@{COMMIT}")
    pull(into=tmp_path / "newer")
    assert content_of(tmp_path / "newer") == newer
    assert content_of(folder) == FILES


def test_a_strangers_folder_is_left_alone(there: Hub, pull: Puller, folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("the only copy")
    with pytest.raises(DestinationError, match="no pull has fetched"):
        pull()
    assert content_of(folder) == {"thesis.txt": b"the only copy"}
    assert there.api.asked == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": {"a": 1}}', '{"files": []}'])
def test_a_record_that_is_none_makes_no_folder_ours(pull: Puller, folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / RECORD).write_text(text)
    (folder / "thesis.txt").write_text("the only copy")
    with pytest.raises(DestinationError):
        pull()


# ---- no room


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(
    there: Hub, pull: Puller, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.checkpoint.destination.Destination.free_bytes", lambda _: 5000)
    with pytest.raises(DestinationError) as caught:
        pull()
    total = sum(len(content) for content in FILES.values())
    assert f"5,000 bytes free, and {total:,} are still needed" in caught.value.what
    assert there.storage.asked == []


def test_a_disk_that_fills_up_is_told_and_gone_on_from(
    pull: Puller, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:

        def no_room(fd: int, content: bytes, offset: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr("appliance.checkpoint.pull.write_all", no_room)
        with pytest.raises(WriteError, match="is full"):
            pull()
    pull()
    assert content_of(folder) == FILES


# ---- strangers


def test_a_link_in_the_folder_is_not_followed(pull: Puller, folder: Path, tmp_path: Path) -> None:
    pull()
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(outside)
    pull()
    assert outside.read_text() == "mine"
    assert content_of(folder) == FILES
    assert not (folder / "tokenizer.json").is_symlink()


def test_a_linked_work_folder_is_refused(pull: Puller, folder: Path, tmp_path: Path) -> None:
    pull()
    (tmp_path / "outside").mkdir()
    (folder / WORK).symlink_to(tmp_path / "outside")
    with pytest.raises(DestinationError):
        pull()
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("name", ["../evil.safetensors", "/etc/evil", "a/b.safetensors", "x.bin\0"])
def test_an_index_that_names_files_elsewhere_is_refused(
    there: Hub, pull: Puller, folder: Path, name: str
) -> None:
    there.add(REPO, {**FILES, INDEX: json.dumps({"weight_map": {"a": name}}).encode()})
    with pytest.raises(CheckpointError, match="no plain relative name"):
        pull()
    assert not folder.exists()


def test_a_file_that_is_longer_than_listed_is_refused(
    there: Hub, pull: Puller, folder: Path
) -> None:
    entries = json.loads(there.api.files[f"/api/models/{REPO}/tree/{COMMIT}"])
    for entry in entries:
        if entry["path"] == "docs/card.md":
            entry["size"] = 3
    there.list_as(REPO, entries)
    with pytest.raises(FileChanged, match="it had 3 bytes, and has 6"):
        pull()
    assert "docs/card.md" not in content_of(folder)


@pytest.mark.parametrize("missing", [SHARDS[1], "config.json"])
def test_a_repository_that_lacks_a_part_is_refused_at_once(
    there: Hub, pull: Puller, folder: Path, missing: str
) -> None:
    there.add(REPO, {name: FILES[name] for name in FILES if name != missing})
    with pytest.raises((CheckpointError, RemoteError)) as caught:
        pull()
    assert missing in caught.value.what
    assert not folder.exists()


def test_a_repository_of_pickles_alone_is_refused(there: Hub, pull: Puller, folder: Path) -> None:
    there.add(REPO, {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    with pytest.raises(CheckpointError) as caught:
        pull()
    assert "safetensors" in str(caught.value)
    assert not folder.exists()
