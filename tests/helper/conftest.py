"""Fixtures of the helper's tests: the builds, and a fake machine like a Spark."""

import subprocess
from pathlib import Path

import pytest

from tests.helper.driving import BUILDS, ROOT, Build
from tests.helper.machine import Machine
from tests.helper.machines import spark


@pytest.fixture(scope="session")
def built() -> dict[str, Build]:
    """Build every form of the helper; what is missing fails with the line to type."""
    made = subprocess.run(
        ["bash", "tests/helper/build.sh"], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert made.returncode == 0, made.stderr or made.stdout
    return BUILDS


@pytest.fixture
def native(built: dict[str, Build]) -> Build:
    """The plain build for this machine."""
    return built["native"]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A Spark as files, not yet saved."""
    return spark(tmp_path)
