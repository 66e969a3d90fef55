"""Docker as the tests see it: the command line, a Compose project of their own, and its end."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

PROJECT = Path(__file__).resolve().parents[2]
BASE, BASE_ARM64 = "unglitched-ci/debian:12", "unglitched-ci/debian:12-arm64"
DEMO, ARM64 = "unglitched:demo", "unglitched:arm64"
QEMU = Path("/usr/bin/qemu-aarch64-static")
CALL_S = 60.0
START_S = 420.0  # 27 s on a quiet machine, 216 s seen on a busy one
POLL_S = 0.5  # each look is a process, or a request to what is being measured
NO_SETTINGS = "/dev/null"  # in place of an .env that may lie in the clone


def run(
    *words: str | Path, within_s: float = CALL_S, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever its exit code; its output is text."""
    return subprocess.run(
        [str(word) for word in words],
        cwd=PROJECT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )


def docker(*words: str | Path, within_s: float = CALL_S) -> str:
    """Return what a docker command printed. Its failure fails the test, with its words."""
    done = run("docker", *words, within_s=within_s)
    assert done.returncode == 0, f"docker {' '.join(map(str, words))}: {done.stderr.strip()}"
    return done.stdout.strip()


def inspect(kind: str, name: str) -> dict[str, Any]:
    """Return Docker's own description of an image, a container or a volume."""
    (found,) = json.loads(docker(kind, "inspect", name))
    description: dict[str, Any] = found
    return description


def patiently(holds: Callable[[], bool], within_s: float, what: str) -> None:
    """Wait for a state with a deadline, looking twice a second."""
    pause = threading.Event()
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {within_s} s in vain for {what}"
        pause.wait(POLL_S)


@dataclass(frozen=True)
class Stack:
    """One Compose project over the clone's compose.yaml."""

    name: str
    profile: str = "demo"
    env: Mapping[str, str] = field(default_factory=dict)

    def compose(self, *words: str, within_s: float = CALL_S) -> subprocess.CompletedProcess[str]:
        """Run docker compose on this project."""
        options = ("--project-name", self.name, "--env-file", NO_SETTINGS)
        return run(
            *("docker", "compose", *options, "--profile", self.profile, *words),
            within_s=within_s,
            env={"APPLIANCE_PORT": "0", **self.env},
        )

    def up(self, *options: str) -> None:
        """Start it if it does not run, and return when its engine is ready."""
        done = self.compose("up", "--detach", "--no-build", *options, within_s=START_S)
        assert done.returncode == 0, f"{done.stderr}\n{self.logs()}"
        told = self.exec("/opt/appliance/bin/ready.py", "--wait", within_s=START_S)
        assert told.returncode == 0, told.stdout

    def logs(self) -> str:
        """Return the container's log."""
        return self.compose("logs", "--no-log-prefix", self.profile).stdout

    def exec(self, *words: str, within_s: float = CALL_S) -> subprocess.CompletedProcess[str]:
        """Run a command in the container."""
        return self.compose("exec", "-T", self.profile, *words, within_s=within_s)

    def said(self, *words: str) -> str:
        """Return what a command in the container printed."""
        done = self.exec(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def container(self) -> str:
        """The container's id."""
        return self.compose("ps", "--all", "--quiet", self.profile).stdout.strip()

    @property
    def state(self) -> dict[str, Any]:
        """The container's state, as Docker has it."""
        found: dict[str, Any] = inspect("container", self.container)["State"]
        return found

    @property
    def url(self) -> str:
        """Where it is published on this machine."""
        return f"http://{self.compose('port', self.profile, '9000').stdout.strip()}"

    def client(self) -> httpx.Client:
        """Return an HTTP client with the appliance's key."""
        key = self.said("appliance", "key").strip()
        headers = {"authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=CALL_S, trust_env=False)

    def until(self, state: str, spawn: int, within_s: float = START_S) -> None:
        """Wait until the engine's ``spawn``-th start is in a state, as /health says outside."""
        with httpx.Client(base_url=self.url, timeout=5, trust_env=False) as client:

            def is_so() -> bool:
                health = client.get("/health").json()
                return (health["state"], health["spawn"]) == (state, spawn)

            patiently(is_so, within_s, f"start {spawn} to be {state}")

    def processes(self) -> list[tuple[int, str, str]]:
        """Return (pid, state letter, command) of each process in the container."""
        return [
            (int(pid), rest.split()[0], name)
            for stat in self.said(
                "sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null || true"
            ).splitlines()
            for pid, _, tail in [stat.partition(" (")]
            for name, _, rest in [tail.rpartition(") ")]
        ]

    def down(self) -> None:
        """Remove all of it."""
        done = self.compose("down", "--volumes", "--timeout", "20", within_s=START_S)
        assert done.returncode == 0, done.stderr

    def left(self) -> list[str]:
        """Return what of this project Docker still has."""
        mark = f"label=com.docker.compose.project={self.name}"
        rows: list[str] = []
        kinds: Sequence[Sequence[str]] = (
            ("container", "ls", "--all"),
            ("volume", "ls"),
            ("network", "ls"),
        )
        for words in kinds:
            rows += docker(*words, "--quiet", "--filter", mark).split()
        return rows


@contextmanager
def stack(name: str, **more: Any) -> Iterator[Stack]:
    """Yield a Compose project, and remove all of it at the end."""
    made = Stack(f"unglitched-test-{os.getpid()}-{name}", **more)
    try:
        yield made
    finally:
        made.down()
