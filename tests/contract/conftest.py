"""The two engines of the contract: each test runs against the fake and against the real one."""

from collections.abc import Iterator

import httpx
import pytest

from tests import engines
from tests.engines import EngineHandle

BOTH = ["fake", pytest.param("real", marks=pytest.mark.engine)]


@pytest.fixture(scope="module", params=BOTH)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineHandle]:
    if request.param == "real":
        yield request.getfixturevalue("real_engine")
        return
    flags = ("--ready-after", "0.3", "--chunk-delay", "0.001")
    log = tmp_path_factory.mktemp("fake") / "engine.log"
    with engines.shared(engines.fake_argv(*flags), log) as fake:
        yield fake


@pytest.fixture
def client(engine: EngineHandle) -> Iterator[httpx.Client]:
    with engine.client() as client:
        yield client
