"""The steps of an acceptance run: what each needs, and what came of it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What came of a step. A step is skipped with a reason, and never silently."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Step:
    """One step. ``needs`` names the steps that must not have failed, or been skipped, before it."""

    name: str
    title: str
    about: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """What a step found: the verdict, one line for people, what to type next, and its figures."""

    verdict: Verdict
    detail: str
    next: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A finding, as it is kept. ``samples`` are (seconds since the step began, MemAvailable)."""

    step: str
    finding: Finding
    at: str
    seconds: float
    samples: tuple[tuple[float, int], ...] = ()

    @property
    def low_water_bytes(self) -> int | None:
        """The least MemAvailable of the step; None where it was not seen."""
        return min((available for _, available in self.samples), default=None)


ENGINE = ("start",)
SHARES = (25, 50, 90)  # percent of the served context


def _prefill(share: int) -> Step:
    return Step(
        f"prefill-{share}",
        f"Prefill at {share} %",
        f"a prompt of {share} % of the served context, and the least memory meanwhile",
        ENGINE,
    )


STEPS = (
    Step("doctor", "Doctor", "the host: Docker, GPU, memory, disks, network, model"),
    Step("appliance", "Appliance", "it answers, and is of this version"),
    Step("plan", "Memory plan", "the plan in force, and what is there of it", ("appliance",)),
    Step("start", "Start", "the engine gets ready, if it is not", ("appliance",)),
    Step("warmup", "Warm-up", "its known answer was right, and nothing is degraded", ENGINE),
    Step("smoke", "Smoke checks", "what a coding agent needs: streams, tools, hang-ups", ENGINE),
    Step("kilo", "Kilo preset", "the configuration for Kilo Code fits what is served", ENGINE),
    *(_prefill(share) for share in SHARES),
    Step("speeds", "Speeds", "first token, prefill and decode, alone and with others", ENGINE),
    Step("paths", "Path bench", "how often a path comes back exactly as it was shown", ENGINE),
    Step("kill", "Kill and recovery", "the engine's core is killed; it must come back", ENGINE),
    Step("drain", "Drain", "what runs ends whole; then it stops, and starts again", ENGINE),
)
BY_NAME: Mapping[str, Step] = {step.name: step for step in STEPS}


def passed(detail: str, **figures: Any) -> Finding:
    """Return that all is as it should be."""
    return Finding(Verdict.PASSED, detail, figures=figures)


def failed(detail: str, following: str = "", **figures: Any) -> Finding:
    """Return that it is not, and what to type next."""
    return Finding(Verdict.FAILED, detail, following, figures)


def skipped(reason: str, following: str = "", **figures: Any) -> Finding:
    """Return that a step was left out, or says nothing here, and why."""
    return Finding(Verdict.SKIPPED, reason, following, figures)


def blocker(step: Step, outcomes: Mapping[str, Outcome]) -> str:
    """Return the step that keeps ``step`` from being done; "" where none does."""
    for name in step.needs:
        if name not in outcomes or outcomes[name].finding.verdict is not Verdict.PASSED:
            return name
    return ""


def overall(outcomes: Iterable[Outcome]) -> Verdict | None:
    """Return the verdict of a run: failed with any step, passed once all are done, None before."""
    found = {outcome.step: outcome.finding.verdict for outcome in outcomes}
    if Verdict.FAILED in found.values():
        return Verdict.FAILED
    return Verdict.PASSED if found.keys() >= BY_NAME.keys() else None
