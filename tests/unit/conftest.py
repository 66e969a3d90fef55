"""Settings of the unit tests, and what several of them need."""

import subprocess
from collections.abc import Iterator

import pytest


@pytest.fixture
def stranger() -> Iterator[int]:
    """Run a process in a session of its own that must live to the end of the test."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield process.pid
    survived = process.poll() is None
    process.kill()
    process.wait(10)
    assert survived, "the stranger was killed"
