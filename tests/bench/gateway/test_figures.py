import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.gateway.bodies import BODIES, KIB, MIB, MODEL, NAME
from tests.bench.gateway.plan import best, figures, percentile

SIZES = {"2k": 2 * KIB, "300k": 300 * KIB, "5m": 5 * MIB}
SAMPLES = st.lists(st.integers(0, 10**9), min_size=1, max_size=200)
SHARES = st.floats(0, 1)


@given(SAMPLES, SHARES)
def test_a_percentile_is_a_sample_that_the_share_is_not_above(
    samples: list[int], share: float
) -> None:
    found = percentile(samples, share)
    assert found in samples
    assert sum(value <= found for value in samples) >= share * len(samples) - 1e-9
    assert sum(value < found for value in samples) <= share * len(samples)


@given(SAMPLES, SHARES, SHARES)
def test_a_higher_percentile_is_never_smaller(samples: list[int], one: float, two: float) -> None:
    assert percentile(samples, min(one, two)) <= percentile(samples, max(one, two))


def test_the_cpu_is_told_for_each_chunk_or_request() -> None:
    assert figures({"chunks": 4, "cpu_ns": 20_000})["cpu_us"] == 5
    assert figures({"requests": 2, "cpu_ns": 20_000})["cpu_us"] == 10
    assert "cpu_us" not in figures({"aborts": 4, "missed": 0})


def test_of_several_tries_the_one_with_the_least_cpu_counts() -> None:
    assert best([{"cpu_us": 7.0}, None, {"cpu_us": 5.0}]) == {"cpu_us": 5.0}
    assert best([None, None]) is None


@pytest.mark.parametrize("name", sorted(BODIES))
def test_a_body_is_json_of_its_size_that_names_its_stream_once(name: str) -> None:
    body = BODIES[name]()
    told = json.loads(body)
    assert told["model"] == MODEL
    assert told["stream"] is True
    assert body.count(NAME.encode()) == 1
    size = SIZES.get(name, MIB)
    assert 0.95 * size <= len(body) <= 1.05 * size


def test_requests_of_one_conversation_differ_at_its_end_alone() -> None:
    assert BODIES["agent1m"]().index(NAME.encode()) < 200
    told = json.loads(BODIES["again1m"]())
    assert NAME in told["messages"][-1]["content"][0]["text"]
