"""What all answers come to: rates with their intervals, by arm, stratum and task. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.bench.answers import Answer
from appliance.bench.arms import Arm
from appliance.bench.questions import Question
from appliance.bench.score import Outcome, Rate

FORMAT = 1


@dataclass(frozen=True)
class Tally:
    """What a set of answers came to. Those that did not fit are in ``unfit`` alone."""

    exact: Rate
    glitched: Rate
    other: int
    none: int
    unfit: int
    kinds: Mapping[str, int]
    prompt_tokens: float | None

    def as_json(self) -> dict[str, Any]:
        """Return it for the JSON report."""
        return {
            "exact": _rate_json(self.exact),
            "glitched": _rate_json(self.glitched),
            "other_path": self.other,
            "no_path": self.none,
            "does_not_fit": self.unfit,
            "kinds": dict(self.kinds),
            "mean_prompt_tokens": self.prompt_tokens,
        }


@dataclass(frozen=True)
class ArmReport:
    """One arm: all of it, and by stratum and task."""

    arm: Arm
    total: Tally
    strata: Mapping[str, Tally]
    tasks: Mapping[str, Tally]


@dataclass(frozen=True)
class Report:
    """The whole measurement; ``about`` is the journal's header."""

    about: Mapping[str, Any]
    arms: tuple[ArmReport, ...]
    asked: int
    answered: int

    @property
    def is_whole(self) -> bool:
        """Whether every question has its answer."""
        return self.answered == self.asked

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "format": FORMAT,
            "about": dict(self.about),
            "asked": self.asked,
            "answered": self.answered,
            "notes": list(notes(self)),
            "arms": [
                {
                    "prompt": part.arm.prompt,
                    "guard": part.arm.guard,
                    **part.total.as_json(),
                    "strata": {name: tally.as_json() for name, tally in part.strata.items()},
                    "tasks": {name: tally.as_json() for name, tally in part.tasks.items()},
                }
                for part in self.arms
            ],
        }


def make_report(
    about: Mapping[str, Any], asked: Sequence[Question], answers: Iterable[Answer]
) -> Report:
    """Return the report; the order in which the answers came does not matter."""
    found = {answer.key: answer for answer in answers}
    pairs = [(question, found[question.key]) for question in asked if question.key in found]
    arms = dict.fromkeys(question.arm for question in asked)
    parts = tuple(_arm_report(arm, [pair for pair in pairs if pair[0].arm == arm]) for arm in arms)
    return Report(about, parts, len(asked), len(pairs))


_Pairs = Sequence[tuple[Question, Answer]]


def _arm_report(arm: Arm, pairs: _Pairs) -> ArmReport:
    return ArmReport(
        arm,
        tally([answer for _, answer in pairs]),
        _split(pairs, lambda question: question.case.stratum),
        _split(pairs, lambda question: question.case.task),
    )


def _split(pairs: _Pairs, name_of: Callable[[Question], str]) -> dict[str, Tally]:
    parts: dict[str, list[Answer]] = {}
    for question, answer in pairs:
        parts.setdefault(name_of(question), []).append(answer)
    return {name: tally(answers) for name, answers in parts.items()}


def tally(answers: Sequence[Answer]) -> Tally:
    """Return what these answers came to."""
    outcomes = Counter(answer.verdict.outcome for answer in answers)
    kinds = Counter(answer.verdict.kind for answer in answers if answer.verdict.kind)
    total = len(answers) - outcomes[Outcome.UNFIT]
    tokens = [answer.prompt_tokens for answer in answers if answer.prompt_tokens is not None]
    return Tally(
        exact=Rate(outcomes[Outcome.EXACT], total),
        glitched=Rate(outcomes[Outcome.GLITCH], total),
        other=outcomes[Outcome.OTHER],
        none=outcomes[Outcome.NONE],
        unfit=outcomes[Outcome.UNFIT],
        kinds=dict(sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0]))),
        prompt_tokens=round(sum(tokens) / len(tokens), 1) if tokens else None,
    )


def notes(report: Report) -> Iterable[str]:
    """Yield what a reader must know to read the figures right."""
    if not report.is_whole:
        yield f"{report.asked - report.answered} of {report.asked} questions are not answered yet"
    if unfit := sum(part.total.unfit for part in report.arms):
        yield f"{unfit} questions did not fit the model's context: they count in no rate"
    lengths = {
        prompt: {part.total.prompt_tokens for part in report.arms if part.arm.prompt == prompt}
        for prompt in ("on", "off")
    }
    if report.is_whole and lengths["on"] and lengths["on"] == lengths["off"] != {None}:
        yield (
            "the prompts are as long with the appliance's prompt as without: "
            "this endpoint does not inject it, and both arms are the same"
        )
    if any(part.total.none * 2 > part.total.exact.total > 0 for part in report.arms):
        yield (
            "most answers hold no path at all: this model cannot follow the questions, "
            "so its rates say little about paths"
        )


def _rate_json(rate: Rate) -> dict[str, Any]:
    low, high = rate.interval
    share = None if rate.share is None else round(rate.share, 6)
    return {
        "count": rate.count,
        "of": rate.total,
        "share": share,
        "low": round(low, 6),
        "high": round(high, 6),
    }
