"""The table and all figures behind it, as Markdown. Pure."""

import statistics
from collections.abc import Mapping, Sequence

from tests.bench.gateway.goals import Goal, Line, Rounds, Spread
from tests.bench.gateway.plan import ALL, GUARDED

VERDICT = {True: "yes", False: "**no**", None: "not measured"}
HEAD = "| row | figure | ours | held against | ratio or difference (min … max) | goal | met |"
TIMES = "\u00d7"
SHOWN: tuple[str, ...] = (
    "cpu_us",
    "ttft_p50_us",
    "ttft_p99_us",
    "delay_p50_us",
    "delay_p99_us",
    "left_p50_us",
)
SHOWN += ("left_p99_us", "missed", "stall_p50_us", "stall_max_us", "open", "rss_mb")


def number(value: float) -> str:
    """Return a figure with three digits that count, at most."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return (
        f"{value:.1f}"
        if abs(value) >= 10
        else f"{value:.2f}"
        if abs(value) >= 0.1
        else f"{value:.4f}"
    )


def _limit(goal: Goal) -> str:
    if goal.how == "ratio":
        return f"≤ 1/{1 / goal.limit:.0f}" if goal.limit < 1 else f"≤ {goal.limit:g}{TIMES}"
    return f"≤ {goal.limit:g} {goal.unit}".rstrip()


def _held(line: Line) -> str:
    held, goal = line.held, line.goal
    if held is None:
        return "-"
    if goal.how == "ratio" and goal.limit < 1:
        low, mid, high = (1 / v for v in (held.greatest, held.middle, held.least))
        return f"1/{mid:.1f} (1/{high:.1f} … 1/{low:.1f})"
    sign = TIMES if goal.how == "ratio" else f" {goal.unit}".rstrip()
    form = "{:.2f}".format if goal.how == "ratio" else number
    return f"{form(held.middle)}{sign} ({form(held.least)} … {form(held.greatest)})"


def _own(spread: Spread | None, unit: str) -> str:
    return "-" if spread is None else f"{number(spread.middle)} {unit}".rstrip()


def row(line: Line) -> str:
    """Return one line of the table."""
    goal = line.goal
    verdict = VERDICT[line.met]
    if line.met is None and goal.ours == GUARDED:
        verdict = "there is no path guard yet"
    peer = f"{goal.peer}: {_own(line.peer, goal.unit)}" if goal.peer else "-"
    if goal.peer == goal.ours:
        peer = _own(line.peer, goal.unit)
    cells = (
        str(goal.row),
        goal.what,
        _own(line.ours, goal.unit),
        peer,
        _held(line),
        _limit(goal),
        verdict,
    )
    return f"| {' | '.join(cells)} |"


def table(lines: Sequence[Line]) -> str:
    """Return the whole table."""
    return "\n".join([HEAD, "|---" * 7 + "|", *(row(line) for line in lines)])


def report(about: str, lines: Sequence[Line], rounds: Rounds) -> str:
    """Return the page."""
    kept = sum(line.met is True for line in lines)
    counted = sum(line.met is not None for line in lines)
    return (
        f"# What the gateway costs\n\n{about}\n\n"
        "Ours and the peer's figures are the middle of the repeats; a ratio or a difference is\n"
        "taken within one repeat, where both ran within seconds. README.md tells how; PROFILE.md\n"
        "tells why goals are missed.\n\n"
        f"## The goals: {kept} of {counted} are met\n\n{table(lines)}\n\n"
        f"## All figures\n\n{everything(rounds)}\n"
    )


def everything(rounds: Rounds) -> str:
    """Return the middle of each figure that was measured, of each proxy."""
    head = "| measurement | figure | " + " | ".join(ALL) + " |"
    rows = [head, "|---" * (2 + len(ALL)) + "|"]
    for key, by_proxy in rounds.items():
        for figure in SHOWN:
            cells = [_middle(by_proxy, proxy, figure) for proxy in ALL]
            if any(cells):
                rows.append(f"| {key} | {figure} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _middle(
    by_proxy: Mapping[str, Sequence[Mapping[str, float] | None]], proxy: str, figure: str
) -> str:
    values = [taken[figure] for taken in by_proxy.get(proxy, ()) if taken and figure in taken]
    return number(statistics.median(values)) if values else ""
