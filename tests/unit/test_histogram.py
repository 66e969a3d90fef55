"""Array histograms: what prometheus_client's own would say, from the same observations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Counter as ReferenceCounter
from prometheus_client import Histogram as Reference
from prometheus_client.parser import text_string_to_metric_families

from appliance.histogram import Counter, Histogram

BOUNDS = (0.001, 0.01, 0.5, 1.0, 60.0)
VALUES = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 1000))


def samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = generate_latest(registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), VALUES)))
def test_it_says_what_the_reference_says(observed: list[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Histogram("x_seconds", "d", ("route",), buckets=BOUNDS, registry=ours)
    reference = Reference("x_seconds", "d", ("route",), buckets=BOUNDS, registry=theirs)
    for route, value in observed:
        mine.labels(route).observe(value)
        reference.labels(route).observe(value)
    assert samples(ours) == pytest.approx(samples(theirs))


@given(st.lists(VALUES))
def test_without_labels_too(observed: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Histogram("x_seconds", "d", buckets=BOUNDS, registry=ours)
    reference = Reference("x_seconds", "d", buckets=BOUNDS, registry=theirs)
    for value in observed:
        mine.observe(value)
        reference.observe(value)
    assert samples(ours) == pytest.approx(samples(theirs))


def test_a_family_without_labels_is_there_before_its_first_value() -> None:
    registry = CollectorRegistry()
    Histogram("x_seconds", "d", buckets=BOUNDS, registry=registry)
    assert samples(registry)[("x_seconds_count", ())] == 0


# ---- counters


@given(st.lists(st.tuples(st.sampled_from(["a", 'b"\n']), st.integers(0, 10**9))))
def test_a_counter_says_what_the_reference_says(counted: list[tuple[str, int]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Counter("x_bytes", "d", ("route",), registry=ours)
    reference = ReferenceCounter("x_bytes", "d", ("route",), registry=theirs)
    for route, amount in counted:
        mine.labels(route).inc(amount)
        reference.labels(route).inc(amount)
    assert samples(ours) == samples(theirs)


def test_a_counter_without_labels_is_there_before_its_first_count() -> None:
    registry = CollectorRegistry()
    counter = Counter("x", "d", registry=registry)
    assert samples(registry) == {("x_total", ()): 0}
    counter.inc()
    counter.inc(2)
    assert samples(registry) == {("x_total", ()): 3}


def test_a_counter_never_shrinks() -> None:
    with pytest.raises(ValueError, match="-1"):
        Counter("x", "d", registry=CollectorRegistry()).inc(-1)


@pytest.mark.parametrize("values", [(), ("a", "b")])
def test_a_counter_with_the_wrong_number_of_labels_is_refused(values: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="route"):
        Counter("x", "d", ("route",), registry=CollectorRegistry()).labels(*values)


@pytest.mark.parametrize("values", [(), ("a", "b")])
def test_the_wrong_number_of_labels_is_refused(values: tuple[str, ...]) -> None:
    family = Histogram("x", "d", ("route",), buckets=BOUNDS, registry=CollectorRegistry())
    with pytest.raises(ValueError, match="route"):
        family.labels(*values)
