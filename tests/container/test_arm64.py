"""The image for aarch64, built here without emulation; its programs run under qemu."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.container import world
from tests.container.world import QEMU, docker, inspect, patiently

pytestmark = [pytest.mark.container, pytest.mark.timeout(300)]

# qemu is named as the program, so that the kernel of this machine need not know about it.
EMULATED = ("--platform", "linux/arm64", "--volume", f"{QEMU}:/qemu:ro", "--entrypoint", "/qemu")
HARDENED = ("--init", "--read-only", "--cap-drop", "ALL")
PYTHON = "/opt/appliance/bin/python"
LISTENS_S = 120.0  # 2 s on a quiet machine; all of it is emulated
ELF_AARCH64 = 183


def emulated(image: str, *command: str) -> str:
    """Return what a program of the image printed, under qemu."""
    words = ("run", "--rm", "--network", "none", *HARDENED, *EMULATED, image, *command)
    return docker(*words, within_s=LISTENS_S)


def test_it_is_for_arm64(arm64_image: str) -> None:
    assert inspect("image", arm64_image)["Architecture"] == "arm64"


def test_every_program_and_library_of_ours_is_aarch64s(arm64_image: str, tmp_path: Path) -> None:
    made = docker("create", "--platform", "linux/arm64", arm64_image)
    try:
        for folder in ("/opt/appliance", "/usr/local/bin"):
            docker("cp", f"{made}:{folder}", tmp_path)
    finally:
        docker("rm", made)
    machines = {path.name: machine for path in files(tmp_path) if (machine := machine_of(path))}
    assert set(machines.values()) == {ELF_AARCH64}
    assert {"force_swap"} < set(machines)


def files(folder: Path) -> Iterator[Path]:
    """Yield the regular files below a folder."""
    for place, _, names in os.walk(folder):
        yield from (path for name in names if not (path := Path(place, name)).is_symlink())


def machine_of(path: Path) -> int:
    """Return the ELF machine of a program or library; 0 for any other file."""
    with path.open("rb") as file:
        head = file.read(20)
    return int.from_bytes(head[18:20], "little") if head.startswith(b"\x7fELF") else 0


def test_force_swap_passes_its_self_test_under_qemu(arm64_image: str) -> None:
    report = json.loads(emulated(arm64_image, "/usr/local/bin/force_swap", "selftest"))
    assert report["exit_code"] == 0
    assert report["stop_reason"] == "observed"


def test_the_sidecar_serves_under_qemu(arm64_image: str) -> None:
    settings = {"APPLIANCE_ENGINE": "attach", "APPLIANCE_ENGINE_URL": "http://127.0.0.1:1"}
    given = [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]
    run = (*HARDENED, *EMULATED, "--detach", "--publish", "127.0.0.1:0:9000", *given)
    command = ("-0", PYTHON, PYTHON, "/opt/appliance/bin/appliance", "run")
    name = docker("run", *run, arm64_image, *command)
    try:
        url = f"http://{docker('port', name, '9000')}"

        def is_live() -> bool:
            try:
                return httpx.get(f"{url}/health/live", timeout=20).status_code == 200
            except httpx.TransportError:
                running = inspect("container", name)["State"]["Running"]
                assert running, world.run("docker", "logs", name).stderr
                return False

        patiently(is_live, LISTENS_S, "the sidecar to listen")
        assert httpx.get(f"{url}/v1/models", timeout=20).status_code == 401
        docker("stop", name)
        assert inspect("container", name)["State"]["ExitCode"] == 0
    finally:
        docker("rm", "--force", "--volumes", name)
