"""Segments of shared memory, held by real processes."""

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance import segments

HOLD = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
view = mmap.mmap(fd, 4096)
os.close(fd)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def segment() -> Iterator[Path]:
    path = segments.FOLDER / f"psm_test_{secrets.token_hex(4)}"
    path.write_bytes(bytes(4096))
    yield path
    path.unlink(missing_ok=True)


@contextmanager
def holder(path: Path) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    try:
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_a_segment_is_found_by_who_maps_it(segment: Path) -> None:
    with holder(segment) as pid:
        assert segments.mapped([pid]) == {inode(segment)}
    assert segments.mapped([pid]) == set()


def test_a_segment_that_somebody_maps_stays_and_goes_with_the_last(segment: Path) -> None:
    with holder(segment):
        assert segments.remove([inode(segment)]) == []
        assert segment.exists()
    assert segments.remove([inode(segment)]) == [segment]
    assert not segment.exists()


def test_nothing_else_is_ever_removed(tmp_path: Path) -> None:
    file = tmp_path / "psm_elsewhere"
    file.touch()
    assert segments.remove([inode(file)]) == []
    assert file.exists()


def test_a_semaphore_is_found_though_it_is_mapped_under_another_name(segment: Path) -> None:
    named = segment.with_name(f"sem.{segment.name}")
    with holder(segment) as pid:
        named.hardlink_to(segment)
        segment.unlink()
        found = segments.mapped([pid])
    assert segments.remove(found) == [named]
