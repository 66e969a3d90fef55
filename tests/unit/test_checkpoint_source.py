"""A local source: exactly the bytes that were asked for, by whatever way the kernel allows."""

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.checkpoint import source as module
from appliance.checkpoint.failures import SourceError
from appliance.checkpoint.opening import open_source
from appliance.checkpoint.source import LocalSource
from tests.checkpointbox import dice_of

DATA = dice_of("source").randbytes(300_000)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[LocalSource]:
    (tmp_path / "data").write_bytes(DATA)
    opened = LocalSource(tmp_path)
    yield opened
    opened.close()


def refusing(code: int) -> Callable[..., int]:
    def copy(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    return copy


def stopping(*_: Any) -> int:
    return 0


def short(source: int, out: int, count: int, at: int, to: int) -> int:
    """Copy, as a kernel may, fewer bytes than it was asked for."""
    return os.pwrite(out, os.pread(source, min(count, 1000), at), to)


WAYS: dict[str, Callable[..., int] | None] = {
    "by the kernel": None,
    "in short steps": short,
    "not across disks": refusing(errno.EXDEV),
    "not on this file system": refusing(errno.EOPNOTSUPP),
    "not in this kernel": refusing(errno.ENOSYS),
    "forbidden": refusing(errno.EPERM),
    "silently not": stopping,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_is_right_by_every_way(
    source: LocalSource, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if replacement := WAYS[way]:
        monkeypatch.setattr(os, "copy_file_range", replacement)
    monkeypatch.setattr(module, "BUFFER_BYTES", 70_000)
    steps: list[int] = []
    with (tmp_path / "out").open("wb+") as out:
        out.write(b"head")
        out.flush()
        source.copy("data", 1000, 250_000, out.fileno(), 4, steps.append)
        out.seek(0)
        assert out.read() == b"head" + DATA[1000:251_000]
    assert sum(steps) == 250_000


def test_a_copy_is_right_where_the_kernel_has_no_such_call(
    source: LocalSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "copy_file_range")
    with (tmp_path / "out").open("wb+") as out:
        source.copy("data", 0, len(DATA), out.fileno(), 0, lambda _: None)
        assert out.read() == DATA


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(DATA)), st.integers(0, len(DATA)))
def test_a_read_is_exactly_what_was_asked_for(source: LocalSource, a: int, b: int) -> None:
    first, last = min(a, b), max(a, b)
    assert source.read("data", first, last - first) == DATA[first:last]


@pytest.mark.parametrize("kernel", [True, False])
def test_bytes_beyond_the_end_are_an_error_and_no_endless_loop(
    source: LocalSource, tmp_path: Path, kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel:
        monkeypatch.delattr(os, "copy_file_range")
    with pytest.raises(SourceError, match="ends before byte 300,001"):
        source.read("data", 299_999, 2)
    with (tmp_path / "out").open("wb") as out, pytest.raises(SourceError, match="ends before"):
        source.copy("data", 299_000, 2000, out.fileno(), 0, lambda _: None)


def test_a_full_disk_passes_as_it_is(
    source: LocalSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "copy_file_range", refusing(errno.ENOSPC))
    with (tmp_path / "out").open("wb") as out, pytest.raises(OSError, match="No space"):
        source.copy("data", 0, 10, out.fileno(), 0, lambda _: None)


def test_links_are_followed_and_what_is_hidden_or_no_file_is_passed_over(tmp_path: Path) -> None:
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshot"
    for path in (blobs, folder, folder / ".cache", folder / "deep"):
        path.mkdir()
    (blobs / "abc").write_bytes(DATA)
    (folder / "model.safetensors").symlink_to(blobs / "abc")
    (folder / "gone").symlink_to(blobs / "nothing")
    (folder / ".cache" / "x").write_text("")
    (folder / ".gitattributes").write_text("")
    (folder / "deep" / "y").write_text("")
    os.mkfifo(folder / "pipe")
    source = LocalSource(folder)
    assert source.names() == ["deep/y", "model.safetensors"]
    assert source.size("model.safetensors") == len(DATA)
    with pytest.raises(SourceError, match="no regular file"):
        source.read("pipe", 0, 1)
    with pytest.raises(SourceError, match="gone cannot be read: No such file"):
        source.size("gone")
    source.close()


def test_threads_read_one_file_side_by_side(source: LocalSource) -> None:
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda n: source.read("data", n * 3000, 3000), range(100)))
    assert b"".join(parts) == DATA


def test_a_changed_file_has_another_stamp(source: LocalSource, tmp_path: Path) -> None:
    before = source.stamp("data")
    assert source.stamp("data") == before
    os.utime(tmp_path / "data", ns=(5, 5))
    assert source.stamp("data") != before


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is no folder"):
        open_source(str(tmp_path / "gone"))
    with pytest.raises(SourceError, match="ftp"):
        open_source("ftp://example.org/x")
