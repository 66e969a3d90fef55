"""The report's charts: SVG that takes its colours from the page. Pure; by hand.

Each returns one ``<svg>`` with a title for screen readers. All numbers are formatted here, all
texts are escaped.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.accept.markup import e
from appliance.overheads import GIB

WIDTH = 720
_LABEL, _VALUE = 286, 92  # of a row of bars: what stands left and right of it
_ROW, _BAR = 40, 16
SERIES = 10  # colours that the page has


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart: ``least`` and ``most`` are a range, or the same value."""

    label: str
    least: float
    most: float
    shown: str
    note: str = ""
    is_ours: bool = False


def bars(title: str, rows: Sequence[Bar], floor: tuple[float, str] | None = None) -> str:
    """Return horizontal bars, a range in two tones; ``floor`` is a value to mark, and its name."""
    top = 26 if floor else 6
    height = top + _ROW * len(rows) + 4
    room = WIDTH - _LABEL - _VALUE
    highest = max((*(row.most for row in rows), floor[0] if floor else 0, 1e-9))

    def x(value: float) -> float:
        return _LABEL + room * value / highest

    body: list[str] = []
    for number, row in enumerate(rows):
        y = top + _ROW * number
        kind = "ours" if row.is_ours else "theirs"
        middle = y + _ROW / 2
        label_y = middle - 3 if row.note else middle + 4
        body.append(_text(_LABEL - 12, label_y, row.label, "label", "end"))
        if row.note:
            body.append(_text(_LABEL - 12, middle + 13, row.note, "note", "end"))
        body.append(_rect(_LABEL, middle - _BAR / 2, room, _BAR, "track"))
        if row.most > row.least:
            body.append(
                _rect(_LABEL, middle - _BAR / 2, x(row.most) - _LABEL, _BAR, f"{kind} pale")
            )
        body.append(_rect(_LABEL, middle - _BAR / 2, x(row.least) - _LABEL, _BAR, kind))
        body.append(_text(WIDTH, middle + 4, row.shown, "value", "end"))
    if floor:
        body.append(_line(x(floor[0]), top - 4, x(floor[0]), height - 2, "floor"))
        body.append(_text(x(floor[0]) + 4, top - 10, floor[1], "floor-text"))
    return _svg(title, height, body)


# ---- the memory plan


def memory_bars(rows: Sequence[Mapping[str, Any]], host: Mapping[str, int]) -> str:
    """Return the plan's rows and the machine's memory now, each as one stacked bar."""
    planned = [(str(row["name"]), max(0, int(row["bytes"]))) for row in rows]
    total = max(1, sum(size for _, size in planned), host.get("MemTotal", 0))
    colours = [colour(number, name) for number, (name, _) in enumerate(planned)]
    body = [*_stack("plan", planned, total, 8, colours)]
    if host.get("MemTotal"):
        available = host.get("MemAvailable", 0)
        now = [("in use", host["MemTotal"] - available), ("available", available)]
        body += _stack("now", now, total, 58, ("sused", "sfree"))
    return _svg("Memory: the plan and what is there", 104 if host.get("MemTotal") else 54, body)


def colour(number: int, name: str) -> str:
    """Return the class of a plan's part; what is left over has the colour of what is available."""
    return "sfree" if name == "left" else f"s{number % SERIES + 1}"


def _stack(
    name: str, parts: Sequence[tuple[str, int]], total: int, y: float, colours: Sequence[str]
) -> Iterator[str]:
    left, room = 44.0, WIDTH - 44.0
    yield _text(left - 10, y + 24, name, "label", "end")
    for (part, size), kind in zip(parts, colours, strict=True):
        wide = room * size / total
        if wide < 0.5:
            continue
        title = f"<title>{e(part)}: {gib(size)} GiB</title>"
        yield _rect(left, y, max(0.5, wide - 1), 38, kind, title)
        if wide > 62:
            yield _text(left + wide / 2, y + 17, part.replace("_", " "), "inside", "middle")
            yield _text(left + wide / 2, y + 31, f"{gib(size)} GiB", "inside", "middle")
        left += wide


# ---- memory over time

_LEFT, _TOP, _BOTTOM, _PLOT = 46, 34, 24, 190
_CLOSE = 14  # of two labels, one above the other


