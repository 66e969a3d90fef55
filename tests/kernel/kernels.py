"""The kernels: fetched from Debian by package name, taken apart, kept under ``build/kernel``.

Nothing is installed. apt runs with a configuration of its own, so that the machine's own lists
and packages stay as they are. The mirror is the one that the machine itself uses.
"""

import json
import lzma
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

META = "linux-image-cloud-amd64"
PARTS = re.compile(r"linux-(?:image|binary|modules)-[\w.+~-]+")
# virtio for the disks, zram for the swap that is none; lzo-rle and crc32c are asked for by name,
# which a guest without modprobe cannot answer. What is built in has no file and is left out.
WANTED = ("virtio_pci", "virtio_blk", "lzo-rle", "lz4", "crc32c_generic", "ext4", "zram")


@dataclass(frozen=True)
class Kernel:
    """A kernel to test on. ``form``: how this one takes ``memory.reclaim``."""

    name: str
    suite: str
    form: str
    prefer: str = ""  # a pattern of package names that goes before the suite's newest kernel


@dataclass(frozen=True)
class Fetched:
    """A kernel on disk: the image, and its modules in the order in which they load."""

    kernel: Kernel
    release: str
    image: Path
    modules: tuple[Path, ...]


KERNELS = (
    Kernel("6.1", "bookworm", "plain"),
    Kernel("6.12", "trixie", "swappiness=200"),
    # DGX OS 7 runs 6.17: the same memory management as on a Spark, as long as Debian lists it.
    Kernel("6.17", "trixie-backports", "swappiness=max", r"linux-image-6\.17\.\d+\+deb13-cloud"),
    Kernel("newest", "trixie-backports", "swappiness=max"),
)


def fetch(kernel: Kernel, cache: Path) -> Fetched:
    """Return the kernel from the cache, or from Debian's mirror (30 to 50 MB)."""
    home = cache / kernel.name
    if not (home / "kernel.json").exists():
        fresh = cache / f"{kernel.name}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        _take(kernel, fresh)
        shutil.rmtree(home, ignore_errors=True)
        fresh.rename(home)
    facts = json.loads((home / "kernel.json").read_text(encoding="utf-8"))
    modules = tuple(home / name for name in facts["modules"])
    return Fetched(kernel, facts["release"], home / "vmlinuz", modules)


def _take(kernel: Kernel, home: Path) -> None:
    apt = _Apt(home / "apt", kernel.suite)
    debs = apt.download(apt.with_parts(apt.choose(kernel.prefer)))
    tree = home / "tree"
    tree.mkdir()
    for deb in debs:
        subprocess.run(["dpkg-deb", "-x", deb, tree], check=True)
    (image,) = (path for path in tree.rglob("vmlinuz*") if path.is_file())
    image.rename(home / "vmlinuz")
    (kernel_tree,) = (path.parent for path in tree.rglob("lib/modules/*/kernel"))
    names = [path.name for path in _unpacked(kernel_tree, home)]
    facts = {"release": kernel_tree.name, "modules": names}
    (home / "kernel.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    shutil.rmtree(tree)
    shutil.rmtree(home / "apt")


def _unpacked(kernel_tree: Path, home: Path) -> list[Path]:
    """Write the wanted modules and those that they need into ``home``, in loading order."""
    files = {_canonical(path.name): path for path in kernel_tree.rglob("*.ko*")}
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in ordered or name not in files:
            return
        content = files[name].read_bytes()
        if files[name].suffix == ".xz":
            content = lzma.decompress(content)
        for needed in needs(content):
            add(_canonical(needed))
        ordered[name] = content

    for name in WANTED:
        add(_canonical(name))
    paths = []
    for name, content in ordered.items():
        path = home / f"{name}.ko"
        path.write_bytes(content)
        paths.append(path)
    return paths


def needs(module: bytes) -> list[str]:
    """Return the modules that a module names in its ``depends=``."""
    found = re.search(rb"\0depends=([\w,-]*)\0", module)
    return [name for name in found[1].decode().split(",") if name] if found else []


def _canonical(name: str) -> str:
    return name.split(".ko")[0].replace("-", "_")


class _Apt:
    """apt with its own folder: its own suite, lists and downloads."""

    def __init__(self, home: Path, suite: str) -> None:
        for folder in ("state/lists/partial", "cache/archives/partial", "debs"):
            (home / folder).mkdir(parents=True)
        self._home = home
        (home / "sources.list").write_text(f"deb {_mirror()} {suite} main\n", encoding="utf-8")
        (home / "apt.conf").write_text(
            f'Dir::State "{home}/state";\nDir::Cache "{home}/cache";\n'
            f'Dir::Etc::SourceList "{home}/sources.list";\nDir::Etc::SourceParts "/dev/null";\n'
            'Dir::State::status "/dev/null";\nAcquire::Languages "none";\n'
            'APT::Architecture "amd64";\nAPT::Architectures "amd64";\nAPT::Sandbox::User "root";\n',
            encoding="utf-8",
        )
        self._run("apt-get", "-qq", "update")

    def choose(self, prefer: str) -> str:
        """Return the newest package that matches, else the suite's kernel."""
        names = self._run("apt-cache", "pkgnames", "linux-image-").split()
        fitting = sorted(
            (name for name in names if prefer and re.fullmatch(f"{prefer}-amd64", name)),
            key=lambda name: [int(number) for number in re.findall(r"\d+", name)],
        )
        return fitting[-1] if fitting else META

    def with_parts(self, package: str) -> list[str]:
        """Return the package and the kernel packages that it depends on."""
        found: dict[str, None] = {}
        waiting = [package]
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found[name] = None
            shown = self._run("apt-cache", "show", "--no-all-versions", name)
            depends = re.findall(r"^(?:Pre-)?Depends: (.*)$", shown, re.MULTILINE)
            waiting += [part for line in depends for part in PARTS.findall(line)]
        return list(found)

    def download(self, packages: Sequence[str]) -> Iterable[Path]:
        """Fetch the packages; apt checks them against the suite's signature."""
        self._run("apt-get", "-qq", "download", *packages, cwd=self._home / "debs")
        return sorted((self._home / "debs").glob("*.deb"))

    def _run(self, *argv: str, cwd: Path | None = None) -> str:
        environment = {**os.environ, "APT_CONFIG": str(self._home / "apt.conf"), "LC_ALL": "C"}
        done = subprocess.run(
            argv, env=environment, cwd=cwd, check=False, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(argv)} failed: {done.stderr.strip()}")
        return done.stdout


def _mirror() -> str:
    """Return the mirror of the machine's own Debian sources, or KERNEL_MIRROR."""
    if given := os.environ.get("KERNEL_MIRROR"):
        return given
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)"],
        check=False,
        capture_output=True,
        text=True,
    )
    for line in done.stdout.splitlines():
        origin, label, uri = line.split("|", 2)
        if (origin, label) == ("Debian", "Debian"):
            return uri
    raise AssertionError(
        "no Debian mirror in this machine's apt sources: type apt-get update first,"
        " or set KERNEL_MIRROR=URI"
    )
