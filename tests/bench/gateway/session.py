"""One benchmark from the first process to the last: who is started, and in which order they run."""

import fcntl
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.settings import Settings
from tests.bench.gateway.load import Load
from tests.bench.gateway.plan import GUARDED, OURS, Spec, best, figures
from tests.bench.gateway.proxies import KEY, ROOT, Proxy, Starter

FOLDER = ROOT / "build" / "bench"
GUARD = "path_guard"  # the setting of the path guard, once there is one
GUARDED_ROWS = (3, 6)

Taken = dict[str, dict[str, list[dict[str, float] | None]]]


@dataclass(frozen=True)
class Choices:
    """What was chosen about a benchmark. ``within_s`` is how long it may take, in seconds."""

    names: tuple[str, ...]
    specs: tuple[Spec, ...]
    settings: Mapping[str, str]
    repeats: int
    within_s: float
    tree: Path = ROOT
    real_time: bool = True
    awake: bool = True


class Session:
    """The load program, the proxies, and what was measured."""

    def __init__(self, load: Load, proxies: Sequence[Proxy], *, real_time: bool) -> None:
        self._load = load
        self._proxies = {proxy.name: proxy for proxy in proxies}
        self._real_time = real_time
        self.taken: Taken = defaultdict(lambda: defaultdict(list))

    def round(self, number: int, wanted: Sequence[Spec]) -> None:
        """Run each measurement with each proxy, beginning with another one each round."""
        names = list(self._proxies)
        turn = number % len(names)
        for spec in wanted:
            tries: dict[str, list[dict[str, float] | None]] = defaultdict(list)
            for name in (names[turn:] + names[:turn]) * spec.tries:
                if name in spec.proxies or (name == GUARDED and spec.row in GUARDED_ROWS):
                    tries[name].append(self._measure(spec, self._proxies[name]))
            for name, taken in tries.items():
                self.taken[spec.key][name].append(best(taken))

    def _measure(self, spec: Spec, proxy: Proxy) -> dict[str, float] | None:
        try:
            proxy.resume(real_time=self._real_time)
            pids = ",".join(map(str, proxy.pids()))
            line = spec.line(proxy.name, port=proxy.port or self._load.port, key=KEY, pids=pids)
            told = self._load.ask(line)
            fault = told["fault"]
        except RuntimeError as cause:
            fault = str(cause)
        finally:
            rss_bytes = proxy.rss_bytes()
            proxy.suspend()
        if fault:
            print(f"{spec.key} {proxy.name}: {fault[:300]}\n{proxy.tail()}", file=sys.stderr)
            return None
        return {**figures(told), "rss_mb": rss_bytes / 1e6}


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no other benchmark runs from this folder: two would measure one another."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def measure(chosen: Choices) -> Taken:
    """Start everything, run the rounds, end everything."""
    with ExitStack() as stack:
        stack.enter_context(alone())
        began = time.monotonic()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-bench-")))
        load = Load(FOLDER, real_time=chosen.real_time, awake=chosen.awake)
        stack.enter_context(load)
        proxies = []
        for name, settings in _wanted(chosen).items():
            starter = Starter(load.port, FOLDER, folder, settings, chosen.tree)
            proxies.append(starter.start(name))
            stack.callback(proxies[-1].end)
            proxies[-1].suspend()
        session = Session(load, proxies, real_time=chosen.real_time)
        _rounds(session, chosen, began)
        return session.taken


def _wanted(chosen: Choices) -> dict[str, Mapping[str, str]]:
    """Return who takes part, each with the appliance's settings."""
    wanted = dict.fromkeys(chosen.names, chosen.settings)
    if GUARD in Settings.model_fields and OURS in wanted:
        wanted[OURS] = {GUARD: "off", **chosen.settings}
        wanted[GUARDED] = {**chosen.settings, GUARD: "observe"}
    return wanted


def _rounds(session: Session, chosen: Choices, began: float) -> None:
    """Run the rounds, as many as there is time for."""
    longest = 0.0
    for number in range(chosen.repeats):
        start = time.monotonic()
        if start - began + longest > chosen.within_s:
            print(f"no time for more than {number} rounds", file=sys.stderr)
            return
        session.round(number, chosen.specs)
        took = time.monotonic() - start
        longest = max(longest, took)
        print(f"round {number + 1} of {chosen.repeats}: {took:.0f} s", file=sys.stderr)
