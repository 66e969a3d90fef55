"""Fixtures for all tests: engines, and the check that no test leaves a process behind."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import engines
from tests.engines import EngineHandle, StartFake

# Time never decides a test: a loaded machine is no counterexample. The gate asks the same cases
# each time, so that what it refuses is the change; `make test-search` asks new ones.
settings.register_profile(
    "laws", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "search", settings.get_profile("laws"), derandomize=False, max_examples=2000, print_blob=True
)
settings.load_profile("laws")


@pytest.fixture(autouse=True)
def nothing_left_alive() -> Iterator[None]:
    """Fail a test after which a process is alive that was not there before."""
    before = engines.leaked(set())
    yield
    try:
        engines.wait_until(lambda: not engines.leaked(before), 2.0, "the test's processes to end")
    except AssertionError:
        left = engines.leaked(before)
        named = engines.describe(left)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        pytest.fail(f"the test left processes behind:\n{named}")


@pytest.fixture
def fake_engine(tmp_path: Path) -> Iterator[StartFake]:
    """Start fake engines with fault flags; all are killed at the end."""
    with ExitStack() as stack:

        def start(*flags: str, ready: bool = True) -> EngineHandle:
            log = tmp_path / f"engine-{len(list(tmp_path.glob('engine-*.log')))}.log"
            engine = stack.enter_context(engines.running(engines.fake_argv(*flags), log))
            if ready:
                engine.wait_ready(within_s=20)
            return engine

        yield start


@pytest.fixture(scope="session")
def real_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineHandle]:
    """Run the real vLLM on the CPU with the tiny checkpoint, one for the session."""
    engines.require_real()
    log = tmp_path_factory.mktemp("engine") / "vllm.log"
    with engines.shared(engines.real_argv(), log, engines.REAL_ENV, engines.REAL_READY_S) as engine:
        yield engine
