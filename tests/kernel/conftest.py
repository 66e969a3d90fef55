"""Fixtures of the kernel tests: one guest for each kernel, and the table of what it measured."""

import os
from pathlib import Path

import pytest

from tests.kernel import initramfs, kernels, machine, table
from tests.kernel.kernels import KERNELS, Kernel
from tests.kernel.machine import Outcome
from tests.kernel.table import Rows

CACHE = initramfs.ROOT / "build" / "kernel"


@pytest.fixture(scope="session", params=KERNELS, ids=lambda kernel: kernel.name)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """Return the kernel; pytest runs all tests of one before it goes on to the next."""
    found: Kernel = request.param
    return found


@pytest.fixture(scope="session")
def programs() -> dict[str, Path]:
    """Build force_swap, victim and witness once: all kernels judge the same binary."""
    initramfs.require_tools()
    return initramfs.build_programs(CACHE / "programs")


@pytest.fixture(scope="session")
def guest(kernel: Kernel, programs: dict[str, Path]) -> Outcome:
    """Boot the kernel once, run all scenarios in it, and return what it said."""
    fetched = kernels.fetch(kernel, CACHE)
    folder = CACHE / "run" / kernel.name
    folder.mkdir(parents=True, exist_ok=True)
    initramfs.write(folder / "initramfs.gz", fetched, programs)
    return machine.boot(fetched.image, folder / "initramfs.gz", folder)


@pytest.fixture
def truth(request: pytest.FixtureRequest) -> Rows:
    """Add rows to the table."""
    return Rows(request.node)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, and write it where ``KERNEL_TABLE`` says."""
    rows = table.rows_of(terminalreporter.getreports("passed"))
    if not rows:
        return
    terminalreporter.section("kernel truth")
    for line in table.as_text(rows):
        terminalreporter.write_line(line)
    if path := os.environ.get("KERNEL_TABLE"):
        table.write(Path(path), rows)
