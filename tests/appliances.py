"""Whole appliances for tests: ``appliance run`` as a process of its own, over a fake engine."""

import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any, Protocol

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance.probes import COUNT_QUESTION, GREETING, user
from tests import engines
from tests.checkpoints import TINY, write_checkpoint
from tests.engines import FAKE, MODEL, ROOT, wait_until

CHAT = "/v1/chat/completions"
CONTROL = "/appliance/v1"
ASKED = {"model": MODEL, "messages": [user(GREETING)]}
# An answer that goes on for as long as a test needs it.
LONG = {"model": MODEL, "messages": [user(COUNT_QUESTION)], "max_tokens": 4000, "ignore_eos": True}
WITHIN_S = 20.0
COMMAND = [sys.executable, "-c", "import sys; from appliance.cli import main; sys.exit(main())"]

# A TLS context takes 60 ms to make, which each of httpx's clients would do for itself.
NO_TLS = ssl.create_default_context()
# For single requests without a key; it keeps no connection.
WEB = httpx.Client(
    timeout=WITHIN_S,
    trust_env=False,
    verify=NO_TLS,
    limits=httpx.Limits(max_keepalive_connections=0),
)

# Shrunken, so that what waits for them ends soon.
LIMITS = {
    "start_timeout_s": 20,
    "stop_timeout_s": 0.5,
    "drain_timeout_s": 1,
    "settle_timeout_s": 1,
    "queue_timeout_s": 20,
    "failed_key_delay_s": 0,
}


def web(base_url: str, key: str = "") -> httpx.Client:
    """Return a client with this key, or without one."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(
        base_url=base_url, headers=headers, timeout=WITHIN_S, trust_env=False, verify=NO_TLS
    )


def environment(folder: Path, *faults: str, **settings: object) -> dict[str, str]:
    """Return the variables of an appliance that keeps all it has in ``folder``.

    ``faults`` are the fake engine's flags; a setting that is None is left out.
    """
    chosen: dict[str, object] = {
        "profile": "demo",
        "model_dir": write_checkpoint(folder / "model", **TINY),
        "state_dir": folder / "state",
        "port": 0,
        "engine_command": f"{sys.executable} {FAKE}",
        "engine_extra_args": " ".join(faults),
        **LIMITS,
        **settings,
    }
    given = {name: value for name, value in chosen.items() if value is not None}
    return {f"APPLIANCE_{name.upper()}": str(value) for name, value in given.items()}


def attached_to(url: str, key: str, **settings: object) -> dict[str, Any]:
    """Return the settings of an appliance in front of an engine that somebody else runs."""
    spawned = ("model_dir", "engine_command", "engine_extra_args")
    attach = {"engine": "attach", "engine_url": url, "engine_key": key}
    return {**dict.fromkeys(spawned), **attach, **settings}


def engines_of(folder: Path) -> set[int]:
    """Return the living processes that were started for the model in ``folder``."""
    mark = str(folder / "model").encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if mark in command:
            found.add(int(entry.name))
    return found


def no_engine_left(folder: Path) -> None:
    """Fail if an engine, or anything that it forked, outlived its appliance."""
    left = engines_of(folder)
    assert not left, f"the appliance left behind:\n{engines.describe(left)}"


def metric(text: str, name: str, **labels: str) -> float:
    """Return one sample's value, 0 when it is not there."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return 0.0


# ---- the fake engine behind an appliance


@dataclass
class Fake:
    """The fake engine's own handle: its faults, and what it has seen."""

    url: str

    def be(self, **faults: object) -> None:
        """Replace its faults; none named means that all works."""
        WEB.post(f"{self.url}/fake", json=faults).raise_for_status()

    def seen(self) -> dict[str, list[dict[str, Any]]]:
        """Return the requests that came, and those that their clients left."""
        told: dict[str, list[dict[str, Any]]]
        told = WEB.get(f"{self.url}/fake/seen").json()
        return told

    def requests(self, path: str) -> list[dict[str, Any]]:
        """Return the requests that came to one route."""
        return [request for request in self.seen()["requests"] if request["path"] == path]

    def forget(self) -> None:
        """Start its records anew."""
        WEB.delete(f"{self.url}/fake/seen").raise_for_status()


# ---- in a process of its own


