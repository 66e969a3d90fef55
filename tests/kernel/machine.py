"""One throwaway virtual machine: it boots, runs the scenarios, says what it saw, and is gone."""

import json
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BOOT_S = 1500.0  # the whole life of a guest; without KVM a run takes 3 to 8 minutes
MEMORY = "3G"
SWAP_BYTES = 4 << 30
DISK_BYTES = 768 << 20


@dataclass(frozen=True)
class Scenario:
    """What one scenario left behind: its figures, the helper's report, and its log."""

    name: str
    figures: dict[str, str] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    log: str = ""

    def number(self, key: str) -> int:
        """Return a figure as a whole number."""
        return int(self.figures[key])


@dataclass(frozen=True)
class Outcome:
    """All that a guest said."""

    scenarios: dict[str, Scenario]
    console: str

    def scenario(self, name: str) -> Scenario:
        """Return a scenario that ran to its end."""
        if name not in self.scenarios or not self.scenarios[name].figures:
            raise AssertionError(f"the guest never finished {name!r}:\n{self.console[-4000:]}")
        return self.scenarios[name]


def boot(image: Path, initramfs: Path, folder: Path) -> Outcome:
    """Run a guest to its end, or kill it at the deadline; its disks are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    console, results = folder / "console.log", folder / "results.log"
    swap, disk = folder / "swap.raw", folder / "disk.raw"
    try:
        _make_disks(swap, disk)
        _run(_argv(image, initramfs, (swap, disk), (console, results)))
    finally:
        swap.unlink(missing_ok=True)
        disk.unlink(missing_ok=True)
    said = results.read_text(encoding="utf-8", errors="replace")
    return Outcome(parse(said), console.read_text(encoding="utf-8", errors="replace"))


def parse(text: str) -> dict[str, Scenario]:
    """Read the guest's lines: ``RESULT name key=value…``, ``JSON name {…}``, ``LOG name text``.

    The last line counts only when it is whole: the guest may have been killed in the middle of it.
    """
    scenarios: dict[str, Scenario] = {}
    for line in text.rpartition("\n")[0].splitlines():
        kind, _, rest = line.partition(" ")
        name, _, value = rest.partition(" ")
        if kind not in ("RESULT", "JSON", "LOG"):
            continue
        old = scenarios.get(name, Scenario(name))
        figures, report, log = old.figures, old.report, old.log
        if kind == "RESULT":
            figures = figures | dict(pair.split("=", 1) for pair in shlex.split(value))
        elif kind == "JSON":
            report = json.loads(value)
        else:
            log = f"{log}{value}\n"
        scenarios[name] = Scenario(name, figures, report, log)
    return scenarios


def _make_disks(swap: Path, disk: Path) -> None:
    for path, size in ((swap, SWAP_BYTES), (disk, DISK_BYTES)):
        path.unlink(missing_ok=True)
        with path.open("wb") as file:
            file.truncate(size)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", disk], check=True)


def _argv(
    image: Path, initramfs: Path, disks: tuple[Path, Path], serial: tuple[Path, Path]
) -> list[str]:
    # -cx16: qemu 7.2 leaves junk in EFLAGS after CMPXCHG16B. An interrupt in the next moment saves
    # the junk, and the guest dies in a double fault, mostly when memory is short. Seen three times.
    cpu = "Nehalem,-cx16,+rdrand"
    # The guest must not outlive the tests, even when these are killed.
    argv = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "qemu-system-x86_64",
        "-accel",
        "tcg",
        "-machine",
        "q35",
        "-cpu",
        cpu,
    ]
    argv += ["-smp", "1", "-m", MEMORY, "-nodefaults", "-display", "none", "-no-reboot"]
    argv += ["-kernel", str(image), "-initrd", str(initramfs)]
    argv += ["-append", "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off"]
    for path in disks:
        # unsafe: the host's cache may keep what the guest writes; nothing has to survive
        argv += ["-drive", f"if=virtio,format=raw,cache=unsafe,file={path}"]
    for path in serial:
        path.unlink(missing_ok=True)
        argv += ["-serial", f"file:{path}"]
    return argv


def _run(argv: list[str]) -> None:
    guest = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, complaint = guest.communicate(timeout=BOOT_S)
    except subprocess.TimeoutExpired:
        # What it said until now is still worth reading: each scenario that is missing fails.
        return
    finally:
        guest.kill()
        guest.wait()
    if guest.returncode != 0:
        raise AssertionError(f"qemu ended with {guest.returncode}: {complaint.strip()}")
