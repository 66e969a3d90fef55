"""``python -m tests.bench.gateway.timeline``: where the time of one request goes, step by step.

The appliance runs with a mark at the border of each step; of all requests that took the same way
the middle length of each step is printed. A mark costs about a microsecond, so that the whole is
a little longer than without. Waiting for the engine is told apart: it is no work of ours.
"""

import argparse
import functools
import inspect
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEPS = (
    ("uvicorn reads", "appliance.httpserver:ClientProtocol.data_received"),
    ("the door", "appliance.door:Door._pass"),
    ("the relay", "appliance.relay:Relay.carry"),
    ("the body is taken", "appliance.bodies:Bodies.take"),
    ("the limit is fitted", "appliance.bodies:Bodies.fit"),
    ("the engine is asked", "appliance.upstream:Upstream.ask"),
    ("its bytes are written", "appliance.connection:Connection.begin"),
    ("the engine's bytes are read", "appliance.connection:Connection.data_received"),
    ("the reply is passed", "appliance.reply:Replies._pass"),
    ("the stream runs", "appliance.stream:Stream.run"),
    ("a piece is looked at", "appliance.stream:Stream._take"),
    ("a piece is sent", "appliance.stream:Stream._pass"),
    ("tokens are counted", "appliance.reply:Replies._count_tokens"),
    ("log and metrics", "appliance.relay:Relay._account"),
)
WAITED = ("its bytes are written <", "the engine's bytes are read >")
FIRST, LAST = "uvicorn reads >", "the door <"
Marks = list[tuple[str, int]]


def arguments() -> argparse.Namespace:
    """Return what was asked for on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gateway.timeline")
    parser.add_argument("--body", default="2k", help="2k, 300k, 1m, agent1m, again1m or 5m")
    parser.add_argument("--count", type=int, default=400, help="requests, one after another")
    return parser.parse_args()


def watch(log: Path) -> None:
    """Set the marks, then run the appliance; its requests' marks are written to ``log``."""
    marks: Marks = []
    with log.open("w") as file:

        def mark(name: str) -> None:
            if name == FIRST and marks and marks[-1][0] == LAST:
                file.write(json.dumps(marks) + "\n")
                marks.clear()
            marks.append((name, time.perf_counter_ns()))

        for name, place in STEPS:
            _wrap(name, place, mark)
        from appliance.cli import main

        sys.argv = ["appliance", "run"]
        sys.exit(main())


def _wrap(name: str, place: str, mark: Callable[[str], None]) -> None:
    module, _, path = place.partition(":")
    owner, _, attribute = path.partition(".")
    holder = getattr(__import__(module, fromlist=[owner]), owner)
    whole = getattr(holder, attribute)

    @functools.wraps(whole)
    async def later(*args: Any, **more: Any) -> Any:
        mark(f"{name} >")
        try:
            return await whole(*args, **more)
        finally:
            mark(f"{name} <")

    @functools.wraps(whole)
    def now(*args: Any, **more: Any) -> Any:
        mark(f"{name} >")
        try:
            return whole(*args, **more)
        finally:
            mark(f"{name} <")

    setattr(holder, attribute, later if inspect.iscoroutinefunction(whole) else now)


def told(log: Path) -> list[tuple[str, str, float]]:
    """Return the steps of the way that most requests took: from, to, and microseconds."""
    runs: list[Marks] = [json.loads(line) for line in log.read_text().splitlines()]
    ways = Counter(tuple(name for name, _ in run) for run in runs)
    (way, _), *_ = ways.most_common(1)
    same = [run for run in runs if tuple(name for name, _ in run) == way]
    steps = []
    for n in range(1, len(way)):
        lengths = [run[n][1] - run[n - 1][1] for run in same]
        steps.append((way[n - 1], way[n], statistics.median(lengths) / 1e3))
    return steps


def main() -> int:
    """Measure, and print the steps."""
    from tests.bench.gateway.load import Load
    from tests.bench.gateway.proxies import KEY, ROOT, Starter
    from tests.bench.gateway.session import FOLDER, alone

    asked = arguments()
    with alone(), tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "marks"
        code = "from tests.bench.gateway.timeline import watch; from pathlib import Path; "
        code += f"watch(Path({str(log)!r}))"
        with Load(FOLDER, real_time=True, awake=True) as load:
            starter = Starter(load.port, FOLDER, Path(folder), {}, ROOT)
            proxy = starter.start("appliance", code)
            try:
                proxy.resume(real_time=True)
                run = f"requests streams=1 count={asked.count} warm=20 body={asked.body}"
                load.ask(f"{run} port={proxy.port} key={KEY} pids={proxy.pids()[0]}")
            finally:
                proxy.end()
        steps = told(log)
    ours = sum(length for start, end, length in steps if (start, end) != WAITED)
    for start, end, length in steps:
        note = "  (the engine)" if (start, end) == WAITED else ""
        print(f"{start:>32} -> {end:32} {length:8.1f} us{note}")
    print(f"{'in all, without the engine':>32}    {'':32} {ours:8.1f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
