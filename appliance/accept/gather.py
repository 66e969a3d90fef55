"""What is there to tell of an appliance: from itself where it answers, from its folder if not."""

import os
import platform
import pwd
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from appliance import __version__
from appliance.accept.anonymous import Who
from appliance.accept.box import Box
from appliance.accept.keptstate import read_kept
from appliance.errors import ApplianceError, HostError
from appliance.host import memory_snapshot
from appliance.incidents import IncidentStore
from appliance.redaction import RedactionGate, debug_switches
from appliance.settings import SECRETS, load_settings

LINES = 120
INCIDENTS = 5
INCIDENT_LINES = 40
_METRICS = ("appliance_", "vllm:num_requests", "vllm:kv_cache_usage", "vllm:prompt_tokens",
            "vllm:generation_tokens", "vllm:prefix_cache", "vllm:num_preemptions")  # fmt: skip
_LEFT_OUT = ("by_key",)  # the names of clients' keys are people's names
_FIRST_USER = 1000  # whose accounts are people's


def gather(box: Box) -> dict[str, Any]:
    """Return all that is known of ``box``, for a report. Never raises for what is not there."""
    evidence: dict[str, Any] = {
        "answers": False,
        "versions": {"appliance": __version__, "python": platform.python_version(),
                     "kernel": platform.release(), "machine": platform.machine()},
        "host": memory_snapshot() if box.is_here else {},
    }  # fmt: skip
    try:
        evidence |= _live(box)
    except (HostError, KeyError) as cause:
        evidence["trouble"] = str(getattr(cause, "what", cause))
        evidence |= _kept(box)
    return evidence


def _live(box: Box) -> dict[str, Any]:
    status, plan = box.status(), box.plan()
    memory = status.pop("memory", None)
    status.pop("last_lines", None)
    for name in _LEFT_OUT:
        status["requests"].pop(name, None)
    lines = box.operator.call("GET", f"/logs?lines={LINES}")["lines"]
    talks = bool(plan["settings"].get("engine_debug"))
    return {
        "answers": True,
        "status": status,
        "memory": memory,
        "settings": in_force(plan["settings"]),
        "command": plan["command"],
        "incidents": [_incident(incident) for incident in box.incidents()[:INCIDENTS]],
        "log": shown_lines([str(line["text"]) for line in lines], talks=talks),
        "metrics": _metrics(box),
    }


def _kept(box: Box) -> dict[str, Any]:
    """Return what the state folder of an appliance that does not answer tells."""
    folder, settings = box.operator.state_dir, box.settings
    if not box.is_here:
        return {}
    found = IncidentStore(folder / "incidents").list()[:INCIDENTS]
    kept: dict[str, Any] = {
        "settings": [
            _row(name, value, settings.origin(name))
            for name, value in settings.model_dump(mode="json").items()
        ],
        "incidents": [_incident(msgspec.to_builtins(incident)) for incident in found],
    }
    if engine := read_kept(folder):
        kept["kept"] = {
            "failures of this boot": len(engine.failures),
            "safer plans": engine.rung,
            "is wanted": engine.wanted,
            "gave up": engine.gave_up.what if engine.gave_up else "no",
            "learned": dict(engine.learned),
        }
    return kept


def in_force(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a running appliance's settings, each with where it can only be from.

    It does not tell where it had them, so each is compared with what its profiles give.
    """
    chosen = {name: settings[name] for name in ("profile", "model_profile") if name in settings}
    usual = load_settings({}, chosen)
    plain = usual.model_dump(mode="json")
    rows = []
    for name, value in settings.items():
        origin = usual.origin(name) if name not in chosen else "chosen"
        rows.append(_row(name, value, origin if value == plain.get(name) else "chosen"))
    return rows


def _row(name: str, value: Any, origin: str) -> dict[str, Any]:
    if name in SECRETS:
        value = "(set)" if value else None
    return {"name": name, "value": value, "origin": origin}


def _incident(incident: Mapping[str, Any]) -> dict[str, Any]:
    plan = incident.get("plan") or {}
    names = ("id", "at", "spawn", "state", "phase", "code", "grade", "what", "hint", "next", "exit")
    told = {name: incident.get(name) for name in (*names, "uptime_s", "memory", "processes")}
    argv, env = plan.get("argv") or (), plan.get("env") or {}
    lines = [str(line) for line in incident.get("lines") or ()][-INCIDENT_LINES:]
    talks = bool(debug_switches([str(word) for word in argv], env))
    return {**told, "lines": shown_lines(lines, talks=talks)}


def shown_lines(lines: list[str], *, talks: bool) -> list[str]:
    """Return the engine's lines; those of an engine that was told to log prompts, once more sifted.

    While it may ``talk``, its lines came here unsifted, and people's texts with them.
    """
    if not talks:
        return lines
    gate = RedactionGate()
    gate.strict = True
    return [gate.pass_line(line) for line in lines]


def _metrics(box: Box) -> dict[str, float]:
    found: dict[str, float] = {}
    with suppress(HostError, ValueError):
        for family in text_string_to_metric_families(box.get("/metrics").text):
            if not family.name.startswith(_METRICS) or "key" in family.name.split("_"):
                continue
            for sample in family.samples:
                if not sample.name.endswith(("_bucket", "_created")):
                    labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
                    found[sample.name + (f" {labels}" if labels else "")] = sample.value
    return found


def who(box: Box) -> Who:
    """Return what is known of whose machine this is, so that a report can be without it."""
    secrets = [box.key]
    for which in ("client", "operator"):
        with suppress(ApplianceError):
            secrets.append(box.operator.key(which))
    for name in SECRETS:
        if secret := getattr(box.settings, name):
            secrets.append(secret.get_secret_value())
    hosts = [platform.node(), platform.node().partition(".")[0], urlsplit(box.url).hostname or ""]
    hosts += [*box.settings.allowed_hosts, *box.settings.media_hosts]
    accounts = list(_people())
    return Who(
        secrets=tuple(secret for secret in secrets if secret),
        hosts=tuple(host for host in hosts if host and not host[0].isdigit()),
        users=tuple(name for name, _ in accounts),
        homes=tuple(home for _, home in accounts if home != "/"),
    )


def _people() -> Iterator[tuple[str, str]]:
    """Yield the names and homes of the accounts that are people's, and of who types this."""
    for account in pwd.getpwall():
        if account.pw_uid >= _FIRST_USER or account.pw_uid == os.getuid():
            yield account.pw_name, account.pw_dir
    with suppress(OSError):
        yield os.getlogin(), str(Path.home())
