"""A file is hashed as a hub hashes it, and leaves no trace in the page cache."""

import hashlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from appliance.checkpoint.checksum import Checksum, read_through
from appliance.checkpoint.hub import HubFile
from tests.fakes.rangeserver import git_hash
from tests.pagecache import MIB, cached, fill_uncached


def files(content: bytes) -> tuple[HubFile, HubFile]:
    """Return it as a hub lists a large file, and as it lists a small one."""
    sha256 = hashlib.sha256(content).hexdigest()
    return (
        HubFile("a", len(content), sha256, ""),
        HubFile("a", len(content), "", git_hash(content)),
    )


@given(st.binary(max_size=200), st.integers(1, 50))
def test_the_right_bytes_are_right_however_they_come(content: bytes, step: int) -> None:
    for file in files(content):
        checksum = Checksum(file)
        for at in range(0, len(content), step):
            checksum.update(content[at : at + step])
        assert checksum.is_right()


@given(st.binary(min_size=1, max_size=200), st.data())
def test_one_bit_makes_them_wrong(content: bytes, data: st.DataObject) -> None:
    wrong = bytearray(content)
    wrong[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for file in files(content):
        checksum = Checksum(file)
        checksum.update(bytes(wrong))
        assert not checksum.is_right()
        assert (file.sha256 or file.blob)[:12] in checksum.difference()


def test_a_file_that_is_read_through_pushes_nobody_out_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    fill_uncached(path, 40 * MIB)
    sizes: list[int] = []
    with path.open("rb", buffering=0) as file:
        read_through(file.fileno(), 40 * MIB, lambda part: sizes.append(len(part)))
    assert sum(sizes) == 40 * MIB
    assert cached(path) < 12 * MIB  # what the kernel has read ahead, at most
