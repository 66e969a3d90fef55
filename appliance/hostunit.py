"""The host's part in evicting: one systemd unit that lends the appliance a few kernel files.

The owner of a cgroup's ``memory.reclaim`` may ask the kernel to push that cgroup's cold pages out,
and that is all it may. So the unit gives these files, and no other, to the appliance's uid, and
takes them back when it stops. The container then needs no capability, no host PID, and a mount of
these directories alone. Pure: names, and texts to write; ``hostlend`` does it.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from appliance.errors import HostError

UNIT = "unglitched-reclaim.service"
UID = 10001  # of the container's user; fixed, so that it can be named on the host
LEAST_UID = 10000  # below it are the machine's own users
CGROUP_ROOT = "/sys/fs/cgroup"
IN_CONTAINER = "/host/cgroup"
FILE = "memory.reclaim"
EVERY_S = 15

# Letters that neither systemd, nor a shell, nor YAML, nor Compose gives a meaning to. The
# backslash is in it because systemd escapes with it: app-a\x2db.scope.
_NAME = re.compile(r"[A-Za-z0-9:_.@\\-]+")
# To reclaim from these makes the machine deaf, or takes from the engine what is made for it.
_PROTECTED = re.compile(
    r"(init\.scope|-\.slice"
    r"|(systemd|sshd?|dbus|nvidia-persistenced|unglitched)([-.@:].*)?)"
)


def checked_names(names: Iterable[str], uid: int) -> tuple[str, ...]:
    """Return the cgroups relative to the root, each once. Raises HostError for one not to touch."""
    if uid < LEAST_UID:
        raise HostError(
            f"--uid {uid} is below {LEAST_UID}: it may be a user of this machine",
            f"run the container as uid {UID}, and leave --uid out",
        )
    checked = tuple(dict.fromkeys(_checked(name) for name in names))
    if not checked:
        raise HostError(
            "no cgroup is named", "name at least one: --cgroup system.slice/snapd.service"
        )
    return checked


def _checked(given: str) -> str:
    name = given.removeprefix(CGROUP_ROOT).lstrip("/") if _is_below_root(given) else given
    name = name.rstrip("/")
    hint = "name one below it: --cgroup system.slice/snapd.service; systemd-cgls lists them"
    if name in ("", "."):  # "/" too
        raise HostError(f"--cgroup {given!r} is the root cgroup, which is everybody's", hint)
    if name.startswith("/"):
        raise HostError(f"--cgroup {given!r} is not below {CGROUP_ROOT}", hint)
    parts = name.split("/")
    for part in parts:
        if part in (".", "..") or not _NAME.fullmatch(part):
            raise HostError(f"--cgroup {given!r}: {part!r} is no name of a cgroup", hint)
        if _PROTECTED.fullmatch(part):
            raise HostError(f"--cgroup {given!r}: {part} must keep its memory", hint)
    if name == "system.slice":  # reclaim goes all the way down
        raise HostError(f"--cgroup {given!r} holds sshd, dbus and journald", hint)
    return name


def _is_below_root(path: str) -> bool:
    return path == CGROUP_ROOT or path.startswith(f"{CGROUP_ROOT}/")


def unit_text(cgroups: Sequence[str], uid: int) -> str:
    """Return the unit that lends ``memory.reclaim`` of ``cgroups`` to ``uid`` while it runs."""
    files = " ".join(_unit_word(f"{CGROUP_ROOT}/{name}/{FILE}") for name in cgroups)
    kept = "\n".join(f"Cgroup={name}" for name in cgroups)
    return f"""\
# Written by appliance host install, taken away by appliance host remove.
#
# While this runs, uid {uid} owns one file of each cgroup below, {FILE}, and may ask the
# kernel to push cold pages of that cgroup out. All else there stays root's. At stop the files
# are root's again.

[Unit]
Description=Unglitched: lends {FILE} of {len(cgroups)} cgroups to uid {uid}

