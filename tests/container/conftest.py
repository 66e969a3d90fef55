"""Fixtures of the container tests; without a Docker engine they are skipped, and that is said."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container import world
from tests.container.world import Stack

WHY_NOT = "CONTAINER_SKIP"  # set by docker/ci/test.sh, when no engine can be started
NEEDED = "make test-container starts an engine, makes the images and runs these tests"


def _missing(image: str) -> str:
    """Return why a test over ``image`` cannot run; empty when it can."""
    if reason := os.environ.get(WHY_NOT):
        return reason
    if shutil.which("docker") is None:
        return f"docker is not installed: {NEEDED}"
    engine = world.run("docker", "version", "--format", "{{.Server.Version}}")
    if engine.returncode != 0:
        return f"no Docker engine answers: {NEEDED}"
    if world.run("docker", "image", "inspect", image).returncode != 0:
        return f"there is no image {image}: {NEEDED}"
    return ""


def _need(image: str) -> str:
    if reason := _missing(image):
        pytest.skip(reason)
    return image


@pytest.fixture(scope="session")
def image() -> str:
    """Return the demo image's name."""
    return _need(world.DEMO)


@pytest.fixture(scope="session")
def arm64_image() -> str:
    """Return the name of the image for aarch64: helper and sidecar."""
    if not world.QEMU.exists():
        pytest.skip(f"{world.QEMU} is missing: apt-get install qemu-user-static")
    return _need(world.ARM64)


@pytest.fixture(scope="module")
def serving(image: str) -> Iterator[Stack]:
    """Yield the demo as compose.yaml starts it."""
    with world.stack("serving", env={"APPLIANCE_RESTART_BACKOFF_S": "1"}) as made:
        made.up("--wait")
        yield made


@pytest.fixture
def demo(serving: Stack) -> Stack:
    """Return the demo, started if the test before has stopped it, and ready."""
    serving.up()
    return serving


@pytest.fixture(scope="session")
def composes() -> dict[str, list[str]]:
    """Return the Compose versions that are here, by version: how each is started."""
    found = {}
    for words in (["docker", "compose"], [str(_tool("docker-compose"))]):
        done = world.run(*words, "version", "--short")
        if done.returncode == 0:
            found[done.stdout.strip()] = words
    return found


@pytest.fixture(scope="session")
def hadolint() -> Path:
    """Return the linter of Dockerfiles."""
    return _tool("hadolint")


def _tool(name: str) -> Path:
    beside = world.PROJECT / ".venv" / "bin" / name
    found = beside if beside.exists() else Path(shutil.which(name) or "")
    if found == Path():
        pytest.skip(f"{name} is not installed: make check installs the development tools")
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly how many tests did not run, and why."""
    reports = terminalreporter.getreports("skipped")
    here = [report for report in reports if "tests/container" in report.nodeid]
    if not here:
        return
    reasons = sorted(
        {str(report.longrepr[2]) for report in here if isinstance(report.longrepr, tuple)}
    )
    terminalreporter.section(f"{len(here)} container tests did NOT run", sep="!")
    for reason in reasons:
        terminalreporter.write_line(reason.removeprefix("Skipped: "))
