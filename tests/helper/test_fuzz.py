"""Any bytes into the parsers: for FUZZ_SECONDS (60) in the gate, for ten minutes in test-long."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.helper.driving import OUT, SANITIZER, Build

SEEDS = Path(__file__).with_name("seeds")
GATE_S = int(os.environ.get("FUZZ_SECONDS", "60"))
LONG_S = 600


@pytest.mark.parametrize(
    "seconds",
    [GATE_S, pytest.param(LONG_S, marks=[pytest.mark.long, pytest.mark.timeout(LONG_S + 120)])],
    ids=["gate", "long"],
)
def test_no_bytes_break_a_parser(built: dict[str, Build], seconds: int) -> None:
    corpus = OUT / "corpus"
    corpus.mkdir(exist_ok=True)

    done = subprocess.run(
        [
            OUT / "fuzz",
            *(f"-max_total_time={seconds}", "-max_len=4096", "-timeout=10", "-rss_limit_mb=2048"),
            *("-print_final_stats=1", f"-artifact_prefix={OUT}/crash-", corpus, SEEDS),
        ],
        capture_output=True,
        text=True,
        timeout=seconds + 90,
        env={"PATH": os.environ["PATH"], **SANITIZER},
    )

    executed = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    assert done.returncode == 0, f"the input lies in {OUT}/crash-*\n{done.stderr[-4000:]}"
    assert executed is not None
    print(f"fuzz: {executed[1]} executions, corpus {len(list(corpus.iterdir()))} inputs")
    assert int(executed[1]) > 0
