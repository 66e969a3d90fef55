"""Installs, removes and looks at the packet rule: what touches the host, and as root."""

import contextlib
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from appliance.cluster.portrule import (
    NFT,
    TABLE,
    UNIT,
    Closed,
    is_in_force,
    parse_rule,
    rule_text,
    unit_text,
)
from appliance.errors import HostError
from appliance.hostlend import systemctl

NFT_S = 30.0
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def nft(*arguments: str) -> str:
    """Run nft; return what it prints. Raises HostError, in its own words, when it fails."""
    try:
        done = subprocess.run(
            (NFT, *arguments), capture_output=True, text=True, timeout=NFT_S, check=False
        )
    except FileNotFoundError:
        raise HostError(f"{NFT} is not there", "apt install nftables") from None
    except (OSError, subprocess.TimeoutExpired) as cause:
        raise HostError(f"{NFT} failed: {cause}", "is it whole? nft --version") from cause
    if done.returncode:
        raise HostError(
            f"nft {' '.join(arguments)} failed: {done.stderr.strip()}",
            "it needs root, and a kernel with nf_tables: lsmod | grep nf_tables",
        )
    return done.stdout


def picked_ports(file: Path = RANGE) -> tuple[int, int]:
    """Return the range of which the kernel picks ports here. Raises HostError."""
    try:
        low, high = map(int, file.read_text(encoding="ascii").split())
    except (OSError, ValueError) as cause:
        hint = "sysctl net.ipv4.ip_local_port_range"
        raise HostError(f"{file} cannot be read: {cause}", hint) from cause
    return low, high


@dataclass(frozen=True)
class HostPorts:
    """The places that are looked at and written, and who asks."""

    systemctl: Callable[..., None] = systemctl
    nft: Callable[..., str] = nft
    euid: int = field(default_factory=os.geteuid)
    units: Path = Path("/etc/systemd/system")
    folder: Path = Path("/etc/unglitched")
    interfaces: Path = Path("/sys/class/net")
    booted: Path = Path("/run/systemd/system")
    containers: tuple[Path, ...] = (Path("/.dockerenv"), Path("/run/.containerenv"))

    @property
    def unit(self) -> Path:
        """Where the unit's file is."""
        return self.units / UNIT

    @property
    def file(self) -> Path:
        """Where the rule is kept."""
        return self.folder / "ports.nft"

    @property
    def is_installed(self) -> bool:
        """Whether there is something to remove."""
        return self.file.exists() or self.unit.exists()

    def install(self, closed: Closed, say: Callable[[str], None]) -> None:
        """Set the rule now and at each boot. Raises HostError, and then leaves nothing behind."""
        options = f"--cable {closed.interface} --peer {closed.peer}"
        self._need_root(f"install {options}")
        self._check(closed)
        self._ours()
        try:
            self.folder.mkdir(mode=0o755, exist_ok=True)
            _write(self.file, rule_text(closed))
            self.nft("-c", "-f", str(self.file))
            _write(self.unit, unit_text(closed, str(self.file)))
            self.systemctl("daemon-reload")
            self.systemctl("enable", UNIT)
            self.systemctl("restart", UNIT)  # loads the file where it already runs, too
            if not self.is_in_force(closed):
                raise HostError(
                    f"{UNIT} runs, and yet its rule is not set", f"nft list table {TABLE}"
                )
        except HostError:
            with contextlib.suppress(HostError):
                self._take_away()
            self._unlink()
            raise
        say(f"TCP {closed.shown} now answer {closed.peer} on {closed.interface} alone")
        say(f"by {self.unit} and {self.file}; appliance host remove takes it back.")

    def show(self, closed: Closed, say: Callable[[str], None]) -> None:
        """Say what ``install`` would write, and refuse what it would refuse. Needs no rights."""
        self._check(closed)
        say(f"would write {self.file}:\n\n{rule_text(closed)}")
        say(f"would write {self.unit}:\n\n{unit_text(closed, str(self.file))}")

    def remove(self, say: Callable[[str], None]) -> None:
        """Take the table, the unit and the file away."""
        self._need_root("remove")
        if self._ours() is None and not self.unit.exists():
            say(f"{self.file} is not there: no port was closed")
            return
        self._take_away()
        say(f"the table {TABLE}, {self.unit} and {self.file} are gone")

    def status(self, say: Callable[[str], None]) -> int:
        """Say what is closed now; 0 when the kernel has it as the file says, else 1."""
        closed = self._ours()
        if closed is None:
            say(f"not installed: {self.file} is not there; the engine's ports are open to all")
            return 1
        shown = f"TCP {closed.shown} for {closed.peer} on {closed.interface} alone"
        if self.euid != 0:
            say(f"installed: {shown}; whether the kernel has it, root may see")
            return 0
        is_set = self.is_in_force(closed)
        say(f"set: {shown}" if is_set else f"NOT set, though installed: {shown}")
        return 0 if is_set else 1

    def installed(self) -> Closed | None:
        """Return what the kept rule closes; None where there is none. Raises HostError."""
        return self._ours()

    def is_in_force(self, closed: Closed) -> bool:
        """Whether the kernel has this rule now. Needs root."""
        try:
            return is_in_force(closed, self.nft("-j", "list", "table", *TABLE.split()))
        except HostError:  # there is no such table
            return False

    def _need_root(self, what: str) -> None:
        if self.euid != 0:
            verb = what.partition(" ")[0]
            raise HostError(
                f"appliance host {verb} needs root, this is uid {self.euid}",
                f"sudo appliance host {what}",
            )

    def _check(self, closed: Closed) -> None:
        if any(path.exists() for path in self.containers):
            raise HostError("this is a container", "run it on the host, as root")
        if not self.booted.is_dir():
            raise HostError(
                f"systemd does not run here: there is no {self.booted}",
                "run it on the host; without systemd, let its start scripts load what "
                "--dry-run prints on a host with it",
            )
        if not (self.interfaces / closed.interface).exists():
            raise HostError(
                f"--cable {closed.interface}: there is no such network interface",
                "ip -br address lists them, with their addresses",
            )

    def _ours(self) -> Closed | None:
        try:
            text = self.file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        except OSError as cause:
            raise HostError(
                f"{self.file} cannot be read: {cause.strerror}", "look at it"
            ) from cause
        closed = parse_rule(text)
        if closed is None:
            raise HostError(
                f"{self.file} is there, and was not written by appliance host install",
                "look at it, and delete it if it is not needed",
            )
        return closed

    def _take_away(self) -> None:
        if self.unit.exists():
            self.systemctl("disable", "--now", UNIT)
            self.unit.unlink()
            self.systemctl("daemon-reload")
        self._unlink()

    def _unlink(self) -> None:
        self.unit.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not there, or something else is in it
            self.folder.rmdir()


def _write(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    try:
        fresh.write_text(text, encoding="ascii")
        fresh.chmod(0o644)
        fresh.rename(path)
    except OSError as cause:
        fresh.unlink(missing_ok=True)
        raise HostError(
            f"{path} cannot be written: {cause.strerror}", "check its folder"
        ) from cause
