"""Which engine this is: what the image's build wrote into ENGINE.json, for doctor and /health.

The file lies in the engine's environment, so it is found from the engine's command: for
``/opt/engine/bin/vllm`` it is ``/opt/engine/ENGINE.json``. An engine without one is the host's own.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NAME = "ENGINE.json"
FORMAT = 1
HOST, UNKNOWN = "host", "unknown"

_SOURCES = {
    "wheel": "the stock wheel",
    "build": "compiled from source",
    "cpu": "the CPU wheel of the demo",
}


@dataclass(frozen=True)
class EngineFacts:
    """What an engine was made from.

    ``source`` is ``wheel``, ``build`` or ``cpu``; ``host`` where no build said anything, and
    ``unknown`` where a file is there that cannot be read: ``problem`` then says why.
    """

    source: str
    vllm: str = ""  # the release, as "0.33.0"
    target: str = ""  # the box that it was made for; "" for any
    patches: tuple[str, ...] = ()
    problem: str = ""

    @property
    def summary(self) -> str:
        """One line for people."""
        if self.source == HOST:
            return "engine of the host"
        if self.source == UNKNOWN:
            return f"unknown engine: {self.problem}"
        box = f" for {self.target}" if self.target else ""
        named = ", ".join(self.patches) or "no patches"
        return f"vLLM {self.vllm}, {_SOURCES[self.source]}{box}; {named}"

    def as_json(self) -> dict[str, Any]:
        """Return the fields for /health and ``--json``."""
        return {**asdict(self), "patches": list(self.patches)}


def engine_facts(command: Sequence[str]) -> EngineFacts:
    """Return what is known about the engine that ``command`` starts. Never raises."""
    program = shutil.which(command[0]) if command else None
    if program is None:
        return EngineFacts(HOST)
    # A venv's python is a link out of it, and a link to its vllm leads into it: look both ways.
    for path in (Path(program), Path(program).resolve()):
        file = path.absolute().parent.parent / NAME
        if file.is_file():
            return read_engine_facts(file)
    return EngineFacts(HOST)


def read_engine_facts(file: Path) -> EngineFacts:
    """Return what the file says. Never raises: one that cannot be read is an ``unknown`` engine."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        facts = EngineFacts(
            source=raw["source"],
            vllm=str(raw["vllm"]),
            target=str(raw.get("target") or ""),
            patches=tuple(map(str, raw["patches"])),
        )
        known = raw["format"] == FORMAT and facts.source in _SOURCES
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as cause:
        return EngineFacts(UNKNOWN, problem=f"{file} cannot be read: {cause!r}")
    if not known:
        return EngineFacts(
            UNKNOWN, problem=f"{file} is of a format that this version does not know"
        )
    return facts