[Service]
Type=exec
# -h: a link is not followed. There is no -R. -f: a cgroup that is not there now is no error.
ExecStartPre=-/bin/chown -h -f {uid} {files}
# A cgroup is made anew, with root's files, at each login and each start of a container. Nothing
# tells of that for every kind of cgroup, and a timer could not give the files back at its stop:
# so, a loop.
ExecStart=/bin/sh -c 'while sleep {EVERY_S}; do chown -h -f {uid} "$$@"; done' reclaim {files}
# Runs after a crash too. 0200 is the mode that the kernel gives the file: its owner could have
# changed it. First the owner, then the mode, or the owner could change it again.
ExecStopPost=-/bin/chown -h -f 0 {files}
ExecStopPost=-/bin/chmod -f 0200 {files}
Restart=on-failure
RestartSec={EVERY_S}

# Hardening. NOT set: ProtectControlGroups, which makes /sys/fs/cgroup read-only; PrivateUsers,
# where the uid would be another one; PrivateNetwork, which mounts a /sys of its own.
CapabilityBoundingSet=CAP_CHOWN
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
PrivateTmp=yes
PrivateDevices=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=none
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077

[Install]
WantedBy=multi-user.target

# For appliance host status and remove; systemd ignores it.
[X-Unglitched]
Uid={uid}
{kept}
"""


def _unit_word(word: str) -> str:
    """Quote for a unit's command line, where a backslash is a sign of its own."""
    return '"' + word.replace("\\", "\\\\") + '"'


@dataclass(frozen=True)
class Lent:
    """What an installed unit lends, and to whom."""

    uid: int
    cgroups: tuple[str, ...]


def parse_unit(text: str) -> Lent | None:
    """Return what the text of a unit lends; None when it is none of ours."""
    _, mark, section = text.partition("\n[X-Unglitched]\n")
    rows = [line.partition("=") for line in section.splitlines()]
    uids = [value for name, _, value in rows if name == "Uid" and value.isdecimal()]
    names = tuple(value for name, _, value in rows if name == "Cgroup")
    return Lent(int(uids[0]), names) if mark and uids else None


def compose_text(cgroups: Sequence[str]) -> str:
    """Return what a service in compose.yaml needs, to use the delegated cgroups."""
    mounts = "".join(
        f"      - type: bind\n"
        f"        source: {_yaml_word(f'{CGROUP_ROOT}/{name}')}\n"
        f"        target: {_yaml_word(f'{IN_CONTAINER}/{name}')}\n"
        for name in cgroups
    )
    chosen = _yaml_word(shlex.join(cgroups))
    return (
        f"    volumes:\n{mounts}"
        f"    environment:\n"
        f"      APPLIANCE_CGROUP_BASE: {IN_CONTAINER}\n"
        f"      APPLIANCE_EVICT_CGROUPS: {chosen}\n"
    )


def _yaml_word(word: str) -> str:
    return word if re.fullmatch(r"[A-Za-z0-9/_.-]+", word) else "'" + word.replace("'", "''") + "'"


def come_and_go(cgroups: Sequence[str]) -> Iterator[str]:
    """Yield what to do about cgroups that end while a container still has them mounted."""
    if any(re.search(r"(^|/)user-\d+\.slice", name) for name in cgroups):
        yield (
            "A user's slice ends with the last logout, and the container keeps the ended one "
            "mounted:\n  loginctl enable-linger USER keeps it."
        )
    if any(re.search(r"\.scope$", name) for name in cgroups):
        yield (
            "A scope gets a new name when its container or session is made anew:\n"
            "  type appliance host install again then."
        )


def unit_command(cgroups: Sequence[str], uid: int) -> str:
    """Return the one command that the unit stands for."""
    files = (f"{CGROUP_ROOT}/{name}/{FILE}" for name in cgroups)
    return shlex.join(["chown", "-h", str(uid), *files])
