"""Large blocks are reused: what is freed is not given back, and not mapped anew."""

import subprocess
import sys

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
