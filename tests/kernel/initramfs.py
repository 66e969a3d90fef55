"""The guest's root: busybox, the modules, the scenarios, victim, witness and force_swap.

The archive is written here, byte by byte (cpio, "newc"): so no cpio and no root are needed.
"""

import gzip
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.kernel.kernels import Fetched

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCE = ROOT / "unglitched_vllm" / "force_swap.cpp"
BUSYBOX = Path("/bin/busybox")
PROGRAMS = ("qemu-system-x86_64", "g++", "gcc", "mke2fs", "dpkg-deb", "apt-get")
PACKAGES = "qemu-system-x86 busybox-static g++ e2fsprogs"
FOLDERS = ("bin", "dev", "proc", "sys", "run", "tmp", "modules", "disk", "host")


def require_tools() -> None:
    """Fail with the line to type when a tool is missing."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if not BUSYBOX.exists() or b"/lib64/ld-linux" in BUSYBOX.read_bytes():
        missing.append("a static busybox")
    if missing:
        raise AssertionError(
            f"missing: {', '.join(missing)}; type: apt-get install -y --no-install-recommends"
            f" {PACKAGES}"
        )


def build_programs(folder: Path) -> dict[str, Path]:
    """Compile what runs in the guest, static, and return the programs by name."""
    folder.mkdir(parents=True, exist_ok=True)
    programs = {name: folder / name for name in ("victim", "witness", "force_swap")}
    for name in ("victim", "witness"):
        source = HERE / "guest" / f"{name}.c"
        _compile(["gcc", "-O2", "-static", "-Wall", "-Wextra", "-Werror"], source, programs[name])
    # No libcuda in the guest, so no dlopen: a static binary needs none of the host's libraries.
    flags = ["-O2", "-std=c++20", "-static", "-DFORCE_SWAP_NO_CUDA"]
    _compile(["g++", *flags], SOURCE, programs["force_swap"])
    return programs


def _compile(command: list[str], source: Path, target: Path) -> None:
    if target.exists() and target.stat().st_mtime > source.stat().st_mtime:
        return
    done = subprocess.run(
        [*command, "-o", target, source], check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise AssertionError(f"{source.name} does not compile:\n{done.stderr[-4000:]}")


def write(target: Path, fetched: Fetched, programs: Mapping[str, Path]) -> None:
    """Write the compressed archive that the kernel unpacks as its root."""
    archive = Archive()
    for folder in FOLDERS:
        archive.folder(folder)
    archive.console("dev/console")
    archive.file("bin/busybox", BUSYBOX.read_bytes())
    for name, path in programs.items():
        archive.file(f"bin/{name}", path.read_bytes())
    for path in fetched.modules:
        archive.file(f"modules/{path.name}", path.read_bytes())
    order = "".join(f"{path.name}\n" for path in fetched.modules)
    archive.file("modules/order", order.encode())
    for script in sorted((HERE / "guest").glob("*.sh")):
        archive.file(script.stem if script.stem == "init" else script.name, script.read_bytes())
    target.write_bytes(gzip.compress(archive.finished(), compresslevel=1))


@dataclass
class Archive:
    """A cpio archive in the making. All entries belong to root."""

    _blocks: list[bytes] = field(default_factory=list)

    def folder(self, name: str) -> None:
        """Add a folder."""
        self._add(name, 0o040755, b"")

    def file(self, name: str, content: bytes) -> None:
        """Add a file that may be executed."""
        self._add(name, 0o100755, content)

    def console(self, name: str) -> None:
        """Add the console's device node: init has no output before it mounts /dev."""
        self._add(name, 0o020600, b"", device=(5, 1))

    def finished(self) -> bytes:
        """Return the whole archive."""
        self._add("TRAILER!!!", 0, b"")
        return b"".join(self._blocks)

    def _add(self, name: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        path = name.encode() + b"\0"
        # inode, mode, uid, gid, links, time, size, device, rdev, name size, checksum
        numbers = (len(self._blocks) + 1, mode, 0, 0, 1, 0, len(content), 0, 0, *device)
        head = b"070701" + b"".join(b"%08X" % number for number in (*numbers, len(path), 0))
        self._blocks.append(_padded(head + path) + _padded(content))


def _padded(block: bytes) -> bytes:
    return block + b"\0" * (-len(block) % 4)
