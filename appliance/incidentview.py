"""What ``appliance incidents`` prints: the last incidents as a table, or one with all there is."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from appliance.plaintext import plain
from appliance.sizes import format_size

Fields = Mapping[str, Any]

NO_INCIDENT = "no incident: the engine has not ended or failed unasked"


def print_incidents(incidents: Sequence[Fields]) -> None:
    """Print a row for each incident, in the order given (the control API's: newest first).

    What happened stands below its row, so that it is whole on a narrow terminal too.
    """
    console = _console()
    if not incidents:
        console.print(NO_INCIDENT)
        return
    rows = [("id", "when", "code", "next")]
    for one in incidents:
        shown = (plain(one.get(name)) for name in ("id", "code", "next"))
        incident_id, code, following = shown
        rows.append((incident_id, _when(one), code, following))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    below = ["", *(plain(one.get("what")) for one in incidents)]
    for row, what in zip(rows, below, strict=True):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.print("  ".join(cells).rstrip())
        if what:
            console.print(f"    {what}")
    console.print("\nappliance incidents show ID tells all about one, with its log")


def print_incident(incident: Fields) -> None:
    """Print everything about one incident; the log's excerpt comes last, where the eye ends."""
    console = _console()
    _pairs(console, _summary(incident))
    if memory := incident.get("memory"):
        _heading(console, "memory")
        console.print(_memory(memory))
    if planned := (incident.get("memory") or {}).get("plan"):
        _heading(console, "the memory plan")
        _pairs(console, {name: format_size(size) for name, size in planned.items()})
    if processes := incident.get("processes"):
        _heading(console, "the largest processes (memory that a GPU holds counts with none)")
        _pairs(console, {name: format_size(size) for name, size in processes.items()})
    if metrics := incident.get("metrics"):
        _heading(console, "metrics")
        _pairs(console, {name: _number(value) for name, value in metrics.items()})
    plan = incident.get("plan") or {}
    if plan.get("argv"):
        _heading(console, "plan")
        for name, value in sorted((plan.get("env") or {}).items()):
            console.print(plain(f"{name}={shlex.quote(str(value))} \\"))
        console.print(plain(shlex.join(map(str, plan["argv"]))))
    for process, text in (incident.get("stacks") or {}).items():
        _heading(console, f"stacks of {process}")
        _excerpt(console, str(text).splitlines())
    if lines := incident.get("lines"):
        _heading(console, "the engine's last lines")
        _excerpt(console, lines)
    else:
        console.print("\nthe engine had said nothing")


def _summary(incident: Fields) -> dict[str, str]:
    code, grade = plain(incident.get("code")), plain(incident.get("grade"))
    state, phase = plain(incident.get("state")), plain(incident.get("phase"))
    running, waiting = incident.get("requests_running", 0), incident.get("requests_waiting", 0)
    return {
        "incident": plain(incident.get("id")),
        "when": _when(incident),
        "what": plain(incident.get("what")),
        "type next": plain(incident.get("hint")),
        "then": plain(incident.get("next")),
        "code": f"{code} ({grade})" if grade else code,
        "state": f"{state}, {phase}" if phase else state,
        "engine": f"spawn {incident.get('spawn', '?')}, up {_length(incident.get('uptime_s'))}",
        "exit": plain(incident.get("exit")),
        "requests": f"{running} running, {waiting} waiting",
    }


def _memory(memory: Mapping[str, Mapping[str, int]]) -> Table:
    moments = [moment for moment in ("before", "after") if memory.get(moment)]
    names = dict.fromkeys(name for moment in moments for name in memory[moment])
    table = Table("", *(Column(m, justify="right") for m in moments), box=None, pad_edge=False)
    for name in names:
        sizes = (memory[moment].get(name) for moment in moments)
        table.add_row(plain(name), *("-" if s is None else format_size(s) for s in sizes))
    return table


def _pairs(console: Console, rows: Mapping[str, str]) -> None:
    # No table: it would fold a hint that is there to be copied.
    width = max(map(len, rows))
    for name, value in rows.items():
        if value:
            console.print(f"{plain(name).ljust(width)}  {value}")


def _heading(console: Console, text: str) -> None:
    console.print(f"\n{plain(text)}", style="bold")


def _excerpt(console: Console, lines: Sequence[Any]) -> None:
    for line in lines:
        console.print(f"  | {plain(line)}")


def _when(incident: Fields) -> str:
    # "2026-11-23T04:15:00.123456+00:00" and "…Z" are both ISO 8601
    day, _, moment = plain(incident.get("at")).partition("T")
    return f"{day} {moment[:8]} UTC" if moment else day


def _length(seconds: Any) -> str:
    """Return a length as people say it."""
    if not isinstance(seconds, int | float):
        return "for an unknown time"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else "-"


def _console() -> Console:
    return Console(soft_wrap=True, highlight=False, markup=False)
