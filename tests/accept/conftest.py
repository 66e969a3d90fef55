"""Fixtures of the acceptance tests."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests import engines
from tests.accept.stage import Stage, staged


@pytest.fixture(scope="session")
def gappy_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One appliance with short keep-alives, for all tests that change nothing but the script."""
    settings: dict[str, Any] = {"keepalive_s": 0.2, "head_after_s": 0.2, "max_model_len": 16_384}
    with staged(tmp_path_factory.mktemp("gappy"), **settings) as stage:
        engines.shared_groups.add(stage.appliance.process.pid)
        yield stage
    engines.shared_groups.discard(stage.appliance.process.pid)
