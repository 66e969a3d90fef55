"""The packet rule in a namespace, installed by a systemd that runs the unit's lines for real."""

import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from appliance.cluster.hostports import HostPorts
from appliance.cluster.portrule import UNIT
from appliance.errors import HostError


@dataclass
class Ruled:
    """One node's host, with all its files in ``folder``."""

    namespace: str
    folder: Path
    said: list[str] = field(default_factory=list)
    fails_at: str = ""
    _is_on: bool = False

    @property
    def host(self) -> HostPorts:
        for name in ("units", "booted", "net/cable0"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        return HostPorts(
            systemctl=self.systemctl,
            nft=self.nft,
            euid=0,
            units=self.folder / "units",
            folder=self.folder / "etc",
            interfaces=self.folder / "net",
            booted=self.folder / "booted",
            containers=(),
        )

    def nft(self, *arguments: str) -> str:
        argv = ["ip", "netns", "exec", self.namespace, "nft", *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise HostError(f"nft {' '.join(arguments)} failed: {done.stderr}", "look")
        return done.stdout

    def systemctl(self, verb: str, *rest: str) -> None:
        if verb == self.fails_at:
            raise HostError(f"systemctl {verb} failed: no", "look")
        if verb == "restart":
            self._run("ExecStop")
            self._run("ExecStart")
            self._is_on = True
        elif verb == "disable" and "--now" in rest and self._is_on:
            self._run("ExecStop")
            self._is_on = False

    def _run(self, key: str) -> None:
        text = (self.folder / "units" / UNIT).read_text()
        for line in text.splitlines():
            name, _, command = line.partition("=")
            if name == key:
                words = shlex.split(command.removeprefix("-"))
                argv = ["ip", "netns", "exec", self.namespace, *words]
                done = subprocess.run(argv, capture_output=True, check=False)
                if done.returncode and not command.startswith("-"):
                    raise HostError(f"{command} failed", "look")
