"""Fixtures of the Kilo stories: the binary, and one appliance for those that change nothing."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests import engines
from tests.accept.kilo.driver import Kilo, install
from tests.accept.stage import Stage, staged

SERVED = 49_152  # what the Spark's profile serves
SOON = {"keepalive_s": 1, "head_after_s": 1, "max_model_len": SERVED}


@pytest.fixture(scope="session")
def kilo_binary() -> Path:
    """Return the real Kilo CLI."""
    return install()


@pytest.fixture(scope="session")
def shared_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Run one appliance for all stories that leave it as it was."""
    settings: dict[str, Any] = SOON
    with staged(tmp_path_factory.mktemp("kilo"), "--asides", **settings) as stage:
        engines.shared_groups.add(stage.appliance.process.pid)
        yield stage
    engines.shared_groups.discard(stage.appliance.process.pid)


@pytest.fixture
def kilo(kilo_binary: Path, shared_stage: Stage, tmp_path: Path) -> Kilo:
    """Return Kilo in front of the shared appliance."""
    return Kilo(kilo_binary, shared_stage, tmp_path)


Begin = Callable[..., Stage]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Start appliances of a story's own; all end with the test."""
    numbers = count()
    with ExitStack() as stack:

        def start(*flags: str, ready: bool = True, **settings: object) -> Stage:
            folder = tmp_path / f"stage{next(numbers)}"
            chosen: dict[str, Any] = {**SOON, **settings}
            return stack.enter_context(staged(folder, "--asides", *flags, ready=ready, **chosen))

        yield start
