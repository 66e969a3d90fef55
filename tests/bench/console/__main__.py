"""``python -m tests.bench.console``: what those who watch the console cost the appliance.

CPU seconds of the appliance's own process, out of the kernel's account, over equal stretches of
time: nobody watches, one does, ten do, in turn, as often as ``--rounds`` says. The engine is the
fake one, or with ``--real`` the demo's. Asked is the share of one core above that of nobody.
"""

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from tests.appliances import CONTROL, ApplianceProcess, running_process, web
from tests.engines import CHECKPOINT, ENGINE_PYTHON

WATCHERS = (0, 1, 10)
GOAL = 0.02  # of a core, for ten
SETTLE_S = 3.0
REAL: dict[str, Any] = {
    "engine_command": ENGINE_PYTHON.parent / "vllm",
    "model_dir": CHECKPOINT,
    "engine_extra_args": None,
    "start_timeout_s": 300,
    "stop_timeout_s": 10,
}


def cpu_s(pid: int) -> float:
    """Return the CPU time of one process so far, its own and the kernel's for it, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Watcher(threading.Thread):
    """Reads the event stream as a page does, until told to leave; counts what has come."""

    def __init__(self, url: str, key: str) -> None:
        super().__init__(daemon=True)
        self.figures = 0
        self._url, self._key = url, key
        self._leave = threading.Event()

    def run(self) -> None:
        """Read until told to leave: figures come each second, so that is soon."""
        path = f"{CONTROL}/events"
        # no timeout: a benchmark stops what it does not measure just now
        with web(self._url, self._key) as http, http.stream("GET", path, timeout=None) as reply:
            for line in reply.iter_lines():
                self.figures += line == "event: figures"
                if self._leave.is_set():
                    return

    def leave(self) -> None:
        """Leave, and wait for that."""
        self._leave.set()
        self.join(10)


@contextmanager
def watching(box: ApplianceProcess, count: int) -> Iterator[list[Watcher]]:
    """Have so many watch."""
    watchers = [Watcher(box.base_url, box.key("operator")) for _ in range(count)]
    for watcher in watchers:
        watcher.start()
    try:
        yield watchers
    finally:
        for watcher in watchers:
            watcher.leave()


def share_of_a_core(box: ApplianceProcess, count: int, length_s: float) -> float:
    """Return which share of one core the appliance takes while so many watch."""
    with watching(box, count) as watchers:
        time.sleep(SETTLE_S)
        seen = [watcher.figures for watcher in watchers]
        before, began = cpu_s(box.process.pid), time.monotonic()
        time.sleep(length_s)
        share = (cpu_s(box.process.pid) - before) / (time.monotonic() - began)
        for watcher, first in zip(watchers, seen, strict=True):
            if watcher.figures - first < length_s / 2:
                sys.exit(f"a watcher saw {watcher.figures - first} figures in {length_s:.0f} s")
    return share


def main() -> int:
    """Measure, and print a table; 1 where ten cost more than the goal."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.console", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each stretch (60)")
    parser.add_argument("--rounds", type=int, default=1, help="of all stretches (1)")
    parser.add_argument("--real", action="store_true", help="the demo's engine (make setup)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started must end too
    shares: dict[int, list[float]] = {count: [] for count in WATCHERS}
    with tempfile.TemporaryDirectory() as folder:
        more = REAL if options.real else {}
        with running_process(Path(folder) / "box", **more) as box:
            box.until("ready", within_s=300)
            for _ in range(options.rounds):
                for count in WATCHERS:
                    shares[count].append(share_of_a_core(box, count, options.seconds))
                    print(f"{count:>2} watch: {shares[count][-1]:.2%} of a core", file=sys.stderr)
    nobody = median(shares[0])
    engine = "the real engine" if options.real else "the fake engine"
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {engine}, {options.rounds} x {options.seconds:.0f} s each\n"
    )
    print("| watch | of a core | above nobody |\n|---:|---:|---:|")
    for count in WATCHERS:
        share = median(shares[count])
        print(f"| {count} | {share:.2%} | {share - nobody:.2%} |")
    return 0 if median(shares[10]) - nobody < GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
