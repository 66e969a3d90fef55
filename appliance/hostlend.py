"""Installs, removes and looks at the unit of ``hostunit``: what touches the host, and as root."""

import contextlib
import os
import pwd
import shlex
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appliance.errors import HostError
from appliance.hostunit import (
    CGROUP_ROOT,
    FILE,
    UID,
    UNIT,
    Lent,
    checked_names,
    come_and_go,
    compose_text,
    parse_unit,
    unit_command,
    unit_text,
)

SYSTEMCTL_S = 60.0
LEAVES = 5  # that a message names


def systemctl(*arguments: str) -> None:
    """Run systemctl. Raises HostError, in its own words, when it fails."""
    command = ("systemctl", *arguments)
    why = ""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SYSTEMCTL_S, check=False
        )
        why = f"exit code {done.returncode}: {done.stderr.strip()}" if done.returncode else ""
    except subprocess.TimeoutExpired:
        why = f"no end within {SYSTEMCTL_S:.0f} s"
    except OSError as cause:
        why = str(cause.strerror)
    if why:
        raise HostError(f"{shlex.join(command)} failed: {why}", f"journalctl -u {UNIT} -e")


def user_name(uid: int) -> str:
    """Return who has this number on the host; "" for nobody."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


@dataclass(frozen=True)
class Host:
    """The places that are looked at and written, and who asks."""

    systemctl: Callable[..., None] = systemctl
    user_name: Callable[[int], str] = user_name
    euid: int = field(default_factory=os.geteuid)
    cgroup_root: Path = Path(CGROUP_ROOT)
    units: Path = Path("/etc/systemd/system")
    mounts: Path = Path("/proc/self/mounts")
    booted: Path = Path("/run/systemd/system")
    containers: tuple[Path, ...] = (Path("/.dockerenv"), Path("/run/.containerenv"))
    processes: Path = Path("/proc")

    @property
    def unit(self) -> Path:
        """Where the unit's file is."""
        return self.units / UNIT

    @property
    def is_installed(self) -> bool:
        """Whether there is something to remove."""
        return self.unit.exists()

    def install(self, names: Iterable[str], uid: int, say: Callable[[str], None]) -> None:
        """Write the unit and start it. Raises HostError, and then leaves nothing behind."""
        cgroups = checked_names(names, uid)
        options = [f"--cgroup {shlex.quote(name)}" for name in cgroups]
        self._need_root(" ".join(["install", *options, *([f"--uid {uid}"] if uid != UID else [])]))
        self._check(cgroups, uid)
        if self.unit.exists():
            self.systemctl("stop", UNIT)  # who is named no longer gets its file back
        try:
            self._write(unit_text(cgroups, uid))
            self.systemctl("daemon-reload")
            self.systemctl("enable", "--now", UNIT)
            self._check_lent(cgroups, uid)
        except HostError:
            with contextlib.suppress(HostError):
                self._take_away()
            self.unit.unlink(missing_ok=True)
            raise
        say(f"uid {uid} may now reclaim from: {', '.join(cgroups)}")
        say(f"by {self.unit}; appliance host remove takes it back.")
        if name := self.user_name(uid):
            say(f"On this host uid {uid} is the user {name}, who may do so too.")
        _say_how_to_use(cgroups, say)

    def show(self, names: Iterable[str], uid: int, say: Callable[[str], None]) -> None:
        """Say what ``install`` would write, and refuse what it would refuse. Needs no rights."""
        cgroups = checked_names(names, uid)
        self._check(cgroups, uid)
        say(f"would write {self.unit}:\n\n{unit_text(cgroups, uid)}")
        _say_how_to_use(cgroups, say)

    def remove(self, say: Callable[[str], None]) -> None:
        """Stop the unit, which gives the files back, and delete it."""
        self._need_root("remove")
        lent = self._lent()
        if lent is None:
            say(f"{self.unit} is not there: nothing to take back")
            return
        self._take_away()
        kept = [name for name in lent.cgroups if self._owner(name) == lent.uid]
        if kept:
            raise HostError(
                f"uid {lent.uid} still owns {FILE} of {', '.join(kept)}",
                f"chown 0 {' '.join(shlex.quote(f'{CGROUP_ROOT}/{n}/{FILE}') for n in kept)}",
            )
        say(f"{FILE} of {', '.join(lent.cgroups)} is root's again; {self.unit} is gone")

    def status(self, say: Callable[[str], None]) -> int:
        """Say who owns the files now; 0 when each is lent as the unit says, else 1."""
        lent = self._lent()
        if lent is None:
            say(f"not installed: {self.unit} is not there")
            return 1
        owners = {name: self._owner(name) for name in lent.cgroups}
        for name, owner in owners.items():
            if owner == lent.uid:
                say(f"{name}: lent to uid {owner}")
            else:
                say(f"{name}: " + ("not there now" if owner is None else f"owned by uid {owner}"))
        return 0 if set(owners.values()) == {lent.uid} else 1

    def _need_root(self, what: str) -> None:
        if self.euid != 0:
            raise HostError(
                f"appliance host {what.split()[0]} needs root, this is uid {self.euid}",
                f"sudo appliance host {what}",
            )

    def _check(self, cgroups: Sequence[str], uid: int) -> None:
        if any(path.exists() for path in self.containers):
            raise HostError("this is a container", "run it on the host, as root")
        if not self.booted.is_dir():
            raise HostError(
                f"systemd does not run here: there is no {self.booted}",
                "run it on the host; without systemd, let its start scripts chown the files: "
                + unit_command(cgroups, uid),
            )
        kind = _kind_of_mount(self.mounts, self.cgroup_root)
        if kind != "cgroup2":
            raise HostError(
                f"{self.cgroup_root} is {kind or 'not mounted'}: this is cgroup v1, which has "
                f"no {FILE}",
                "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line; "
                "until then only page cache can be dropped",
            )
        for name in cgroups:
            self._check_cgroup(name, uid)

    def _check_cgroup(self, name: str, uid: int) -> None:
        hint = "systemd-cgls lists those that are there"
        lent = self._lent()
        try:
            owner = self._owner(name)
        except HostError as error:
            raise HostError(f"--cgroup {name}: {error.what}", hint) from error
        if owner is None and (self.cgroup_root / name).is_dir():
            raise HostError(
                f"--cgroup {name} has no {FILE}",
                "it needs Linux 5.19, and memory counted there: systemctl set-property "
                f"{name.rpartition('/')[2]} MemoryAccounting=yes",
            )
        if owner is None:
            raise HostError(f"--cgroup {name} is not there", hint)
        if owner not in {0, uid, lent.uid if lent else 0}:
            raise HostError(
                f"--cgroup {name}: {FILE} is already uid {owner}'s, and could not be given back",
                "name the cgroup above it",
            )
        if any(uid in _uids(self.processes / pid) for pid in self._pids(name)):
            raise HostError(
                f"--cgroup {name} holds a process of uid {uid}: it is the appliance's own",
                "name one that the appliance and its engine do not run in",
            )
        if leaves := self._leaves_below(name):
            more = ", …" if len(leaves) > LEAVES else ""
            raise HostError(
                f"--cgroup {name} is no leaf: processes run in {', '.join(leaves[:LEAVES])}{more}",
                "name the leaves that are to give way; systemd-cgtop -m shows the large ones",
            )

    def _leaves_below(self, name: str) -> list[str]:
        """Return the cgroups below with processes: force_swap pushes out of leaves alone."""
        found = []
        for file in sorted((self.cgroup_root / name).glob("*/**/cgroup.procs")):
            with contextlib.suppress(OSError):  # a cgroup that ended meanwhile
                if file.read_text(encoding="ascii").strip():
                    found.append(str(file.parent.relative_to(self.cgroup_root)))
        return found

    def _check_lent(self, cgroups: Sequence[str], uid: int) -> None:
        # systemctl returns when ExecStartPre has run, so there is nothing to wait for
        kept = [name for name in cgroups if self._owner(name) != uid]
        if kept:
            raise HostError(
                f"{UNIT} runs, and yet uid {uid} does not own {FILE} of {', '.join(kept)}",
                f"journalctl -u {UNIT} -e",
            )

    def _owner(self, name: str) -> int | None:
        """Return who owns the file; None when it is not there. Raises HostError for a link."""
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            folder = os.open(self.cgroup_root, flags)
        except OSError:
            return None
        try:
            device = os.fstat(folder).st_dev
            for part in name.split("/"):
                below = os.open(part, flags, dir_fd=folder)
                os.close(folder)
                folder = below
            found = os.stat(FILE, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as cause:  # ENOTDIR: what O_NOFOLLOW says of a link
            raise HostError(f"it is a link, or no directory ({cause.strerror})") from cause
        finally:
            os.close(folder)
        if not stat.S_ISREG(found.st_mode) or found.st_dev != device:
            raise HostError(f"its {FILE} is not the kernel's")
        return found.st_uid

    def _pids(self, name: str) -> Iterator[str]:
        for folder, _, _ in os.walk(self.cgroup_root / name):
            with contextlib.suppress(OSError):  # it may end while we look
                yield from (Path(folder) / "cgroup.procs").read_text(encoding="ascii").split()

    def _lent(self) -> Lent | None:
        try:
            lent = parse_unit(self.unit.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return None
        if lent is None:
            raise HostError(
                f"{self.unit} is there, and was not written by appliance host install",
                "look at it, and delete it if it is not needed",
            )
        return lent

    def _write(self, text: str) -> None:
        fresh = self.unit.with_suffix(".new")
        try:
            fresh.write_text(text, encoding="ascii")
            fresh.chmod(0o644)
            fresh.rename(self.unit)
        except OSError as cause:
            fresh.unlink(missing_ok=True)
            raise HostError(
                f"{self.unit} cannot be written: {cause.strerror}", "check that folder"
            ) from cause

    def _take_away(self) -> None:
        if self.unit.exists():
            self.systemctl("disable", "--now", UNIT)
            self.unit.unlink()
            self.systemctl("daemon-reload")


def _say_how_to_use(cgroups: Sequence[str], say: Callable[[str], None]) -> None:
    for note in come_and_go(cgroups):
        say(note)
    say(f"In compose.yaml, for the appliance's service:\n\n{compose_text(cgroups)}")


def _kind_of_mount(mounts: Path, point: Path) -> str:
    kind = ""
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split()
        if len(fields) > 2 and fields[1] == str(point):
            kind = fields[2]  # the last one lies on top
    return kind


def _uids(process: Path) -> set[int]:
    try:
        lines = (process / "status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    rows = [line.split() for line in lines if line.startswith("Uid:")]
    return {int(word) for row in rows for word in row[1:] if word.isdecimal()}
