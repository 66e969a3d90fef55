"""Fixtures of the fault tests: whole appliances, and the table of what came of each fault."""

import os
from pathlib import Path

import pytest

from tests.appliance_tasks import start
from tests.appliances import run
from tests.fault import table
from tests.fault.table import Faults

__all__ = ["run", "start"]


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Faults:
    """Add rows to the table of faults."""
    return Faults(request.node)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, and write it where ``FAULT_TABLE`` says."""
    rows = table.rows_of(terminalreporter.getreports("passed"))
    if not rows:
        return
    terminalreporter.section("faults")
    for line in table.as_text(rows):
        terminalreporter.write_line(line)
    if path := os.environ.get("FAULT_TABLE"):
        table.write(Path(path), rows)
