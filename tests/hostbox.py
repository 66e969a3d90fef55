"""A fake host with cgroups, and a systemd that runs the commands of the unit's file for real.

They run as systemd would run them: with CAP_CHOWN as the only capability. Needs root.
"""

import os
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from appliance.errors import HostError
from appliance.hostlend import Host
from appliance.hostunit import CGROUP_ROOT, FILE, UID, UNIT

USER = "user.slice/user-1000.slice"
SESSION = f"{USER}/session-3.scope"
ESCAPED = r"user.slice/a\x2db.slice"
CGROUPS = ("user.slice", USER, SESSION, ESCAPED)

# The files of a cgroup v2 with all controllers, and the modes that the kernel gives them.
FILES = {
    0o644: (
        *("cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "cgroup.type"),
        *("cgroup.freeze", "cgroup.pressure", "cgroup.max.depth", "cgroup.max.descendants"),
        *("cpu.max", "cpu.weight", "cpu.pressure", "io.max", "io.weight", "io.pressure"),
        *("memory.high", "memory.low", "memory.max", "memory.min", "memory.oom.group"),
        *("memory.peak", "memory.pressure", "memory.swap.high", "memory.swap.max"),
        *("memory.swap.peak", "memory.zswap.max", "memory.zswap.writeback", "pids.max"),
    ),
    0o444: (
        *("cgroup.controllers", "cgroup.events", "cgroup.stat", "memory.current"),
        *("memory.events", "memory.stat", "memory.swap.current", "pids.current"),
    ),
    0o200: ("cgroup.kill", FILE),
}
# What a process tries: to write each file, and what an owner of the directory could do.
ATTACK = """
find . -type f | while read -r file; do
    ( : >>"$file" ) 2>/dev/null && echo "written $file"
    chmod 0666 "$file" 2>/dev/null && echo "chmod $file"
    rm -f "$file" 2>/dev/null && echo "removed $file"
    mv "$file" "$file.x" 2>/dev/null && echo "moved $file"
    echo "tried $file"
done
find . -type d | while read -r folder; do
    mkdir "$folder/new" 2>/dev/null && echo "mkdir $folder"
    ( : >"$folder/new" ) 2>/dev/null && echo "created in $folder"
    rmdir "$folder" 2>/dev/null && echo "rmdir $folder"
done
true
"""


def make_cgroup(path: Path) -> None:
    path.mkdir(parents=True)
    for mode, names in FILES.items():
        for name in names:
            (path / name).write_text("")
            (path / name).chmod(mode)


@dataclass
class Box:
    """A fake host, and a systemd that does what the unit's file says."""

    folder: Path
    asked: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    loaded: str = ""
    fails_at: str = ""

    @property
    def root(self) -> Path:
        return self.folder / "cgroup"

    @property
    def unit(self) -> Path:
        return self.folder / "units" / UNIT

    @property
    def host(self) -> Host:
        return Host(
            systemctl=self.systemctl,
            user_name=lambda _uid: "",
            euid=0,
            cgroup_root=self.root,
            units=self.folder / "units",
            mounts=self.folder / "mounts",
            booted=self.folder / "booted",
            containers=(self.folder / "in-docker",),
            processes=self.folder / "proc",
        )

    @property
    def text(self) -> str:
        return "\n".join(self.said)

    def systemctl(self, *arguments: str) -> None:
        self.asked.append(arguments[0])
        if arguments[0] == self.fails_at:
            raise HostError(f"systemctl {arguments[0]} failed: no", "look")
        if arguments[0] == "daemon-reload":
            self.loaded = self.unit.read_text() if self.unit.exists() else ""
        elif arguments[0] == "enable":
            self.run("ExecStartPre")
        elif arguments[0] in ("stop", "disable") and self.loaded:
            self.run("ExecStopPost")

    def run(self, key: str, path: str = os.defpath) -> None:
        """Run the unit's commands of one kind, over the fake cgroups."""
        lines = [row for row in self.loaded.splitlines() if row.startswith(f"{key}=")]
        assert lines
        for line in lines:
            words = shlex.split(line.partition("=")[2].removeprefix("-").replace("$$", "$"))
            argv = [word.replace(CGROUP_ROOT, str(self.root)) for word in words]
            drop = ("setpriv", "--bounding-set=-all,+chown", "--inh-caps=-all", "--no-new-privs")
            subprocess.run([*drop, *argv], env={"PATH": path}, check=False, timeout=30)

    def owner(self, name: str) -> int:
        return (self.root / name / FILE).lstat().st_uid

    def attack(self, inside: str) -> set[str]:
        """Return what uid 10001 got done in a mount of one cgroup; "tried" for each file."""
        become = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
        where = self.root / inside
        done = subprocess.check_output([*become, "sh", "-c", ATTACK], cwd=where, timeout=60)
        return set(done.decode().splitlines())


def owners(root: Path) -> dict[str, tuple[int, int, int]]:
    return {
        str(path.relative_to(root)): (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode)
        for path in sorted(root.rglob("*"))
    }
