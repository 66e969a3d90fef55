"""Whoever waits for a silent source is not waited for: an error, or Ctrl-C, ends all reads."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.checkpoint.command import main
from appliance.checkpoint.faults import Unreachable
from appliance.checkpoint.jobs import in_order
from appliance.checkpoint.source import LocalSource, Moved
from tests.checkpointbox import SMALL, build, write_mask

FIRST, SECOND = (f"model-{n:05}-of-{SMALL.shards:05}.safetensors" for n in (1, 2))
PATIENCE_S = 20.0  # of a read that nobody ends: so long that only ``stop`` comes before


class Silent(LocalSource):
    """Once ``begun``, it breaks in one shard while another is silent until ``stop`` is called."""

    def __init__(self, folder: Path, error: BaseException, begun: Callable[[int], bool]) -> None:
        super().__init__(folder)
        self._error, self._begun = error, begun
        self._waits, self._stopped = threading.Event(), threading.Event()
        self.ended: list[bool] = []

    def read(self, name: str, offset: int, length: int) -> bytes:
        self._meet(name, offset)
        return super().read(name, offset, length)

    def copy(
        self, name: str, offset: int, length: int, out_fd: int, out_offset: int, moved: Moved
    ) -> None:
        self._meet(name, offset)
        super().copy(name, offset, length, out_fd, out_offset, moved)

    def stop(self) -> None:
        self._stopped.set()

    def _meet(self, name: str, offset: int) -> None:
        if not self._begun(offset):
            return
        if name == SECOND:
            self._waits.set()
            self.ended.append(self._stopped.wait(PATIENCE_S))
            raise Unreachable("stopped")
        if name == FIRST:
            assert self._waits.wait(PATIENCE_S)
            raise self._error


@pytest.mark.parametrize(
    ("error", "code"), [(Unreachable("gone"), 75), (KeyboardInterrupt(), 130)], ids=["error", "^C"]
)
@pytest.mark.parametrize("work", ["headers", "write", "verify"])
def test_one_shards_end_is_the_end_of_a_silent_one(
    tmp_path: Path, work: str, error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = build(tmp_path / "source", SMALL), str(tmp_path / "out")
    mask = write_mask(tmp_path / "mask.json", SMALL, 6)
    argv = [str(folder), out, "--deleted-experts-file", str(mask), "--jobs", "2"]
    if work == "verify":
        assert main(argv) == 0
    begins = 0 if work == "headers" else 1000  # tensors are beyond the length and the header
    source = Silent(folder, error, lambda offset: offset >= begins)
    monkeypatch.setattr("appliance.checkpoint.job.open_source", lambda _: source)
    assert main([*argv, *(["--verify"] if work == "verify" else [])]) == code
    assert source.ended == [True]


def test_a_mask_is_not_waited_for_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build(tmp_path / "source", SMALL)
    source = Silent(folder, Unreachable("gone"), lambda _: True)
    monkeypatch.setattr("appliance.checkpoint.job.open_source", lambda _: source)
    argv = [str(folder), str(tmp_path / "out"), "--compare-with", str(folder), "--jobs", "2"]
    assert main(argv) == 75
    assert source.ended == [True]


def test_reads_come_in_the_order_of_their_items_whichever_ends_first() -> None:
    second_is_read = threading.Event()

    def read(item: int) -> int:
        if item == 0:
            assert second_is_read.wait(PATIENCE_S)
        if item == 1:
            second_is_read.set()
        return item * item

    assert list(in_order(read, range(50), 2, lambda: None)) == [n * n for n in range(50)]


def test_no_more_is_read_ahead_than_there_are_jobs() -> None:
    begun: list[int] = []
    reads = in_order(begun.append, range(100), 3, lambda: None)
    next(reads)
    assert len(begun) <= 4
    reads.close()
