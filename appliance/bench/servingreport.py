"""What all samples come to: medians and spreads, ratios of two arms, what others publish. Pure."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from appliance.bench.servingplan import Cell
from appliance.bench.servingsample import Sample

FORMAT = 1


@dataclass(frozen=True)
class Spread:
    """The middle of some values, the lowest and the highest, and how many they are."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Iterable[float | None]) -> Spread | None:
    """Return the spread of the values that are there; None where none is."""
    there = [value for value in values if value is not None]
    if not there:
        return None
    return Spread(statistics.median(there), min(there), max(there), len(there))


@dataclass(frozen=True)
class Point:
    """One cell of one arm. Speeds are tokens a second; ``ttft_ms`` is over all requests."""

    arm: str
    prompt_tokens: int
    concurrency: int
    rounds: int
    prefill_tps: Spread | None
    decode_tps: Spread | None
    decode_request_tps: Spread | None
    peak_tps: Spread | None
    ttft_ms: Spread | None
    low_water_bytes: int | None


@dataclass(frozen=True)
class Ratio:
    """The second arm over the first, in one cell.

    ``paired``: of batches that ran side by side, round by round; otherwise of two medians,
    measured at two times.
    """

    prompt_tokens: int
    concurrency: int
    paired: bool
    prefill: Spread | None
    decode: Spread | None
    ttft: Spread | None


@dataclass(frozen=True)
class SpeedReport:
    """The whole measurement; ``about`` is the journal's header."""

    about: Mapping[str, Any]
    arms: tuple[str, ...]
    points: tuple[Point, ...]
    ratios: tuple[Ratio, ...]
    published: Mapping[str, Any]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"format": FORMAT, **asdict(self)}

    @property
    def low_water_bytes(self) -> int | None:
        """The least MemAvailable of all batches; None where it could not be read."""
        return least(point.low_water_bytes for point in self.points)


def make_report(
    about: Mapping[str, Any],
    samples: Iterable[Sample],
    published: Mapping[str, Any],
    *,
    missing: int = 0,
    earlier: Sequence[Point] = (),
) -> SpeedReport:
    """Return the report; the order in which the samples came does not matter.

    ``earlier`` are points of another run, to compare with; ``missing`` batches are not there yet.
    """
    known = sorted({sample.key: sample for sample in samples}.values(), key=lambda one: one.key)
    arms = tuple(about["arms"])
    points = [
        _point(arm, cell, [one for one in known if (one.arm, one.cell) == (arm, cell)])
        for arm in arms
        for cell in sorted({one.cell for one in known if one.arm == arm})
    ]
    ratios = [*_paired(known, arms), *_unpaired(earlier, points)]
    before = [one for one in earlier if one.arm not in arms]
    names = (*dict.fromkeys(one.arm for one in before), *arms)
    notes = tuple(_notes(about, missing, points, bool(earlier)))
    return SpeedReport(about, names, (*before, *points), tuple(ratios), published, notes)


def _point(arm: str, cell: Cell, samples: Sequence[Sample]) -> Point:
    return Point(
        arm,
        cell.prompt_tokens,
        cell.concurrency,
        len(samples),
        prefill_tps=spread(one.prefill_tps for one in samples),
        decode_tps=spread(one.decode_tps for one in samples),
        decode_request_tps=spread(one.decode_request_tps for one in samples),
        peak_tps=spread(one.peak_tps for one in samples),
        ttft_ms=spread(value for one in samples for value in one.ttft_ms),
        low_water_bytes=least(one.low_water_bytes for one in samples),
    )


def least(values: Iterable[int | None]) -> int | None:
    """Return the least of the values that are there; None where none is."""
    return min((value for value in values if value is not None), default=None)


def _paired(samples: Sequence[Sample], arms: Sequence[str]) -> Iterator[Ratio]:
    if len(arms) != 2:
        return
    found = {one.key: one for one in samples}
    for cell in sorted({one.cell for one in samples}):
        rounds = sorted({one.round for one in samples if one.cell == cell})
        pairs = [
            (found[arms[0], cell, number], found[arms[1], cell, number])
            for number in rounds
            if all((arm, cell, number) in found for arm in arms)
        ]

        def over(
            figure: Callable[[Sample], float | None], pairs: Any = tuple(pairs)
        ) -> Spread | None:
            return spread(_over(figure(second), figure(first)) for first, second in pairs)

        yield Ratio(
            cell.prompt_tokens,
            cell.concurrency,
            paired=True,
            prefill=over(lambda one: one.prefill_tps),
            decode=over(lambda one: one.decode_tps),
            ttft=over(lambda one: statistics.median(one.ttft_ms) if one.ttft_ms else None),
        )


def _unpaired(earlier: Sequence[Point], points: Sequence[Point]) -> Iterator[Ratio]:
    before = {(one.prompt_tokens, one.concurrency): one for one in earlier}
    for point in points:
        first = before.get((point.prompt_tokens, point.concurrency))
        if first is None:
            continue
        yield Ratio(
            point.prompt_tokens,
            point.concurrency,
            paired=False,
            prefill=_of_medians(point.prefill_tps, first.prefill_tps),
            decode=_of_medians(point.decode_tps, first.decode_tps),
            ttft=_of_medians(point.ttft_ms, first.ttft_ms),
        )


def _of_medians(second: Spread | None, first: Spread | None) -> Spread | None:
    """Return the ratio of the middles, and its extremes: one's worst against the other's best."""
    if second is None or first is None or first.low <= 0:
        return None
    return Spread(
        second.median / first.median,
        second.low / first.high,
        second.high / first.low,
        min(second.count, first.count),
    )


def _over(second: float | None, first: float | None) -> float | None:
    return second / first if second is not None and first else None


def _notes(
    about: Mapping[str, Any], missing: int, points: Sequence[Point], is_compared: bool
) -> Iterator[str]:
    if missing:
        yield f"{missing} batches are not measured yet: the same command with --resume goes on"
    for name in about.get("unfit", ()):
        yield f"{name} was left out: it does not fit the context"
    if any(point.decode_tps is None for point in points):
        yield "an answer that comes as one piece shows no speed of decoding: such cells are empty"
    if all(point.low_water_bytes is None for point in points):
        yield "the endpoint is on another machine: its memory was not watched"
    if is_compared:
        yield "the arms ran at two times, not side by side: what else changed is in the ratio too"
    if about.get("demo"):
        yield "this is the demo: a tiny model on a CPU. Its figures say nothing about a Spark"