def timeline(steps: Sequence[Mapping[str, Any]], floors: Mapping[str, int]) -> str:
    """Return MemAvailable over the run, its steps as bands, the floors as lines."""
    points = [(at, size) for step in steps for at, size in step["points"]]
    end = max((float(step["to_s"]) for step in steps), default=1.0) or 1.0
    highest = 1.08 * float(max((*(size for _, size in points), *floors.values(), 1)))

    def x(at: float) -> float:
        return _LEFT + (WIDTH - _LEFT - 4) * at / end

    def y(size: float) -> float:
        return _TOP + _PLOT * (1 - size / highest)

    body: list[str] = []
    for number, step in enumerate(steps):
        left, right = x(step["from_s"]), x(step["to_s"])
        kind = "band" if number % 2 else "band odd"
        body.append(_rect(left, _TOP, max(0.5, right - left), _PLOT, kind,
                          f"<title>{e(step['title'])}</title>"))  # fmt: skip
        name = _fitting(str(step["title"]), right - left)
        body.append(_text((left + right) / 2, _TOP - 8, name, "note", "middle"))
    for tick in _ticks(highest / GIB):
        body.append(_line(_LEFT, y(tick * GIB), WIDTH - 4, y(tick * GIB), "grid"))
        body.append(_text(_LEFT - 8, y(tick * GIB) + 4, f"{tick:g}", "note", "end"))
    for tick in _ticks(end):
        body.append(_text(x(tick), _TOP + _PLOT + 16, f"{tick:g} s", "note", "middle"))
    if points:
        line = " ".join(f"{x(at):.1f},{y(size):.1f}" for at, size in points)
        foot = f"{x(points[-1][0]):.1f},{y(0):.1f} {x(points[0][0]):.1f},{y(0):.1f}"
        body.append(f'<polygon class="area" points="{line} {foot}"/>')
        body.append(f'<polyline class="line" points="{line}"/>')
        at, least = min(points, key=lambda point: point[1])
        body.append(f'<circle class="dot" cx="{x(at):.1f}" cy="{y(least):.1f}" r="4"/>')
        side = "end" if x(at) > WIDTH - 150 else "start"
        body.append(_text(x(at) + (-8 if side == "end" else 8), y(least) + 16,
                          f"least {gib(least)} GiB", "value", side))  # fmt: skip
    for names, size in _told_apart(floors, highest):
        body.append(_text(WIDTH - 6, y(size) - 5, names, "floor-text", "end"))
    for size in set(floors.values()):
        body.append(_line(_LEFT, y(size), WIDTH - 4, y(size), "floor"))
    body.append(_text(_LEFT - 8, _TOP - 8, "GiB", "note", "end"))
    return _svg("MemAvailable over the run", _TOP + _PLOT + _BOTTOM, body)


def _fitting(title: str, room: float) -> str:
    """Return what of a step's title fits over its band: all, its first word, or nothing."""
    words = (title, title.partition(" ")[0])
    return next((word for word in words if room > 6.2 * len(word) + 4), "")


def _told_apart(floors: Mapping[str, int], highest: float) -> list[tuple[str, int]]:
    """Return the floors' labels and heights, the highest first; those too close share one."""
    labels: list[tuple[str, int]] = []
    for name, size in sorted(floors.items(), key=lambda floor: -floor[1]):
        text = f"{name} {gib(size)}"
        if labels and (labels[-1][1] - size) / highest * _PLOT < _CLOSE:
            labels[-1] = (f"{labels[-1][0]}, {text}", labels[-1][1])
        else:
            labels.append((text, size))
    return [(f"{text} GiB", size) for text, size in labels]


def _ticks(highest: float) -> list[float]:
    """Return four to eight round values from 0 to at most ``highest``."""
    step = 1e-3
    while highest / step > 8:
        step *= 2.5 if str(step).strip("0.").startswith("2") else 2
    return [round(step * number, 6) for number in range(int(highest / step) + 1)]


# ---- shapes


def gib(size_bytes: float) -> str:
    """Return a size in GiB, as short as it is still told apart."""
    size = size_bytes / GIB
    return f"{size:.0f}" if size >= 100 else f"{size:.1f}"


def _svg(title: str, height: float, body: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:g}" role="img">'
        f"<title>{e(title)}</title>{''.join(body)}</svg>"
    )


def _rect(x: float, y: float, w: float, h: float, kind: str, inside: str = "") -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" width="{max(0.0, w):.1f}" height="{h:.1f}" rx="2"'
    return f'<rect class="{kind}" {where}>{inside}</rect>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    where = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line class="{kind}" {where}/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {where}>{e(text)}</text>'
