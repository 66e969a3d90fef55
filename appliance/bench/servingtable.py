"""The report of speed as Markdown: yours, the ratios, what others publish, what it means. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from appliance.bench.servingreport import Point, Ratio, SpeedReport, Spread

GIB = 2**30
MEANING = """\
- **pp tok/s** (prefill): tokens of the prompts, over the time to the first piece of an answer less
  the time of an empty request.
- **tg tok/s** (decode): tokens after the first, over the time between first and last; of all
  requests at once together, and of one. **peak**: the best second.
- **TTFT**: from sending a request to the first token of its answer, as a client sees it.
- **low-water**: the least MemAvailable of the endpoint's machine while this was measured.
- Each prompt begins elsewhere in the text, so no prefix cache helps. The appliance's own prompt is
  off meanwhile. Medians over the rounds, with the lowest and the highest."""


def markdown(report: SpeedReport) -> str:
    """Return the whole report."""
    parts = [
        "# Speed",
        _about(report.about),
        *(f"> {note}" for note in report.notes),
        "## Measured",
        _table(_point_rows(report.points)),
    ]
    if report.ratios:
        parts += [f"## {report.arms[-1]} over {report.arms[0]}", _table(_ratio_rows(report.ratios))]
    parts += ["## Published by others", str(report.published["about"])]
    parts += [_table(_published_rows(report)), "## What the words mean", MEANING]
    return "\n\n".join(parts) + "\n"


def _about(about: Mapping[str, Any]) -> str:
    lines = [
        f"- {name}: {told['model']} at {told['base_url']}"
        for name, told in about["endpoints"].items()
    ]
    lines.append(
        f"- {about['begun']}, {about['rounds']} rounds, {about['decode_tokens']} tokens of answer"
        f"{'' if about['exact'] else ' at most'}, text: {about['text']}, "
        f"measured by {about['tool']} for appliance {about['version']}"
    )
    return "\n".join(lines)


def _point_rows(points: Sequence[Point]) -> Iterator[Sequence[str]]:
    yield (
        "arm", "prompt", "at once", "pp tok/s", "tg tok/s", "tg tok/s of one", "peak tok/s",
        "TTFT ms", "low-water GiB",
    )  # fmt: skip
    for one in points:
        low = one.low_water_bytes
        yield (
            one.arm,
            f"{one.prompt_tokens:,}",
            str(one.concurrency),
            _spread(one.prefill_tps),
            _spread(one.decode_tps),
            _spread(one.decode_request_tps),
            _spread(one.peak_tps),
            _spread(one.ttft_ms),
            "" if low is None else f"{low / GIB:.2f}",
        )


def _ratio_rows(ratios: Sequence[Ratio]) -> Iterator[Sequence[str]]:
    yield "prompt", "at once", "prefill", "decode", "TTFT", "how"
    for one in ratios:
        yield (
            f"{one.prompt_tokens:,}",
            str(one.concurrency),
            _times(one.prefill),
            _times(one.decode),
            _times(one.ttft),
            "side by side, round by round" if one.paired else "two runs, their medians",
        )


def _published_rows(report: SpeedReport) -> Iterator[Sequence[str]]:
    yield "what", "decode tok/s", "prefill tok/s", "TTFT ms", "source"
    for arm in report.arms:
        mine = [one for one in report.points if one.arm == arm and one.concurrency == 1]
        if mine:
            yield (
                f"**yours: {arm}**",
                _range([one.decode_tps.median for one in mine if one.decode_tps]),
                "; ".join(_at(one.prompt_tokens, one.prefill_tps) for one in mine),
                "; ".join(_at(one.prompt_tokens, one.ttft_ms) for one in mine),
                "this run",
            )
    for row in report.published["rows"]:
        note = f" ({row['note']})" if row["note"] else ""
        yield (
            row["what"],
            _range(row["decode_tps"]) + note,
            "; ".join(_published_at(one, "tps") for one in row["prefill_tps"]),
            "; ".join(_published_at(one, "ms") for one in row["ttft_ms"]),
            row["source"],
        )


def _published_at(told: Mapping[str, Any], name: str) -> str:
    size = told["prompt_tokens"]
    return f"{told[name]:,}" + ("" if size is None else f" @{size:,}")


def _at(size: int, values: Spread | None) -> str:
    return f"{_number(values.median)} @{size:,}" if values else f"? @{size:,}"


def _range(values: Sequence[float]) -> str:
    if not values:
        return ""
    low, high = min(values), max(values)
    return _number(low) if low == high else f"{_number(low)} to {_number(high)}"


def _spread(values: Spread | None) -> str:
    if values is None:
        return ""
    if values.count == 1:
        return _number(values.median)
    return f"{_number(values.median)} ({_number(values.low)} to {_number(values.high)})"


def _times(values: Spread | None) -> str:
    if values is None:
        return ""
    return f"{values.median:.2f} ({values.low:.2f} to {values.high:.2f})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(rows: Iterator[Sequence[str]]) -> str:
    head = next(rows)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)
