"""drop-cache on real files: measured by mincore here, not by what the helper says."""

import hashlib
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helper.driving import BUILDS, Build, Run, fake_roots, run
from tests.helper.machine import GIB, MIB, Machine
from tests.pagecache import cached

PAGE = mmap.PAGESIZE
NOBODY = 65534


def fill(path: Path, size: int) -> Path:
    """Write a file of ``size`` bytes and leave it dirty in the page cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(block)
    return path


def drop(build: Build, *args: object) -> Run:
    return run(build, ["drop-cache", *map(str, args)])


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder on a disk: what is on tmpfs cannot be dropped."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    "size",
    [256 * MIB, pytest.param(2 * GIB, marks=pytest.mark.long)],
    ids=["256 MiB", "2 GiB"],
)
@pytest.mark.parametrize("build", list(BUILDS))
def test_a_file_just_written_leaves_the_page_cache(
    built: dict[str, Build], build: str, size: int, disk: Path
) -> None:
    shard = fill(disk / "model-00001.safetensors", size)
    before = cached(shard)

    done = drop(built[build], disk)

    after = cached(shard)
    print(f"{build}: mincore {before / MIB:.0f} -> {after / MIB:.0f} MiB, {done.at('elapsed_s')} s")
    assert before == size
    assert after == 0
    assert done.exit_code == 0
    assert (done.at("files.0.cached_before"), done.at("files.0.cached_after")) == (before, after)


def test_a_dry_run_only_measures(native: Build, disk: Path) -> None:
    shard = fill(disk / "a.safetensors", 2 * MIB)

    done = drop(native, disk, "--dry-run")

    assert (done.exit_code, done.at("stop_reason")) == (0, "measured")
    assert done.at("files.0.cached_before") == cached(shard) == 2 * MIB


def test_mapped_pages_are_reported_as_not_droppable(native: Build, disk: Path) -> None:
    shard = fill(disk / "a.safetensors", 4 * MIB)
    with shard.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        digest = hashlib.sha256(mapped).hexdigest()  # touches each page
        done = drop(native, shard)
        kept = cached(shard)
        assert hashlib.sha256(mapped).hexdigest() == digest

    assert (done.exit_code, done.at("stop_reason")) == (5, "kept")
    assert done.at("files.0.not_droppable") == kept == 4 * MIB
    assert "mapped" in done.stderr
    assert drop(native, shard).exit_code == 0
    assert cached(shard) == 0


def test_a_file_on_tmpfs_has_no_other_place(native: Build) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        fill(Path(folder) / "a.safetensors", MIB)
        done = drop(native, folder)

    assert done.exit_code == 5
    assert done.at("files.0.not_droppable") == MIB
    assert "in memory" in done.stderr


def paths(done: Run) -> set[str]:
    return {Path(one["path"]).name for one in done.at("files")}


def test_a_folder_means_its_shards_at_any_depth(native: Build, disk: Path) -> None:
    fill(disk / "deep" / "er" / "b.safetensors", MIB)
    fill(disk / "a.safetensors", MIB)
    fill(disk / "tokenizer.json", MIB)

    assert paths(drop(native, f"{disk}/")) == {"a.safetensors", "b.safetensors"}
    assert paths(drop(native, disk / "tokenizer.json")) == {"tokenizer.json"}


def test_a_hugging_face_snapshot_leads_to_its_blobs(native: Build, disk: Path) -> None:
    blob = fill(disk / "models--a--b" / "blobs" / "0123", MIB)
    snapshot = disk / "models--a--b" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "a.safetensors").symlink_to("../../blobs/0123")
    (snapshot / "again.safetensors").symlink_to("../../blobs/0123")

    done = drop(native, snapshot)

    assert (done.exit_code, paths(done)) == (0, {"a.safetensors", "again.safetensors"})
    assert cached(blob) == 0


def test_links_to_files_are_followed_and_links_to_folders_are_not(
    native: Build, disk: Path
) -> None:
    outside = fill(disk / "outside" / "a.safetensors", MIB)
    other = fill(disk / "other" / "b.safetensors", MIB)
    folder = disk / "folder"
    folder.mkdir()
    (folder / "link.safetensors").symlink_to(outside)
    (folder / "linked-folder").symlink_to(other.parent)

    done = drop(native, folder)

    assert paths(done) == {"link.safetensors"}
    assert cached(outside) == 0
    assert cached(other) == MIB


@pytest.mark.parametrize("kind", ["pipe", "folder without shards", "nothing"])
def test_what_is_no_file_is_named(native: Build, disk: Path, kind: str) -> None:
    target = disk / "x"
    if kind == "pipe":
        os.mkfifo(target)
    if kind == "folder without shards":
        target.mkdir()

    done = drop(native, target)

    assert (done.exit_code, done.at("stop_reason")) == (4, "no_files")
    assert {"pipe": "not a regular", "nothing": "No such file"}.get(kind, "no file") in done.stderr


def test_names_of_any_bytes_are_valid_json(native: Build, disk: Path) -> None:
    name = os.fsdecode(b'\xff"\\\n\xe2\x82\xac\xed\xa0\x80\xc0\xaf.safetensors')
    fill(disk / name, MIB)

    (path,) = paths(drop(native, disk))

    assert path == '�"\\\n€' + "�" * 5 + ".safetensors"


def test_fake_roots_drop_nothing(native: Build, disk: Path, machine: Machine) -> None:
    machine.save()
    shard = fill(disk / "a.safetensors", MIB)

    done = drop(native, shard, *fake_roots(machine))

    assert done.at("recorded.0.op") == "fadvise"
    assert cached(shard) == MIB


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_user_drops_what_he_may_read_but_does_not_believe_mincore(
    native: Build, disk: Path
) -> None:
    disk.chmod(0o755)
    shard = fill(disk / "a.safetensors", MIB)
    shard.chmod(0o644)

    done = run(native, ["drop-cache", str(shard)], user=NOBODY)

    assert done.exit_code == 0
    assert done.at("files.0.cached_before") is None
    assert "cannot be measured" in done.stderr
    assert cached(shard) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_what_may_not_be_read_is_a_matter_of_rights(native: Build, disk: Path) -> None:
    disk.chmod(0o755)
    shard = fill(disk / "a.safetensors", MIB)
    shard.chmod(0o600)

    done = run(native, ["drop-cache", str(shard)], user=NOBODY)

    assert (done.exit_code, done.at("stop_reason")) == (8, "no_permission")
