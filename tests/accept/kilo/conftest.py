"""Fixtures of the Kilo stories: the binary, appliances, and the table of what came of each."""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests import engines
from tests.accept.kilo import table
from tests.accept.kilo.driver import VERSION, Kilo, install
from tests.accept.kilo.table import Tale
from tests.accept.stage import Stage, staged
from tests.bench.gateway.__main__ import machine

SERVED = 49_152  # what the Spark's profile serves
SOON = {"keepalive_s": 1, "head_after_s": 1, "max_model_len": SERVED}
TALE = pytest.StashKey[Tale]()
ABOUT = (
    "# Stories with the real Kilo Code\n\n"
    "`make accept-kilo` wrote this (LONG=1 with the two long waits): Kilo's own command line "
    "{version} from npm, in front of the appliance over a scripted engine. A story that changes "
    "how it ends fails. Machine of the last run: {machine}."
)


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


KiloAt = Callable[..., Kilo]


@pytest.fixture
def kilo_at(kilo_binary: Path, tmp_path: Path, request: pytest.FixtureRequest) -> KiloAt:
    """Put Kilo in front of a story's own appliance; what comes of it goes into the table."""
    tale = request.node.stash[TALE] = Tale()

    def at(stage: Stage, **changes: Any) -> Kilo:
        return Kilo(kilo_binary, stage, tmp_path / "kilo", tale, **changes)

    return at


@pytest.fixture
def kilo(kilo_at: KiloAt, shared_stage: Stage) -> Kilo:
    """Return Kilo in front of the shared appliance."""
    return kilo_at(shared_stage)


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the report of a story's own part carry its row."""
    report = yield
    tale = item.stash.get(TALE, None)
    if call.when == "call" and tale is not None and tale.seconds:
        day = f"{datetime.now(UTC):%d %b %Y}"
        row = tale.cells(item.name, day, well=report.passed)
        report.user_properties.append((table.PROPERTY, list(row)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, and keep it where ``KILO_TABLE`` says."""
    ends = ("passed", "failed")
    rows = table.rows_of(r for end in ends for r in terminalreporter.getreports(end))
    if not rows:
        return
    terminalreporter.section("stories with the real Kilo Code")
    for line in table.as_text(rows):
        terminalreporter.write_line(line)
    if path := os.environ.get("KILO_TABLE"):
        table.keep(Path(path), ABOUT.format(version=VERSION, machine=machine()), rows)
