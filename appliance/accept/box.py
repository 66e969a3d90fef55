"""The appliance that is accepted, seen from outside: what it tells, and what it is told."""

import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from appliance.errors import HostError
from appliance.host import memory_snapshot
from appliance.operator import Operator
from appliance.settings import Settings
from appliance.trust import trust

POLL_S = 0.5
START_S, GRACE_S = 1800.0, 60.0  # where the settings cannot be read; for the supervisor's own end
_AVAILABLE = re.compile(r"^appliance_host_memory_available_bytes ([\d.e+]+)$", re.MULTILINE)

Tell = Callable[[str], None]


@dataclass
class Box:
    """One appliance. ``key`` may ask it; ``is_here`` says that it runs on this machine."""

    settings: Settings
    operator: Operator
    url: str
    key: str
    trusted: ssl.SSLContext
    is_here: bool

    @classmethod
    def of(cls, settings: Settings, url: str | None, operator_key: str | None, key: str) -> "Box":
        """Return the appliance at ``url``, or that of this state folder. It need not answer."""
        operator = Operator.of(settings, url, operator_key)
        address, secret = url or "", key or operator_key or ""  # an operator may do what clients do
        if not url:
            try:
                address, secret = operator.running_url(), key or operator.key("client")
            except HostError:
                address = "http://127.0.0.1"  # nobody there: the first step says so
        trusted = trust(address, settings.tls_cert, is_own=not url)
        return cls(settings, operator, address, secret, trusted, is_here=not url)

    def status(self) -> dict[str, Any]:
        """Return the status as it is now. Raises HostError when nobody answers."""
        return self.operator.call("GET", "/status")

    def plan(self) -> dict[str, Any]:
        """Return the settings in force, and the engine's command."""
        return self.operator.call("GET", "/plan")

    def incidents(self) -> list[dict[str, Any]]:
        """Return what is kept of the engine's unwanted ends, the newest first."""
        found: list[dict[str, Any]] = self.operator.call("GET", "/incidents")["incidents"]
        return found

    def change(self, verb: str) -> None:
        """Ask for a change of the engine's state; it is not waited for."""
        self.operator.call("POST", f"/{verb}")

    def get(self, path: str) -> httpx.Response:
        """Return a public page. Raises HostError when nobody answers."""
        headers = {"authorization": f"Bearer {self.key}"}
        if path == "/kilo.json":
            headers["host"] = "localhost"  # by whatever address we came
        try:
            return httpx.get(
                f"{self.url.rstrip('/')}{path}",
                headers=headers,
                timeout=30,
                trust_env=False,
                verify=self.trusted,
            )
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as cause:
            raise HostError(f"{path} is not answered: {cause}", "appliance status") from cause

    def available_bytes(self) -> int | None:
        """Return the box's MemAvailable; None where it cannot be seen."""
        if self.is_here:
            return memory_snapshot().get("MemAvailable")
        try:
            match = _AVAILABLE.search(self.get("/metrics").text)
        except HostError:
            return None
        return int(float(match[1])) if match else None

    def settle(self, states: tuple[str, ...], within_s: float, tell: Tell) -> dict[str, Any]:
        """Wait until the engine is in one of ``states``. Raises HostError when it does not come."""
        end = time.monotonic() + within_s
        while True:
            status = self.status()
            if status["state"] in states:
                return status
            progress = status.get("progress")
            share = f" {progress:.0%}" if isinstance(progress, float) else ""
            tell(f"{status['state']} {status.get('phase') or ''}{share}".strip())
            if status["state"] == "failed" or time.monotonic() > end:
                raise HostError(
                    f"the engine is {status['state']}, and not {' or '.join(states)}: "
                    f"{status.get('message') or status.get('reason')}",
                    status.get("hint") or "appliance status --lines 50",
                )
            time.sleep(POLL_S)

    def ready(self, tell: Tell) -> dict[str, Any]:
        """Return the status of a ready engine; start it where it is stopped. Raises HostError."""
        status = self.status()
        if status["state"] == "stopped":
            self.change("start")
        return self.settle(("ready",), self.start_s(), tell)

    def start_s(self) -> float:
        """Return how long a start may take: as long as the appliance itself waits for it."""
        return float(self.plan()["settings"].get("start_timeout_s") or START_S) + GRACE_S
