"""The page's sections of what was found: incidents, host, versions, settings, log. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from appliance.accept.markup import e, folded, lines, pairs, row, section, table
from appliance.fieldtypes import is_size
from appliance.settings import Settings
from appliance.sizes import format_size

Tree = Mapping[str, Any]


def evidence_sections(tree: Tree) -> Iterator[str]:
    """Yield the sections of the evidence that is there."""
    yield _incidents(tree.get("incidents") or ())
    yield from _checks(tree)
    yield _versions(tree)
    yield from _settings(tree)
    yield from _log(tree)


# ---- incidents


def _incidents(incidents: Sequence[Tree]) -> str:
    if not incidents:
        return section("Incidents", "<p>None: the engine has not ended or failed unasked.</p>")
    return section("Incidents", "".join(map(_incident, incidents)), is_long=True)


def _incident(incident: Tree) -> str:
    day, _, moment = str(incident.get("at") or "").partition("T")
    facts = {
        "what": incident.get("what"),
        "type next": incident.get("hint"),
        "then": incident.get("next"),
        "state": " ".join(filter(None, (incident.get("state"), incident.get("phase")))),
        "exit": incident.get("exit"),
        "spawn": incident.get("spawn"),
        "up": f"{float(incident.get('uptime_s') or 0):.0f} s",
    }
    body = pairs({name: value for name, value in facts.items() if value not in (None, "")})
    for when, sizes in (incident.get("memory") or {}).items():
        told = {name: format_size(size) for name, size in sizes.items()}
        body += folded(f"Memory, {when}", pairs(told))
    if found := incident.get("lines"):
        body += folded(f"The engine's last {len(found)} lines", lines(found))
    head = f"<strong>{e(incident.get('code'))}</strong> · {e(day)} {e(moment[:8])} UTC"
    return f'<div class="bad-note"><p>{head}</p>{body}</div>'


# ---- checks


def _checks(tree: Tree) -> Iterator[str]:
    if rows := tree.get("doctor"):
        yield section("Host", _doctor(rows), "What appliance doctor found on it.")
    if checks := tree.get("smoke"):
        told = (
            _pill("ok" if each["passed"] else "fail")
            + f'<td class="k">{e(each["name"])}</td><td class="r">{each["seconds"]:.2f} s</td>'
            f'<td class="long">{e(each["detail"])}</td></tr>'
            for each in checks
        )
        yield section("Smoke checks", table(("", "check", ">took", "detail"), told, "stack"))


def _doctor(rows: Sequence[Tree]) -> str:
    told = []
    for each in rows:
        value = e(each["value"])
        if each.get("next"):
            value += f'<span class="next">→ <code>{e(each["next"])}</code></span>'
        cells = f'<td class="k">{e(each["name"])}</td><td class="long">{value}</td>'
        told.append(f"{_pill(str(each['level']))}{cells}</tr>")
    return table(("", "what", "found"), told, "stack")


def _pill(level: str) -> str:
    known = level if level in ("ok", "warn", "fail") else "warn"
    return f'<tr><td><span class="pill {known}">{known}</span></td>'


# ---- versions and settings


def _versions(tree: Tree) -> str:
    status = tree.get("status") or {}
    build = status.get("engine_build") or {}
    facts = dict(tree["versions"])
    if build:
        facts["engine"] = " ".join(filter(None, (build.get("source"), build.get("vllm"))))
        facts["patches"] = ", ".join(build.get("patches") or ()) or "none"
    shown = ("state", "reason", "since", "spawn", "safer_plans", "max_model_len", "degraded")
    now = {name.replace("_", " "): status[name] for name in shown if status.get(name)}
    body = pairs(facts)
    if now:
        body += f"<h3>The engine now</h3>{pairs(now)}"
    if kept := tree.get("kept"):
        body += f"<h3>What the appliance keeps of its engine</h3>{pairs(kept)}"
    return section("Versions and state", body)


def _settings(tree: Tree) -> Iterator[str]:
    settings = tree.get("settings") or ()
    command = tree.get("command") or {}
    if not (settings or command):
        return
    chosen = [each for each in settings if each["origin"] != "default"]
    body = _rows(chosen) if chosen else ""
    if usual := [each for each in settings if each["origin"] == "default"]:
        body += folded(f"{len(usual)} settings at their defaults", _rows(usual))
    if command.get("argv"):
        words = [f"{name}={value}" for name, value in sorted((command.get("env") or {}).items())]
        body += folded("The engine's command", lines([*words, *_flags(command["argv"])]))
    lead = "Settings that are not at their defaults, and where each is from. Keys are not shown."
    yield section("Settings", body, lead, is_long=True)


def _flags(argv: Sequence[Any]) -> list[str]:
    """Return a command with each flag, and what belongs to it, on a line."""
    told: list[str] = []
    for word in map(str, argv):
        if told and not word.startswith("--"):
            told[-1] += f" {word}"
        else:
            told.append(word)
    return told


def _rows(settings: Sequence[Tree]) -> str:
    told = (
        row(each["name"], _value(each["name"], each["value"]), each["origin"], kinds="cc")
        for each in settings
    )
    return table(("setting", "value", "from"), told, "settings")


def _value(name: str, value: Any) -> str:
    field = Settings.model_fields.get(name)
    if field and is_size(field) and isinstance(value, int):
        return format_size(value)
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)


# ---- log and metrics


def _log(tree: Tree) -> Iterator[str]:
    body = ""
    if found := tree.get("log"):
        body += folded(f"The engine's last {len(found)} lines, redacted", lines(found))
    if metrics := tree.get("metrics"):
        told = (row(name, f"{value:,.6g}", kinds="cr") for name, value in sorted(metrics.items()))
        body += folded(f"{len(metrics)} metrics", table(("metric", ">value"), told))
    if body:
        yield section("Log and metrics", body, is_long=True)
