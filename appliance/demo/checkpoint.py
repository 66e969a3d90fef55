"""Trains the demo's checkpoint once, and again when what it is made from has changed."""

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from appliance.errors import HostError

PACKAGE = Path(__file__).parents[1]
PROJECT = PACKAGE.parent

# What the trained answers depend on: a folder's files, but for those that only set up and start.
_SOURCES = ("demo/*.py", "probes.py", "prompt.py", "prompts/*.txt", "../extras/chat_template.jinja")
_SET_UP = {"__main__.py", "checkpoint.py", "envdir.py", "install.py", "piprun.py", "preflight.py"}


def ensure_checkpoint(folder: Path, python: Path, say: Callable[[str], None]) -> None:
    """Make sure that ``folder`` holds the checkpoint of these sources.

    ``python`` is the engine's, which has PyTorch. Raises HostError when training fails.
    """
    stamp = folder.with_suffix(".stamp")
    digest = sources_digest()
    if (folder / "config.json").is_file() and _read(stamp) == digest:
        return
    say("training the demo's tiny model, once: about two minutes")
    stamp.unlink(missing_ok=True)
    _train(folder, python, say)
    stamp.write_text(digest + "\n", encoding="ascii")


def sources_digest() -> str:
    """Return the SHA-256 of everything that the trained answers depend on."""
    digest = hashlib.sha256()
    for pattern in _SOURCES:
        for path in sorted(PACKAGE.glob(pattern)):
            if path.name not in _SET_UP:
                digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _train(folder: Path, python: Path, say: Callable[[str], None]) -> None:
    argv = [str(python), "-m", "appliance.demo.train", "--out", str(folder)]
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    env = {**keep, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    lines: list[str] = []
    with subprocess.Popen(
        argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            say(f"  {lines[-1]}")
    if process.returncode != 0:
        last = "\n  | ".join(lines[-5:])
        raise HostError(
            f"training the demo's model failed (exit code {process.returncode}):\n  | {last}",
            "make demo tries again; rm -r .demo begins anew",
        )


def _read(stamp: Path) -> str:
    try:
        return stamp.read_text(encoding="ascii").strip()
    except OSError:
        return ""