@dataclass
class ApplianceProcess:
    """``appliance run`` as a process: where it is, and what it has said."""

    process: subprocess.Popen[bytes]
    folder: Path
    env: Mapping[str, str]

    @property
    def state_dir(self) -> Path:
        """Where its keys and its socket are."""
        return Path(self.env["APPLIANCE_STATE_DIR"])

    @property
    def base_url(self) -> str:
        """Its address."""
        return (self.state_dir / "address").read_text().strip()

    @property
    def out(self) -> str:
        """What it printed."""
        return (self.folder / "out.log").read_text()

    @property
    def err(self) -> str:
        """What it logged."""
        return (self.folder / "err.log").read_text()

    def key(self, which: str) -> str:
        """Return the ``client`` or ``operator`` key in force."""
        name = {"client": "api_key", "operator": "operator_key"}[which]
        given = self.env.get(f"APPLIANCE_{name.upper()}")
        return given or (self.state_dir / name).read_text().strip()

    def http(self, which: str = "client") -> httpx.Client:
        """Return a client with this key."""
        return web(self.base_url, self.key(which))

    def local(self) -> httpx.Client:
        """Return a client over its socket."""
        path = str(self.state_dir / "control.sock")
        transport = httpx.HTTPTransport(uds=path, verify=NO_TLS)
        return httpx.Client(transport=transport, base_url="http://box", timeout=WITHIN_S)

    def status(self) -> dict[str, Any]:
        """Return what the control API tells, over the socket."""
        with socket.socket(socket.AF_UNIX) as probe:
            # httpx leaks the socket of a connection that is refused
            probe.connect(str(self.state_dir / "control.sock"))
        with self.local() as http:
            status: dict[str, Any] = http.get(f"{CONTROL}/status").json()
            return status

    @property
    def fake(self) -> Fake:
        """The engine that it spawned."""
        with self.http("operator") as http:
            argv = http.get(f"{CONTROL}/plan").json()["command"]["argv"]
        return Fake(f"http://127.0.0.1:{argv[argv.index('--port') + 1]}")

    def until(self, *states: str, within_s: float = WITHIN_S) -> dict[str, Any]:
        """Wait until the engine is in one of ``states``."""
        found: dict[str, Any] = {}

        def there() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.err}")
            try:
                found.update(self.status())
            except (httpx.HTTPError, OSError):
                return False
            return found["state"] in states

        wait_until(there, within_s, f"{states}; it is {found.get('state')}:\n{self.err[-2000:]}")
        return found

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def code(self, within_s: float = WITHIN_S) -> int:
        """Wait for its end; return its exit code."""
        return self.process.wait(timeout=within_s)


def clean_environment() -> dict[str, str]:
    """Return this process's environment without a setting of ours."""
    return {name: v for name, v in os.environ.items() if not name.startswith("APPLIANCE_")}


@contextmanager
def running_process(
    folder: Path,
    *faults: str,
    arguments: tuple[str, ...] = (),
    stdout: IO[bytes] | None = None,
    **settings: object,
) -> Iterator[ApplianceProcess]:
    """Run ``appliance run`` as a process of its own; at the end nothing of it is left."""
    folder.mkdir(exist_ok=True)
    env = environment(folder, *faults, **settings)
    with (folder / "out.log").open("wb") as out, (folder / "err.log").open("wb") as err:
        process = subprocess.Popen(
            [*COMMAND, "run", *arguments],
            env=clean_environment() | env | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=stdout or out,
            stderr=err,
            cwd=folder,
            start_new_session=True,
        )
    appliance = ApplianceProcess(process, folder, env)
    try:
        yield appliance
        if process.poll() is None:
            process.terminate()
            assert process.wait(timeout=WITHIN_S) == 0, appliance.err
        no_engine_left(folder)
        assert "Traceback" not in appliance.err, appliance.err
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for pid in engines_of(folder):
            os.kill(pid, signal.SIGKILL)


class RunAppliance(Protocol):
    """Starts ``appliance run`` as a process with these fault flags and settings."""

    def __call__(
        self,
        *faults: str,
        arguments: tuple[str, ...] = (),
        stdout: IO[bytes] | None = None,
        **settings: object,
    ) -> ApplianceProcess:
        """Return it at once; ``until`` waits for its engine."""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunAppliance]:
    """Run appliances as processes; all end, and leave nothing, with the test."""
    numbers = count()
    with ExitStack() as stack:

        def begin(
            *faults: str,
            arguments: tuple[str, ...] = (),
            stdout: IO[bytes] | None = None,
            **settings: object,
        ) -> ApplianceProcess:
            folder = tmp_path / f"box{next(numbers)}"
            running = running_process(
                folder, *faults, arguments=arguments, stdout=stdout, **settings
            )
            return stack.enter_context(running)

        yield begin


@pytest.fixture(scope="session")
def shared_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApplianceProcess]:
    """Run one appliance, ready, for all tests that change nothing."""
    with running_process(tmp_path_factory.mktemp("shared"), max_body_bytes="64KiB") as appliance:
        engines.shared_groups.add(appliance.process.pid)
        appliance.until("ready")
        yield appliance
    engines.shared_groups.discard(appliance.process.pid)


@pytest.fixture
def box(shared_box: ApplianceProcess) -> Iterator[ApplianceProcess]:
    """The shared appliance, its engine without faults and its records empty."""
    fake = shared_box.fake
    fake.be()
    fake.forget()
    yield shared_box
    fake.be()
