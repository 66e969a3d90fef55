"""Fixtures of the cluster tests: two boxes for the session, and the table of faults."""

from collections.abc import Iterator

import pytest

from tests.cluster.boxes import Pair, pair
from tests.cluster.wires import wired
from tests.fault.conftest import faults, pytest_terminal_summary

__all__ = ["faults", "pytest_terminal_summary"]


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two boxes that serve as one, for all faults in turn."""
    with wired() as wires, pair(tmp_path_factory.mktemp("boxes"), wires) as both:
        both.head.serving()
        yield both
