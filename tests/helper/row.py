"""One row of the CLI table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """Arguments on a machine with a kernel -> exit code, fields of the report, bits of stderr.

    ``args`` is split at blanks, ``{root}`` is the machine's folder; ``fields`` are paths into the
    report; ``cuda`` names the stub (``""`` whole, ``old``, None absent), ``env`` tells it what to
    say; ``bare`` leaves the fake roots out.
    """

    name: str
    args: str
    exit_code: int
    fields: Mapping[str, Any] = field(default_factory=dict)
    stderr: tuple[str, ...] = ()
    stdout: tuple[str, ...] = ()
    machine: str = "spark"
    kernel: str = "6.17"
    cuda: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    bare: bool = False
