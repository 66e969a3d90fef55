"""Histograms and counters as plain numbers; the text is made when it is asked for.

An observation costs a bisection, a count an addition: a tenth of what the client library's own
cost with their locks, which one event loop does not need.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from math import isinf

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector


class Counts:
    """The observations of one series; ``bounds`` ascend, and each one belongs to its bucket."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value, in the family's unit."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def cumulated(self) -> list[tuple[str, float]]:
        """Return each bucket's upper bound and how many values are at most that."""
        buckets = []
        seen = 0
        for bound, count in zip((*self._bounds, float("inf")), self.counts, strict=True):
            seen += count
            buckets.append(("+Inf" if isinf(bound) else repr(bound), float(seen)))
        return buckets


class Histogram(Collector):
    """One family. Without labels it holds one series, which is there from the start."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = tuple(labels)
        self._bounds = tuple(float(bound) for bound in sorted(buckets))
        self._series: dict[tuple[str, ...], Counts] = {}
        if not self._labels:
            self.labels()
        registry.register(self)

    def labels(self, *values: str) -> Counts:
        """Return the series of these values. Raises ValueError for more or fewer than labels."""
        series = self._series.get(values)
        if series is None:
            if len(values) != len(self._labels):
                raise ValueError(f"{self._name} has the labels {self._labels}, not {values}")
            series = self._series[values] = Counts(self._bounds)
        return series

    def observe(self, value: float) -> None:
        """Count one value in the series without labels."""
        self.labels().observe(value)

    def merged(self) -> tuple[tuple[float, ...], tuple[int, ...]]:
        """Return the bounds, and how many values of all series each bucket holds, one beyond."""
        counts = [series.counts for series in self._series.values()]
        return self._bounds, tuple(map(sum, zip(*counts, strict=True)))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the family, its buckets cumulated."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, series in self._series.items():
            family.add_metric(values, series.cumulated(), series.total)
        yield family


class Count:
    """How often something happened, or how much of it came."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Count ``amount`` more, never less than none."""
        if amount < 0:
            raise ValueError(f"a counter only grows, not by {amount}")
        self.value += amount


class Counter(Collector):
    """One family of counts. Without labels it holds one, which is there from the start."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = tuple(labels)
        self._series: dict[tuple[str, ...], Count] = {}
        if not self._labels:
            self.labels()
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """Return the count of these values. Raises ValueError for more or fewer than labels."""
        series = self._series.get(values)
        if series is None:
            if len(values) != len(self._labels):
                raise ValueError(f"{self._name} has the labels {self._labels}, not {values}")
            series = self._series[values] = Count()
        return series

    def inc(self, amount: float = 1) -> None:
        """Count ``amount`` more in the family without labels."""
        self.labels().inc(amount)

    def values(self) -> dict[tuple[str, ...], float]:
        """Return each series' count by the values of its labels."""
        return {values: series.value for values, series in self._series.items()}

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the family."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, series in self._series.items():
            family.add_metric(values, series.value)
        yield family
