"""Two sides of the tokenizer check for tests: an engine's Python, and an engine that is asked.

Both read a text byte by byte, unless they are told to differ.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

VERSIONS = {"transformers": "5.3.0"}
BYTES = (
    "import json, runpy, sys\n"
    "script = runpy.run_path(sys.argv[-1])\n"
    "asked = json.load(sys.stdin)\n"
    "digests = [script['digest'](list(text.encode())) for text in asked['texts']]\n"
    "json.dump({'digests': digests, 'versions': {'transformers': '5.3.0'}}, sys.stdout)\n"
)


def ids(text: str) -> list[int]:
    """Return a text's ids."""
    return list(text.encode())


class Tokens:
    """An engine's /tokenize that reads some texts in its own way."""

    def __init__(self, differs: Callable[[str], bool] = lambda text: False) -> None:
        self.differs = differs
        self.asked: list[str] = []

    async def __call__(self, text: str) -> Sequence[int]:
        self.asked.append(text)
        return [*ids(text), 0] if self.differs(text) else ids(text)


def program(folder: Path, body: str, name: str = "python3") -> Path:
    """Return a program that stands for the engine's Python."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{body}")
    path.chmod(0o755)
    return path


def write_folder(folder: Path) -> Path:
    """Put a tokenizer.json into a model's folder, that a real library could not read."""
    (folder / "tokenizer.json").write_text("{}")
    return folder
