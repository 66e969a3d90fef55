"""What a person, or a program, reads of a checkup."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from appliance.doctor.checkup import checkup, read_case
from appliance.doctor.row import Level, Row, exit_code

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


def print_checkup(flags: Mapping[str, Any], folder: Path, *, as_json: bool) -> int:
    """Look at this host and print what was found; 1 when something keeps it from serving."""
    rows = checkup(read_case(flags, folder))
    return _as_json(list(rows)) if as_json else _as_lines(rows)


def _as_json(rows: list[Row]) -> int:
    code = exit_code(rows)
    print(json.dumps({"ok": code == 0, "rows": [asdict(row) for row in rows]}, indent=2))
    return code


def _as_lines(rows: Iterable[Row]) -> int:
    console = Console(soft_wrap=True, highlight=False)
    told = []
    for row in rows:
        console.print(row_text(row))
        told.append(row)
    counts = Counter(row.level for row in told)
    failed = [row.name for row in told if row.level is Level.FAIL]
    verdict = f"{len(failed)} FAILED: {', '.join(failed)}" if failed else "nothing failed"
    console.print(f"{counts[Level.OK]} ok, {counts[Level.WARN]} to know of, {verdict}")
    return exit_code(told)


def row_text(row: Row) -> Text:
    """Return a row as it is printed: the level, the name, what was found, what to type."""
    head = Text(f"{row.level.value:<5}", _STYLES[row.level])
    hint = f"\n{'':21}-> {row.next}" if row.next else ""
    return Text.assemble(head, f" {row.name:<14} {row.value}{hint}")
