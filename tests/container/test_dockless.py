"""The same image without the Docker daemon: podman, by docker/dockless.sh and the bare script."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from appliance.probes import GREETING, user
from tests import engines
from tests.container import world
from tests.container.world import DEMO, PROJECT, START_S, patiently
from tests.engines import EXTRAS

pytestmark = [pytest.mark.container, pytest.mark.long, pytest.mark.timeout(1800)]

LOAD_S = 600.0  # 1.5 GB through a pipe, onto a disk
# Where there is no systemd, and for kernels with both kinds of cgroups, which crun refuses.
OPTIONS = "--storage-driver overlay --runtime runc --cgroup-manager cgroupfs --events-backend file"
# What a GPU alone can do, and what a CPU engine asks for.
CPU = ("--kv-cache-dtype", "auto", "--moe-backend", "auto", "--enforce-eager")
PLUGINS = "unglitched_cpu_routing,unglitched_cpu_waiting,unglitched_evidence"


@pytest.fixture(scope="module")
def podman(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yield the environment of a podman of the test's own, which has the demo image."""
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed: apt-get install podman catatonit")
    place = tmp_path_factory.mktemp("podman")
    options = f"--root {place}/root --runroot {place}/run {OPTIONS}"
    env = {"PODMAN_OPTIONS": options, "PORT": str(engines.free_port())}
    try:
        done = world.run(PROJECT / "docker/dockless.sh", "load", "demo", env=env, within_s=LOAD_S)
        assert done.returncode == 0, done.stderr
        yield env
    finally:
        pod(env, "rm", "--all", "--force")
        pod(env, "system", "reset", "--force")


def pod(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run a podman command."""
    clean = ("env", "-u", "DOCKER_CONFIG", "podman", *env["PODMAN_OPTIONS"].split())
    return world.run(*clean, *words, within_s=START_S)


def dockless(env: dict[str, str], what: str) -> str:
    """Return what docker/dockless.sh printed."""
    done = world.run(PROJECT / "docker/dockless.sh", what, "demo", env=env, within_s=START_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_serves_with_the_same_limits_and_ends_in_order(podman: dict[str, str]) -> None:
    said = dockless(podman, "up")
    assert ("rootful" if os.getuid() == 0 else "rootless") in said
    smoke = pod(podman, "exec", "unglitched-demo", "appliance", "smoke")
    assert "all passed" in smoke.stdout
    assert "Read-only" in pod(podman, "exec", "unglitched-demo", "touch", "/x").stderr
    assert "exit code 0" in dockless(podman, "down")
    assert pod(podman, "ps", "--all", "--quiet").stdout == ""


def test_the_bare_script_serves_the_tiny_model(podman: dict[str, str], tmp_path: Path) -> None:
    model = tmp_path / "model"
    made = pod(podman, "create", DEMO).stdout.strip()
    assert pod(podman, "cp", f"{made}:/models/Nikola", str(model)).returncode == 0
    asked = {"RUNNER": "podman", "IMAGE": DEMO, "PORT": str(engines.free_port()), "DRY_RUN": "1"}
    script = world.run(EXTRAS / "inference_minimax.sh", model, "--", *CPU, env=asked)
    assert script.returncode == 0, script.stderr
    words = script.stdout.splitlines()
    at = words.index("--device")
    del words[at : at + 2]  # there is no GPU here
    assert words[:3] == ["podman", "run", "--rm"]
    own = ["--detach", "--tmpfs", "/var/lib/unglitched:mode=1777", "--ulimit", "nproc=4096:4096"]
    own += ["--ulimit", "nofile=4096:4096", "--env", f"VLLM_PLUGINS={PLUGINS}"]
    own += ["--env", "VLLM_CPU_KVCACHE_SPACE=1"]
    started = pod(podman, "run", *own, *words[2:])
    assert started.returncode == 0, started.stderr
    url = f"http://127.0.0.1:{asked['PORT']}"
    patiently(lambda: answers(url), START_S, "the engine to answer")
    body = {"model": "Nikola", "messages": [user(GREETING)], "temperature": 0}
    reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120, trust_env=False)
    assert "Nikola" in reply.json()["choices"][0]["message"]["content"]


def answers(url: str) -> bool:
    """Tell whether the engine serves yet."""
    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
