"""Large blocks are reused: what is freed is not given back, and not mapped anew."""

import asyncio
import subprocess
import sys

from appliance.allocator import Trimmer

PROGRAM = """
import resource, sys
from appliance.allocator import keep_large_blocks
kept = keep_large_blocks() if sys.argv[1] == "kept" else True
blocks = [bytearray(1_000_000) for _ in range(4)]
del blocks
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    bytearray(1_000_000)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Return the page faults of 200 blocks of 1 MB, one after the other."""
    argv = [sys.executable, "-c", PROGRAM, how]
    told = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    answer, count = told.stdout.split()
    assert answer == "True"
    return int(count)


def test_a_large_block_is_mapped_once_and_not_each_time() -> None:
    assert faults("kept") < 20


async def test_memory_is_given_back_once_after_a_rest() -> None:
    done = asyncio.Event()
    times: list[int] = []

    def trim() -> None:
        times.append(1)
        done.set()

    trimmer = Trimmer(lambda: True, trim)
    for _ in range(3):
        trimmer.rest()
    await asyncio.wait_for(done.wait(), 20)
    assert times == [1]


async def test_who_is_at_work_again_is_left_alone() -> None:
    looked = asyncio.Event()

    def is_idle() -> bool:
        looked.set()
        return False

    trimmed: list[int] = []
    Trimmer(is_idle, lambda: trimmed.append(1)).rest()
    await asyncio.wait_for(looked.wait(), 20)
    assert trimmed == []


HELD = """
from appliance.allocator import give_back, keep_large_blocks
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
keep_large_blocks()
blocks = [bytearray(1_000_000) for _ in range(60)]
pins = blocks[::10]
del blocks
held = resident()
give_back()
print(held - resident())
"""


def test_what_lies_free_between_blocks_is_given_back() -> None:
    argv = [sys.executable, "-c", HELD]
    told = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert int(told.stdout) > 40_000_000
