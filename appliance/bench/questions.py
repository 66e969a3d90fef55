"""Every case under every arm: what is asked, and in which order. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from appliance.bench.arms import Arm
from appliance.bench.cases import Case


@dataclass(frozen=True)
class Sampling:
    """How the model shall answer. ``max_tokens`` is room for its reasoning too."""

    model: str
    temperature: float = 0.0
    max_tokens: int = 4096


@dataclass(frozen=True)
class Question:
    """One case under one arm."""

    case: Case
    arm: Arm

    @property
    def key(self) -> tuple[str, str]:
        """What the journal knows it by."""
        return self.case.id, self.arm.name

    def body(self, sampling: Sampling) -> dict[str, Any]:
        """Return the chat request."""
        body: dict[str, Any] = {
            "model": sampling.model,
            "messages": list(self.case.messages),
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
        }
        return body | {"tools": list(self.case.tools)} if self.case.tools else body


def questions(cases: Sequence[Case], arms: Sequence[Arm]) -> tuple[Question, ...]:
    """Return every question, in the order in which they are asked.

    All arms of a group of cases are asked together, and one prompt after the other: what their
    requests have in common is still in the engine's prefix cache.
    """
    cells: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        cells.setdefault((case.task, case.stratum), []).append(case)
    prompts = list(dict.fromkeys(arm.prompt for arm in arms))
    return tuple(
        Question(case, arm)
        for cell in cells.values()
        for prompt in prompts
        for case in cell
        for arm in arms
        if arm.prompt == prompt
    )
