"""``python -m tests.bench.paths.ledger``: the CPU of reading a ledger against the conversation.

A step is what runs between two turns of others on the event loop. A figure is the CPU of the
thread that reads, so that what else the machine does counts little.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from appliance.pathhistory import Reader
from appliance.pathledger import CALL, CONTENT, TRUSTED, WEB, Ledger
from tests.bench.checkpoint.results import machine
from tests.bench.paths.conversation import body, messages, turn

SIZES = (1_000, 10_000, 50_000, 100_000, 200_000)
ALL = TRUSTED | CONTENT | CALL | WEB
NEXT = 10_000  # the number of a turn that no conversation holds yet
GOAL_MS, GOAL_STEP_MS = 20.0, 0.5  # of a turn's CPU at 200,000 tokens; of a step
WHAT = {"cold": "the first time", "same": "nothing new", "turn": "one more turn"}


@dataclass(frozen=True)
class Taken:
    """One reading: ``what`` is a key of WHAT; the rest are milliseconds of CPU."""

    tokens: int
    what: str
    size: int  # bytes of the body
    paths: int  # in the ledger
    ms: float
    longest_ms: float
    p95_ms: float
    steps: int


def read(reader: Reader, tokens: int, what: str, data: bytes) -> Taken:
    """Read a body a step at a time, and time each."""
    steps: list[float] = []
    reading = reader.read(data)
    while True:
        began = time.thread_time()
        try:
            next(reading)
        except StopIteration as end:
            steps.append((time.thread_time() - began) * 1000)
            ledger: Ledger = end.value
            break
        steps.append((time.thread_time() - began) * 1000)
    paths = sum(1 for _ in ledger.paths(ALL))
    p95 = sorted(steps)[int(len(steps) * 0.95)] if len(steps) > 1 else steps[0]
    return Taken(tokens, what, len(data), paths, sum(steps), max(steps), p95, len(steps))


def measure(repeats: int) -> list[Taken]:
    """Read each conversation anew, again, and with another turn."""
    taken: list[Taken] = []
    gc.collect()
    gc.freeze()  # as the appliance does at its start
    for tokens in SIZES:
        said = messages(tokens)
        first, grown = body(said), body([*said, *turn(NEXT)])
        for _ in range(repeats):
            reader = Reader(time.perf_counter)
            taken += [
                read(reader, tokens, "cold", first),
                read(reader, tokens, "same", first),
                read(reader, tokens, "turn", grown),
            ]
        print(f"{tokens} tokens: read", flush=True)
    return taken


def _cells(some: Iterable[float]) -> str:
    found = list(some)
    return f"{min(found):.2f} / {statistics.median(found):.2f}"


def table(taken: list[Taken]) -> list[str]:
    """Return the figures as a table: the best of the repeats, and their middle."""
    lines = [
        "| tokens | body | paths | read | CPU, ms | longest step, ms | p95 step, ms | steps |",
        "|-------:|-----:|------:|------|--------:|-----------------:|-------------:|------:|",
    ]
    for tokens in SIZES:
        for what, words in WHAT.items():
            some = [one for one in taken if (one.tokens, one.what) == (tokens, what)]
            lines.append(
                f"| {tokens:,} | {some[0].size / 1000:.0f} kB | {some[0].paths} | {words} "
                f"| {_cells(one.ms for one in some)} | {_cells(one.longest_ms for one in some)} "
                f"| {_cells(one.p95_ms for one in some)} "
                f"| {statistics.median(one.steps for one in some):.0f} |"
            )
    return lines


def goals(taken: list[Taken]) -> list[str]:
    """Return each goal, what was found, and whether it is met by the middle of the repeats."""
    last = [one for one in taken if one.tokens == SIZES[-1]]
    grown = [one for one in last if one.what == "turn"]
    cost = statistics.median(one.ms for one in grown)
    lines = ["| goal at 200,000 tokens | found | met |", "|------|------:|-----|"]
    rows = [(f"one more turn costs at most {GOAL_MS:.0f} ms of CPU", cost, GOAL_MS)]
    for what, words in WHAT.items():
        longest = statistics.median(one.longest_ms for one in last if one.what == what)
        rows.append((f"{words}: no step is over {GOAL_STEP_MS} ms", longest, GOAL_STEP_MS))
    for words, found, most in rows:
        met = "yes" if found <= most else "**no**"
        lines.append(f"| {words} | {found:.2f} ms | {met} |")
    return lines


def render(taken: list[Taken], about: str) -> str:
    """Return LEDGER.md."""
    return "\n".join([
        "# What reading the ledger costs",
        "",
        f"Measured {about}. `make bench-ledger` measures again.",
        "",
        "The conversation is an agent's (`conversation.py`): files, listings and finds of 7.4 kB a",
        "turn, four characters a token, 43 kB of tools besides. It is read the first time, once",
        "more with nothing new, and with one more turn. Figures are CPU of the thread: the best of",
        "the repeats / their middle. Between two steps others have their turn. The machine was",
        "shared, which lengthens the longest steps more than the rest. A step of some milliseconds",
        "is one in which Python looked through its memory for garbage; it counts here too.",
        "",
        *table(taken),
        "",
        *goals(taken),
        "",
        "![CPU against the conversation's size](ledger.png)",
        "",
    ])  # fmt: skip


def main() -> None:
    """Measure, tell, and write the table and what the chart is drawn from."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--markdown", type=Path, default=Path("tests/bench/paths/LEDGER.md"))
    parser.add_argument("--json", type=Path, default=Path("build/bench-ledger.json"))
    asked = parser.parse_args()
    taken = measure(asked.repeats)
    about = f"on {datetime.now(UTC):%Y-%m-%d}, {asked.repeats} repeats; {machine()}"
    print("\n".join([*table(taken), "", *goals(taken)]))
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    told = {"about": about, "taken": [asdict(one) for one in taken]}
    asked.json.write_text(json.dumps(told))
    asked.markdown.write_text(render(taken, about))


if __name__ == "__main__":
    main()
