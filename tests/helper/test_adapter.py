"""The appliance's adapter over the real helper: it is understood, and its report is read."""

from pathlib import Path

import pytest

from appliance.swap import Swap
from tests.helper.driving import Build


@pytest.fixture
def swap(native: Build, tmp_path: Path) -> Swap:
    return Swap(native.argv, tmp_path / "lock")


async def test_a_real_drop_is_reported_in_bytes(swap: Swap, tmp_path: Path) -> None:
    shard = tmp_path / "model.safetensors"
    shard.write_bytes(b"\1" * (32 << 20))

    report = await swap.drop_cache([tmp_path])

    assert report.exit_code == 0, report
    assert set(report.freed) == {"fadvise"}


async def test_a_goal_that_is_met_already_evicts_nothing(swap: Swap) -> None:
    report = await swap.evict(
        1 << 20,
        ["no-such.slice"],
        Path("/sys/fs/cgroup"),
        max_bytes=1 << 30,
        reserve_bytes=1 << 30,
    )

    assert report.freed_bytes == 0
