"""The load program against its own engine: what it counts is what happened."""

from collections.abc import Iterator

import pytest

from tests.bench.gateway.load import Load, Run
from tests.bench.gateway.plan import DIRECT, specs
from tests.bench.gateway.proxies import free_port
from tests.bench.gateway.session import FOLDER

RUNS = sorted(spec.key for spec in specs(quick=True))


@pytest.fixture(scope="module")
def load() -> Iterator[Load]:
    with Load(FOLDER, real_time=False, awake=False) as running:
        yield running


def test_in_lockstep_as_many_chunks_come_as_were_asked_for(load: Load) -> None:
    run = Run("lockstep", {"streams": 4, "chunks": 200, "kind": "reasoning", "body": "2k"})
    told = load.ask(run.line(port=load.port))
    assert told["fault"] == ""
    assert 200 <= told["chunks"] <= 204


def test_each_request_gets_its_first_chunk(load: Load) -> None:
    told = load.ask("requests streams=3 count=20 warm=3 body=300k")
    assert told["fault"] == ""
    assert told["requests"] == len(told["ttft"]) == 20


@pytest.mark.parametrize("window", ["stream", "head", "silent"])
def test_an_engine_without_a_proxy_misses_no_abort(load: Load, window: str) -> None:
    told = load.ask(f"aborts streams=4 count=8 limit_ms=5000 window={window} body=2k")
    assert told["fault"] == ""
    assert (told["aborts"], told["missed"], len(told["left"])) == (8, 0, 8)


def test_a_pool_of_as_many_connections_is_seen_by_the_engine(load: Load) -> None:
    told = load.ask("pool idle=8 count=5 body=2k")
    assert told["fault"] == ""
    assert told["requests"] == 5


def test_a_proxy_that_is_not_there_is_a_fault_and_no_figure(load: Load) -> None:
    told = load.ask(f"requests streams=1 count=1 warm=1 body=2k port={free_port()}")
    assert told["fault"] != ""
    assert "ttft" not in told


def test_a_run_or_a_body_that_does_not_exist_is_a_fault(load: Load) -> None:
    assert load.ask("dance body=2k")["fault"] == "no such run"
    assert load.ask("lockstep body=none")["fault"] == "no such body"


@pytest.mark.parametrize("key", RUNS)
def test_every_measurement_of_the_table_runs(load: Load, key: str) -> None:
    spec = next(spec for spec in specs(quick=True) if spec.key == key)
    small = {name: 4 for name in ("chunks", "count", "idle") if name in spec.run.options}
    streams = {"streams": 4} if "streams" in spec.run.options else {}
    told = load.ask(spec.line(DIRECT, port=load.port, **small, **streams))
    assert told["fault"] == ""
