"""The adapter of force_swap: what it is asked, what its report says, and what when it does not."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from appliance import tree
from appliance.errors import SwapError
from appliance.swap import Report, Swap, find_swap, parse_report

LOCK = Path("/run/force_swap.lock")
REPORT = {
    "schema": "force_swap/1",
    "mechanisms": [
        {"name": "memory.reclaim", "object": "user.slice/a", "freed_memfree": 3000},
        {"name": "memory.reclaim", "object": "user.slice/b", "freed_memfree": 500},
        {"name": "fadvise", "object": "/models", "freed_memfree": -20},
    ],
    "stop_reason": "met",
    "warnings": ["swap is slow"],
}


def helper(folder: Path, body: str) -> Swap:
    """Return an adapter over a made-up helper: ``body`` is Python, and sees ``args``."""
    script = folder / "helper.py"
    script.write_text(f"import json, signal, sys, time\nargs = sys.argv[1:]\n{body}\n")
    return Swap((sys.executable, "-S", str(script)), folder / "lock")


def test_a_report_sums_what_was_freed_by_mechanism() -> None:
    report = parse_report(json.dumps(REPORT).encode(), 0)
    assert report == Report(0, "met", {"memory.reclaim": 3500, "fadvise": 0}, ("swap is slow",))
    assert report.freed_bytes == 3500


@pytest.mark.parametrize(
    "output",
    [b"", b"{", b"[]", b'{"schema": "force_swap/2"}', b"\xff", b"null", b"killed"],
)
def test_what_is_no_report_is_none(output: bytes) -> None:
    assert parse_report(output, 0) is None


@pytest.mark.parametrize("rows", [None, 5, [5], [{"name": 1}], [{"name": "x"}]])
def test_a_report_with_strange_mechanisms_freed_nothing(rows: object) -> None:
    told = {**REPORT, "mechanisms": rows, "warnings": 7, "stop_reason": None}
    assert parse_report(json.dumps(told).encode(), 5) == Report(5)


async def test_a_drop_names_the_paths(tmp_path: Path) -> None:
    body = f"report = {REPORT!r}; report['warnings'] = args; print(json.dumps(report))"
    report = await helper(tmp_path, body).drop_cache([Path("/models/My Model")])
    assert report.warnings == ("drop-cache", "/models/My Model")


async def test_an_eviction_names_the_goal_the_cgroups_and_its_bounds(tmp_path: Path) -> None:
    body = f"report = {REPORT!r}; report['warnings'] = args; print(json.dumps(report))"
    base = Path("/host/cgroup")
    report = await helper(tmp_path, body).evict(
        10**9, ["user.slice/a", "b.slice"], base, max_bytes=2**30, reserve_bytes=7
    )
    words = " ".join(report.warnings)
    assert words.startswith("evict --apply --phase preflight --target-available 1000000000")
    assert (
        "--max-bytes 1073741824 --reserve 7 --max-seconds 120 --cgroup-base /host/cgroup" in words
    )
    assert f"--lock {tmp_path / 'lock'}" in words
    assert words.endswith("--cgroup user.slice/a --cgroup b.slice")


async def test_a_partial_eviction_is_a_report_and_no_error(tmp_path: Path) -> None:
    body = f"print(json.dumps({REPORT!r})); sys.exit(5)"
    assert (await helper(tmp_path, body).drop_cache([])).exit_code == 5


async def test_a_helper_that_says_nothing_is_an_error_with_its_last_word(tmp_path: Path) -> None:
    body = "print('first', file=sys.stderr); print('no such flag', file=sys.stderr); sys.exit(2)"
    with pytest.raises(SwapError, match="drop_cache ended with 2: no such flag"):
        await helper(tmp_path, body).drop_cache([])


async def test_a_helper_that_is_not_there_is_an_error_that_says_what_to_type() -> None:
    with pytest.raises(SwapError, match="/no/such/force_swap cannot be started") as caught:
        await Swap(("/no/such/force_swap",), LOCK).drop_cache([])
    assert "APPLIANCE_SWAP=off" in caught.value.hint


async def test_a_run_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    body = f"open({str(mark)!r}, 'w').write(str(__import__('os').getpid())); time.sleep(600)"
    task = asyncio.create_task(helper(tmp_path, body).drop_cache([]))
    async with asyncio.timeout(20):
        while not (mark.exists() and mark.read_text()):  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tree.read_process(int(mark.read_text())) is None


def test_off_is_off_whatever_is_installed() -> None:
    assert find_swap("off", [sys.executable], LOCK) is None


def test_auto_uses_what_is_installed() -> None:
    assert find_swap("auto", [sys.executable], LOCK) is not None
    assert find_swap("auto", ["/no/such/force_swap"], LOCK) is None


def test_on_wants_it_installed() -> None:
    with pytest.raises(SwapError, match=r"APPLIANCE_SWAP=on, but /no/such/x is not installed"):
        find_swap("on", ["/no/such/x"], LOCK)
