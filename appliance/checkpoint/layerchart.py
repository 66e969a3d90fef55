"""Draws the errors over the layers, as an SVG that a browser or a README shows. Pure."""

from collections.abc import Iterator
from xml.sax.saxutils import escape

from appliance.checkpoint.projections import ATTENTION, HEAD
from appliance.checkpoint.surveyed import Survey

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 44
COLOURS = {"q": "#0b7a75", "k": "#b5485d", "v": "#4c78a8", "o": "#c98a1b", HEAD: "#555555"}
LINES = 4  # across the chart


def draw(survey: Survey) -> str:
    """Return the chart: a line for each of q, k, v and o; what stays in BF16 is hollow."""
    most = max((one.error.relative for one in survey.measured), default=0.0)
    top = max(most, survey.keep_above or 0.0, 1e-9) * 1.15
    layers = [one.projection.layer for one in survey.measured if one.projection.layer >= 0]
    chart = _Chart(max(layers, default=0), top)
    head = next((one for one in survey.measured if one.projection.kind == HEAD), None)
    title = f"Relative error |W - Q| / |W| of {survey.choice.kind}, by layer"
    if head:
        title += f"; the head has {head.error.relative:.4f}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
            *chart.frame(),
            *chart.bound(survey.keep_above),
            *(line for kind in ATTENTION for line in _line(chart, survey, kind)),
            "</svg>",
            "",
        ]
    )


def _line(chart: "_Chart", survey: Survey, kind: str) -> Iterator[str]:
    ones = [one for one in survey.measured if one.projection.kind == kind]
    if not ones:
        return
    points = [(chart.x(one.projection.layer), chart.y(one.error.relative)) for one in ones]
    colour = COLOURS[kind]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    for one, (x, y) in zip(ones, points, strict=True):
        fill = "white" if one.kept else colour
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{fill}" stroke="{colour}"/>'
    at = LEFT + 50 * ATTENTION.index(kind)
    yield f'<text x="{at}" y="{TOP - 6}" fill="{colour}">{kind}_proj</text>'


class _Chart:
    """Where a layer and an error are on the paper."""

    def __init__(self, last: int, top: float) -> None:
        self._last, self._top = last, top

    def x(self, layer: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * layer / max(self._last, 1)

    def y(self, error: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * error / self._top

    def frame(self) -> Iterator[str]:
        """Yield the lines across with their errors, and the layers below."""
        for step in range(LINES + 1):
            error = self._top * step / LINES
            y = self.y(error)
            yield (
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
                f'stroke="#dddddd"/><text x="{LEFT - 6}" y="{y + 4:.1f}" '
                f'text-anchor="end">{error:.4f}</text>'
            )
        for layer in range(0, self._last + 1, max(1, (self._last + 9) // 10)):
            yield (
                f'<text x="{self.x(layer):.1f}" y="{HEIGHT - BOTTOM + 18}" '
                f'text-anchor="middle">{layer}</text>'
            )
        yield f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">layer</text>'

    def bound(self, keep_above: float | None) -> Iterator[str]:
        """Yield the line above which a matrix stays as it is."""
        if keep_above is not None:
            y = self.y(keep_above)
            yield (
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
                'stroke="#b5485d" stroke-dasharray="5 4"/>'
            )
