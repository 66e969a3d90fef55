"""The report as a chart: a dot for each share, a line for its interval. Pure; SVG by hand.

matplotlib would bring 40 MB into the appliance to draw some lines.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from appliance.bench.report import ArmReport, Report
from appliance.bench.score import Rate

_COLOURS = ("#0b7a75", "#b5485d", "#4c78a8", "#e08e45", "#7a5195", "#58b4ae")
_LEFT, _WIDTH, _RIGHT = 130, 520, 30
_STEP = 9  # between two arms of a row
_GAP = 10  # between two rows
_TOP = 54
_TICKS = (0, 25, 50, 75, 100)


def svg(report: Report) -> str:
    """Return the share of exact paths by stratum and by task, each arm in its colour."""
    body: list[str] = []
    end: float = _TOP + 16 * len(report.arms)
    for title, name in (("by kind of path", "strata"), ("by task", "tasks")):
        panel, end = _panel(report.arms, title, name, end + 26)
        body += panel
    width, height = _LEFT + _WIDTH + _RIGHT, end + 40
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="11">'
    )
    back = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    return "\n".join((head, back, *_legend(report), *body, "</svg>")) + "\n"


def _legend(report: Report) -> Iterator[str]:
    about = report.about
    yield _text(_LEFT, 20, "Paths that came back exactly, in percent (Wilson 95 %)", size=14)
    told = f"{about['model']}, {about['cases']} cases, seed {about['seed']}, {about['begun']}"
    yield _text(_LEFT, 37, told, colour="#555555")
    for place, part in enumerate(report.arms):
        y = _TOP + 16 * place
        yield _dot(_LEFT + 6, y - 4, _colour(place))
        yield _text(_LEFT + 18, y, f"{part.arm.name}: {_words(part.total.exact)}")


def _panel(arms: Sequence[ArmReport], title: str, name: str, top: float) -> tuple[list[str], float]:
    """Return one panel's shapes, and where it ends."""
    tallies: list[Mapping[str, Rate]] = [
        {key: tally.exact for key, tally in getattr(part, name).items()} for part in arms
    ]
    rows = list(dict.fromkeys(key for part in tallies for key in part))
    height = _STEP * len(arms) + _GAP
    bottom = top + 12 + height * len(rows)
    shapes = [_text(_LEFT, top, title, size=12)]
    for tick in _TICKS:
        x = _x(tick / 100)
        shapes.append(_line(x, top + 8, x, bottom, "#dddddd", 1))
        shapes.append(_text(x, bottom + 14, str(tick), anchor="middle", colour="#555555"))
    for number, key in enumerate(rows):
        begin = top + 14 + height * number
        shapes.append(_text(_LEFT - 8, begin + height / 2, key, anchor="end"))
        for place, part in enumerate(tallies):
            if key in part:
                shapes += _mark(part[key], begin + _STEP * (place + 0.5), _colour(place))
    return shapes, bottom + 14


def _mark(rate: Rate, y: float, colour: str) -> list[str]:
    if rate.share is None:
        return []
    low, high = rate.interval
    return [_line(_x(low), y, _x(high), y, colour, 2), _dot(_x(rate.share), y, colour)]


def _words(rate: Rate) -> str:
    return "nothing asked" if rate.share is None else f"{rate.share:.1%} of {rate.total}"


def _x(share: float) -> float:
    return round(_LEFT + share * _WIDTH, 1)


def _colour(place: int) -> str:
    return _COLOURS[place % len(_COLOURS)]


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:g}" cy="{y:g}" r="3.5" fill="{colour}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> str:
    where = f'x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"'
    return f'<line {where} stroke="{colour}" stroke-width="{width:g}"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 11, colour: str = "#222222"
) -> str:
    where = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" fill="{colour}"'
    return f"<text {where}>{escape(text)}</text>"
