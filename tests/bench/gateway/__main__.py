"""``python -m tests.bench.gateway``: measure, print the table, keep the results."""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from appliance.settings import Settings
from tests.bench.gateway.goals import goals, hold
from tests.bench.gateway.load import Load
from tests.bench.gateway.plan import ALL, DIRECT, GUARDED, NGINX, OURS, Spec, figures, specs
from tests.bench.gateway.proxies import KEY, ROOT, Proxy, Starter
from tests.bench.gateway.table import everything, table

FOLDER = ROOT / "build" / "bench"
GUARD = "path_guard"  # the setting of the path guard, once there is one
QUICK = (DIRECT, NGINX, OURS)

Taken = dict[str, dict[str, list[dict[str, float] | None]]]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what was asked for on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gateway", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the appliance and nginx, 2 minutes")
    parser.add_argument("--rows", default="1,2,3,4,5,6,7,8", help="rows of the table, as 1,4")
    parser.add_argument("--only", default="", help="measurements whose name begins so")
    parser.add_argument("--repeats", type=int, default=0, help="rounds; 4 with --quick, else 5")
    parser.add_argument("--proxies", default="", help="who takes part, as direct,nginx,appliance")
    parser.add_argument("--set", action="append", default=[], help="a setting, as log_format=json")
    parser.add_argument("--tree", type=Path, default=ROOT, help="where the appliance is taken from")
    parser.add_argument("--no-real-time", action="store_true", help="leave the scheduler alone")
    parser.add_argument("--json", type=Path, default=FOLDER / "results.json", help="all figures")
    parser.add_argument("--markdown", type=Path, help="write the table there, as RESULTS.md")
    return parser.parse_args(given)


class Session:
    """One benchmark: the load program, the proxies, and what was measured."""

    def __init__(self, load: Load, proxies: Sequence[Proxy], *, real_time: bool) -> None:
        self._load = load
        self._proxies = {proxy.name: proxy for proxy in proxies}
        self._real_time = real_time
        self.taken: Taken = defaultdict(lambda: defaultdict(list))

    def round(self, number: int, wanted: Sequence[Spec]) -> None:
        """Run each measurement once with each proxy, beginning with another one each round."""
        names = list(self._proxies)
        turn = number % len(names)
        for spec in wanted:
            for name in names[turn:] + names[:turn]:
                if name in spec.proxies or (name == GUARDED and spec.row in (3, 6)):
                    self.taken[spec.key][name].append(self._measure(spec, self._proxies[name]))

    def _measure(self, spec: Spec, proxy: Proxy) -> dict[str, float] | None:
        proxy.resume(real_time=self._real_time)
        try:
            pids = ",".join(map(str, proxy.pids()))
            line = spec.line(proxy.name, port=proxy.port or self._load.port, key=KEY, pids=pids)
            told = self._load.ask(line)
            if told["fault"]:
                print(f"{spec.key} {proxy.name}: {told['fault'][:300]}", file=sys.stderr)
                if proxy.name == OURS:
                    print(proxy.tail(), file=sys.stderr)
                return None
            return {**figures(told), "rss_mb": proxy.rss_bytes() / 1e6}
        finally:
            proxy.suspend()


def measure(asked: argparse.Namespace) -> Taken:
    """Start everything, run the rounds, end everything."""
    names = asked.proxies.split(",") if asked.proxies else list(QUICK if asked.quick else ALL)
    settings = dict(pair.split("=", 1) for pair in asked.set)
    rows = {int(row) for row in asked.rows.split(",")}
    wanted = [
        spec
        for spec in specs(quick=asked.quick)
        if spec.row in rows and spec.key.startswith(asked.only)
    ]
    real_time = not asked.no_real_time
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-bench-")))
        load = stack.enter_context(Load(FOLDER, real_time=real_time))
        starter = Starter(load.port, FOLDER, folder, settings, asked.tree)
        starters = dict.fromkeys(names, starter)
        if GUARD in Settings.model_fields and OURS in names:
            guarded = {**settings, GUARD: "observe"}
            starters[GUARDED] = Starter(load.port, FOLDER, folder, guarded, asked.tree)
        proxies = []
        for name, starter in starters.items():
            proxies.append(starter.start(name))
            stack.callback(proxies[-1].end)
            proxies[-1].suspend()
        session = Session(load, proxies, real_time=real_time)
        repeats = asked.repeats or (4 if asked.quick else 5)
        for number in range(repeats):
            began = time.monotonic()
            session.round(number, wanted)
            print(
                f"round {number + 1} of {repeats}: {time.monotonic() - began:.0f} s",
                file=sys.stderr,
            )
        return session.taken


def machine() -> str:
    """Return what this was measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{model}, {os.cpu_count()} cores, {system}"


def main() -> int:
    """Measure and tell. 0 also where a goal is missed: the table says so."""
    asked = arguments()
    taken = measure(asked)
    lines = [line for goal in goals() if goal.key in taken for line in [hold(goal, taken)]]
    now = datetime.now(UTC)
    about = (
        f"{now:%d %b %Y %H:%M} UTC, {machine()}, load average {os.getloadavg()[0]:.1f} at the end"
    )
    text = f"{about}\n\n{table(lines)}\n\n{everything(taken)}\n"
    print(text)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps({"about": about, "taken": taken}, indent=1))
    if asked.markdown:
        asked.markdown.write_text("# What the gateway costs\n\n" + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
