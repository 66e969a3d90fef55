#!/usr/bin/env python3
"""Receives what ``tests.gpu.pack`` made, part by part, and installs it in one folder.

    python3 unpack.py PARTS --into FOLDER

PARTS is a folder that holds manifest.json and any of the parts. Each call checks the parts that it
finds against their sha256 and keeps them; the call that brings the last one unpacks all of them.
Standard library alone, any Python 3.11 or later: this is the first thing that runs on the machine.
The Python that runs it is the one that the programs in FOLDER/bin will use.
"""

import argparse
import hashlib
import io
import json
import lzma
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
READY = "ready.json"  # written last: what is installed is whole
# What each launcher in FOLDER/bin runs.
LAUNCHERS = {
    "python": "",
    "vllm": "-m vllm.entrypoints.cli.main",
    "appliance": "-c 'import sys; from appliance.cli import main; sys.exit(main())'",
}


class BadPart(Exception):
    """A part that is not what the manifest says, or none that it knows."""


class Joined(io.RawIOBase):
    """The parts read as the one file that they were cut from."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._left = list(paths)
        self._file: io.BufferedReader | None = None

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` from the part that is due; 0 at the end of the last one."""
        while True:
            if self._file is None:
                if not self._left:
                    return 0
                self._file = self._left.pop(0).open("rb")
            count = self._file.readinto(buffer)
            if count:
                return count
            self._file.close()
            self._file = None


def receive(source: Path, folder: Path) -> list[str]:
    """Keep the parts that lie in ``source``; return the names of those that are still missing.

    Raises BadPart for one whose bytes are not the manifest's.
    """
    wanted: dict[str, str] = json.loads((source / MANIFEST).read_text())["parts"]
    kept = folder / "parts"
    kept.mkdir(parents=True, exist_ok=True)
    for name, digest in wanted.items():
        path = source / name
        if path.is_file() and not (kept / name).exists():
            found = sha256(path)
            if found != digest:
                raise BadPart(f"{name} has sha256 {found}, not {digest}: send it again")
            shutil.copyfile(path, kept / f"{name}.new")
            (kept / f"{name}.new").rename(kept / name)
    shutil.copyfile(source / MANIFEST, kept / MANIFEST)
    return [name for name in wanted if not (kept / name).exists()]


def sha256(path: Path) -> str:
    """Return a file's sha256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def install(folder: Path) -> None:
    """Unpack the kept parts into ``folder``, write the launchers, and drop the parts."""
    kept = folder / "parts"
    manifest = json.loads((kept / MANIFEST).read_text())
    joined = io.BufferedReader(Joined([kept / name for name in manifest["parts"]]), 1 << 20)
    with lzma.open(joined) as plain, tarfile.open(fileobj=plain, mode="r|") as archive:
        archive.extractall(folder, filter="data")
    write_launchers(folder, Path(sys.executable))
    # else the first start of an engine does it, on one core; templates that are no Python fail
    compile_all = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "compileall",
        "-qq",
        "-j",
        "0",
        str(folder / "site"),
    ]
    subprocess.run(compile_all, check=False)
    shutil.rmtree(kept)
    (folder / READY).write_text(json.dumps(manifest, indent=2))


def write_launchers(folder: Path, python: Path) -> None:
    """Write FOLDER/bin: programs that see FOLDER/site first, and the machine's own packages."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    quoted = (shlex.quote(str(folder)), shlex.quote(str(python)))
    for name, arguments in LAUNCHERS.items():
        site = f"{quoted[0]}/site" if name == "python" else f"{quoted[0]}/site:{quoted[0]}/source"
        command = f'PYTHONPATH={site} exec {quoted[1]} {arguments} "$@"'
        (programs / name).write_text(f"#!/bin/sh\n{command}\n")
        (programs / name).chmod(0o755)


def main(arguments: Sequence[str] | None = None) -> int:
    """Receive, and with the last part install; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="PARTS", help="manifest.json and parts")
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER", help="made if needed")
    options = parser.parse_args(arguments)
    folder: Path = options.into.expanduser().resolve()
    if (folder / READY).exists():
        print(f"{folder} is complete already; remove it to begin anew")
        return 0
    began = time.monotonic()
    try:
        missing = receive(options.source, folder)
    except (BadPart, OSError) as cause:
        print(f"unpack: {cause}", file=sys.stderr)
        return 1
    if missing:
        print(f"kept in {folder}; still missing: {', '.join(missing)}")
        return 0
    print(f"all parts are here, unpacking into {folder}", flush=True)
    install(folder)
    programs = ", ".join(sorted(os.listdir(folder / "bin")))
    print(f"installed in {time.monotonic() - began:.0f} s: {folder}/bin has {programs}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
