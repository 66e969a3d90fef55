"""``python -m tests.bench.console.gateway``: whether ten watchers move the gateway's figures.

The load of tests.bench.gateway asks three appliances in turn within each round. Nobody watches
the first, which the others are held against, nor the second: how far that one is from the first
is what the measurement itself is worth. Ten event streams are open at the third.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.console.__main__ import Watcher
from tests.bench.gateway.goals import Spread
from tests.bench.gateway.load import Load
from tests.bench.gateway.plan import Spec, specs
from tests.bench.gateway.proxies import OPERATOR_KEY, Starter
from tests.bench.gateway.session import FOLDER, Session, Taken, alone

FIRST, SECOND, WATCHED = "alone", "alone too", "watched"
TABS = 10
FIGURES = (
    ("chunk-4-content", "cpu_us", "CPU of a chunk, 4 streams"),
    ("chunk-32-content", "cpu_us", "CPU of a chunk, 32 streams"),
    ("request-2k", "cpu_us", "CPU of a 2 KB request"),
    ("body-again1m", "ttft_p50_us", "first byte after 1 MB, p50"),
    ("paced-content", "delay_p50_us", "a chunk's delay, 4 streams at 40/s, p50"),
    ("paced-content", "delay_p99_us", "the same, p99"),
    ("abort-stream-2k", "left_p99_us", "abort seen, p99"),
    ("stall-1m", "stall_p50_us", "longest stall beside 1 MB, p50"),
)


def chosen() -> list[Spec]:
    """Return the measurements of the figures, for our three appliances."""
    keys = {key for key, _, _ in FIGURES}
    ours = (FIRST, SECOND, WATCHED)
    return [dataclasses.replace(s, proxies=ours) for s in specs(quick=True) if s.key in keys]


def ratios(taken: Taken, key: str, figure: str, name: str) -> list[float]:
    """Return a figure of ``name`` against that of the first, within each round."""
    pairs = zip(taken[key][name], taken[key][FIRST], strict=True)
    return [one[figure] / first[figure] for one, first in pairs if one and first]


def table(taken: Taken) -> list[str]:
    """Return the lines of the table."""
    lines = ["| figure | nobody watches | the same again | ten watch |", "|---|---:|---:|---:|"]
    for key, figure, what in FIGURES:
        values = Spread.of([told[figure] for told in taken[key][FIRST] if told])
        again = Spread.of(ratios(taken, key, figure, SECOND))
        watched = Spread.of(ratios(taken, key, figure, WATCHED))
        if values is None or again is None or watched is None:
            sys.exit(f"{key} was not measured")
        lines.append(f"| {what} | {values.middle:.0f} us | {_told(again)} | {_told(watched)} |")
    return lines


def _told(spread: Spread) -> str:
    return f"{spread.middle:.2f}x ({spread.least:.2f} to {spread.greatest:.2f})"


def measure(rounds: int) -> tuple[Taken, int]:
    """Return what was taken, and how many figures the watchers have seen."""
    with ExitStack() as stack:
        stack.enter_context(alone())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="console-bench-")))
        load = stack.enter_context(Load(FOLDER, real_time=True, awake=True))
        starter = Starter(load.port, FOLDER, folder, {})
        proxies = []
        for name in (FIRST, SECOND, WATCHED):
            proxies.append(starter.start(name))
            stack.callback(proxies[-1].end)
        watchers = [
            Watcher(f"http://127.0.0.1:{proxies[-1].port}", OPERATOR_KEY) for _ in range(TABS)
        ]
        for watcher in watchers:
            watcher.start()
            stack.callback(watcher.leave)
        stack.callback(proxies[-1].resume, real_time=True)  # a stopped one lets nobody leave
        for proxy in proxies:
            proxy.suspend()
        session = Session(load, proxies, real_time=True)
        for number in range(rounds):
            session.round(number, chosen())
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
        return session.taken, sum(watcher.figures for watcher in watchers)


def main(given: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.console.gateway", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=5, help="of all measurements (5)")
    rounds = parser.parse_args(given).rounds
    taken, figures = measure(rounds)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {rounds} rounds, {figures} events read by ten watchers\n")
    print("\n".join(table(taken)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
