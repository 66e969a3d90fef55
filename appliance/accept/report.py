"""The report as one tree of plain values: what the page shows, and what programs read. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from appliance.accept.published import published_speeds
from appliance.accept.steps import SHARES, STEPS, Outcome, overall

FORMAT = 1
Tree = dict[str, Any]


def make_report(
    kind: str,
    made: str,
    outcomes: Mapping[str, Outcome],
    evidence: Mapping[str, Any],
    doctor: Sequence[Mapping[str, Any]] = (),
) -> Tree:
    """Return the tree of an ``acceptance`` or of a ``bundle``, which has no steps."""
    figures = {name: outcome.finding.figures for name, outcome in outcomes.items()}
    verdict = overall(outcomes.values())
    return {
        "format": FORMAT,
        "kind": kind,
        "made": made,
        "verdict": verdict.value if verdict else None,
        "steps": [_step(outcomes[step.name]) for step in STEPS if step.name in outcomes],
        "samples": samples(outcomes),
        "prefill": [figures[name] for name in _prefills() if figures.get(name)],
        "speeds": figures.get("speeds") or None,
        "published": published_speeds() if kind == "acceptance" else [],
        "paths": figures.get("paths") or None,
        "doctor": list(figures.get("doctor", {}).get("rows") or doctor),
        "smoke": list(figures.get("smoke", {}).get("checks") or ()),
        **evidence,
        # the plan at which it was measured goes before that of the last start
        "memory": figures.get("plan", {}).get("memory") or evidence.get("memory"),
    }


def _prefills() -> list[str]:
    return [f"prefill-{share}" for share in SHARES]


def _step(outcome: Outcome) -> Tree:
    finding = outcome.finding
    title = next(step.title for step in STEPS if step.name == outcome.step)
    return {
        "name": outcome.step,
        "title": title,
        "verdict": finding.verdict.value,
        "detail": finding.detail,
        "next": finding.next,
        "at": outcome.at,
        "seconds": round(outcome.seconds, 1),
        "low_water_bytes": outcome.low_water_bytes,
    }


def samples(outcomes: Mapping[str, Outcome]) -> list[Tree]:
    """Return MemAvailable of each step, one after the other: a pause between them counts nothing.

    Each row has ``from_s``, ``to_s`` and its ``points`` as (seconds of the whole run, bytes).
    """
    rows, began = [], 0.0
    for step in STEPS:
        outcome = outcomes.get(step.name)
        if outcome is None or not outcome.samples:
            continue
        points = [(round(began + at, 1), available) for at, available in outcome.samples]
        ended = began + max(outcome.seconds, outcome.samples[-1][0])
        rows.append({"step": step.name, "title": step.title, "from_s": round(began, 1),
                     "to_s": round(ended, 1), "points": points})  # fmt: skip
        began = ended
    return rows
