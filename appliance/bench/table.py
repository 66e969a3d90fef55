"""The report as Markdown, for a terminal as for a README. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from appliance.bench.report import Report, Tally, notes
from appliance.bench.score import Rate

_HEAD = ("", "exact", "glitched", "other path", "no path", "asked")


def markdown(report: Report) -> str:
    """Return the whole report."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    about = report.about
    yield f"Paths of {about['model']} at {about['base_url']}, seed {about['seed']},"
    yield f"{about['cases']} cases, temperature {about['temperature']:g}, begun {about['begun']}."
    yield "Shares in percent, with Wilson's 95 % interval."
    for note in notes(report):
        yield f"\n**Note:** {note}."
    yield ""
    yield from _rows([(part.arm.name, part.total) for part in report.arms])
    yield from _kind_lines(report)
    yield from _exact_lines("kind of path", report, [part.strata for part in report.arms])
    yield from _exact_lines("task", report, [part.tasks for part in report.arms])


def _exact_lines(title: str, report: Report, parts: Sequence[Mapping[str, Tally]]) -> Iterator[str]:
    names = list(dict.fromkeys(name for part in parts for name in part))
    rows = []
    for name in names:
        there = [part[name].exact if name in part else Rate(0, 0) for part in parts]
        rows.append((name, str(max(rate.total for rate in there)), *map(percent, there)))
    yield ""
    yield f"Exact by {title}:"
    yield ""
    yield from _table(("", "asked", *(part.arm.name for part in report.arms)), rows)


def _kind_lines(report: Report) -> Iterator[str]:
    kinds = sorted({kind for part in report.arms for kind in part.total.kinds})
    if not kinds:
        return
    yield ""
    yield "Glitches by kind:"
    yield ""
    yield from _table(
        ("", *kinds),
        [
            (part.arm.name, *(str(part.total.kinds.get(kind, 0)) for kind in kinds))
            for part in report.arms
        ],
    )


def _rows(named: Sequence[tuple[str, Tally]]) -> Iterator[str]:
    yield from _table(_HEAD, [(name, *_cells(tally)) for name, tally in named])


def _cells(tally: Tally) -> tuple[str, ...]:
    return (
        percent(tally.exact),
        percent(tally.glitched),
        str(tally.other),
        str(tally.none),
        str(tally.exact.total) + (f" (+{tally.unfit} too long)" if tally.unfit else ""),
    )


def percent(rate: Rate) -> str:
    """Return a rate with its interval, like "97.8 (95.1 to 99.0)"; "-" for none asked."""
    if rate.share is None:
        return "-"
    low, high = rate.interval
    return f"{rate.share * 100:.1f} ({low * 100:.1f} to {high * 100:.1f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = cells
        right = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        return f"| {' | '.join((first.ljust(widths[0]), *right))} |"

    yield line(head)
    yield f"|{'-' * (widths[0] + 2)}|" + "".join(f"{'-' * (w + 1)}:|" for w in widths[1:])
    for row in rows:
        yield line(row)
