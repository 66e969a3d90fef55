#!/usr/bin/env python3
"""Packs each command into one file that runs without the clone: ``zipapps.py FOLDER``.

Into it goes what the command imports of this project, and nothing else: delete_experts needs the
standard library alone, quantize_attention numpy too. The same sources give the same bytes: nothing
is compressed, nothing tells the time.
"""

import ast
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "delete_experts": "appliance.checkpoint.command",
    "quantize_attention": "appliance.checkpoint.quantisecommand",
}
MAIN = """\
import sys

if sys.version_info < (3, 11):
    sys.exit(f"NAME needs Python 3.11 or later, and this is {sys.version.split()[0]}")

from COMMAND import main

sys.exit(main())
"""
_WHEN = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can tell


def main(arguments: list[str]) -> int:
    """Write the zipapps into the folder that is named; return the exit code."""
    if len(arguments) != 1:
        print("usage: zipapps.py FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, command in COMMANDS.items():
        path = folder / f"{name}.pyz"
        pack(path, name, command)
        print(f"{path} ({path.stat().st_size:,} bytes): python3 {path} --help")
    return 0


def pack(path: Path, name: str, command: str) -> None:
    """Write one zipapp."""
    contents = {"__main__.py": MAIN.replace("NAME", name).replace("COMMAND", command).encode()}
    contents |= {file: (ROOT / file).read_bytes() for file in needed(command)}
    with path.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w") as archive:
            for file_name in sorted(contents):
                archive.writestr(zipfile.ZipInfo(file_name, _WHEN), contents[file_name])
    path.chmod(0o755)


def needed(module: str) -> set[str]:
    """Return the files of this project that a module imports, at once or later, and its own."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        path = _file_of(waiting.pop())
        if path is None or path.as_posix() in found:
            continue
        found.add(path.as_posix())
        waiting += _imported(ROOT / path)
        waiting += [".".join(parent.parts) for parent in path.parents if parent.parts]
    return found


def _file_of(module: str) -> Path | None:
    base = Path(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if (ROOT / path).is_file()), None)


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("appliance."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("appliance"):
            yield str(node.module)
            yield from (f"{node.module}.{name.name}" for name in node.names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
