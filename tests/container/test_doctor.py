"""``appliance doctor`` beside a real Docker engine, a real Compose and the demo's container."""

import json
import sys

import pytest

from tests.container import world
from tests.container.world import Stack, inspect

pytestmark = [pytest.mark.container, pytest.mark.timeout(600)]

DOCTOR = (sys.executable, "-c", "import sys; from appliance.cli import main; sys.exit(main())",
          "doctor", "--profile", "demo", "--json")  # fmt: skip


def rows() -> dict[str, tuple[str, str]]:
    """Return level and value by name; it prints nothing else."""
    done = world.run(*DOCTOR)
    assert done.stderr == ""
    return {row["name"]: (row["level"], row["value"]) for row in json.loads(done.stdout)["rows"]}


def test_it_sees_engine_compose_image_and_the_healthy_container(demo: Stack) -> None:
    found = rows()
    assert found["docker"][0] == "ok"
    assert found["compose"][0] == "ok"
    assert found["compose file"] == ("ok", str(world.PROJECT))
    assert found["image"][0] == "ok"
    assert found["image"][1].startswith("unglitched:demo ")
    assert found["engine"][0] == "ok"
    assert found["engine"][1].startswith("vLLM 0.3")
    name = inspect("container", demo.container)["Name"].removeprefix("/")
    assert found[f"container {name}"] == ("ok", "running, healthy")
    assert found["disk, images"][0] == "ok"
    assert "BUILD_DIGEST" in found["digests"][1]


def test_a_stopped_container_is_told_with_its_code(demo: Stack) -> None:
    name = inspect("container", demo.container)["Name"].removeprefix("/")
    demo.compose("stop", within_s=world.START_S)
    assert rows()[f"container {name}"] == ("warn", "exited with 0: it was stopped")
